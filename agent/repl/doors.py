"""The three things `agent` does: talk, answer one question, play a task; and what they need to be set up."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from agent.repl.approval import Approval
from agent.repl.conversation import Conversation, TurnEnd, sentence
from agent.repl.journal import Journal, Summary, read_journal, state_folder
from agent.repl.reader import Pipe, Reader, Terminal
from agent.repl.screen import Screen
from agent.repl.shell import Shell, close_sampler
from agent.repl.transcript import Transcript
from agent.rollout import Limits, rollout
from agent.sampler import Sampler, SamplingParams
from agent.session import PlainSession, graph_session, missing_langgraph
from envs.log import append
from envs.message import system
from envs.trajectory import Stop, Trajectory
from tools.content import BlobStore
from tools.errors import ConfigError, nearest
from tools.record import record
from tools.tool import Tool


@record
class Options:
    """What the command line asked for."""

    model: str = "smollm2"
    dialect: str | None = None
    base_url: str | None = None
    tools: bool = True
    system: str | None = None
    params: SamplingParams = field(default_factory=SamplingParams)
    limits: Limits = field(default_factory=Limits)
    timeout_s: float = 120.0
    """Longest wait for a server."""
    threads: int | None = None
    dtype: str | None = None
    device: str | None = None
    yes: bool = False
    as_json: bool = False
    save: Path | None = None
    resume: Summary | None = None
    debug: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What going on with the conversation should find again."""
        return {"dialect": self.dialect, "base_url": self.base_url, "tools": self.tools}


async def talk(options: Options) -> int:
    """The REPL: at a terminal with editing, from a pipe line by line."""
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    console = make_console(stderr=options.as_json)
    from agent.repl.commands import COMMANDS

    reader: Reader = Terminal(state_folder() / "history", COMMANDS) if at_terminal else Pipe()
    async with opened(options, Screen(console), reader, can_ask=at_terminal, durable=True) as shell:
        if at_terminal:
            _greet(shell, options)
        try:
            await shell.run(reader)
            return 0 if at_terminal else shell.worst
        finally:
            if shell.conversation.transcript.steps:
                _keep(options, shell)
                go_on = f"agent --resume {shell.conversation.journal.id}"
                if at_terminal and missing_langgraph() is None:
                    shell.screen.note(f"go on with: {go_on}")


async def ask(options: Options, question: str) -> int:
    """One question: the answer to stdout, all else to stderr."""
    answer_streams = sys.stdout.isatty() and not options.as_json
    screen = Screen(make_console(stderr=True), text_file=sys.stdout if answer_streams else None)
    can_ask = sys.stdin.isatty() and sys.stderr.isatty()
    async with opened(options, screen, Pipe(), can_ask=can_ask, durable=False) as shell:
        end = await shell.say(question.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        if not options.as_json and not answer_streams and end.error is None:
            sys.stdout.write(shell.trajectory().answer.encode("utf-8", "replace").decode() + "\n")
            sys.stdout.flush()
        _keep(options, shell)
    return end.exit_code


async def play(options: Options, taskset_name: str, args: Mapping[str, str], task_id: str | None) -> int:
    """Let the model play one task of a taskset, and show how it scores."""
    from envs.find import find_taskset, hide_tools

    taskset = find_taskset(taskset_name, args)
    if not options.tools:
        taskset = hide_tools(taskset)
    tasks = {task.id: task for task in taskset.tasks}
    if task_id is not None and task_id not in tasks:
        raise ConfigError(f"taskset {taskset.name} has no task {task_id!r}", hint=nearest(task_id, list(tasks)[:1000]))
    task = tasks[task_id] if task_id is not None else taskset.tasks[0]
    screen = Screen(make_console(stderr=True), taskset.blobs)
    screen.busy(f"loading {options.model}")
    sampler = make_sampler(options, options.model, taskset.blobs)
    screen.idle()
    try:
        env = taskset.env(task)
        env.tools = approval_for(options, screen, _ask_on_stderr(screen)).guard(env.tools)
        for message in task.prompt:
            screen.say(message)
        screen.busy("thinking")
        trajectory = await rollout(
            env, sampler, options.params, options.limits, rubric=taskset.rubric, on_event=screen.on_event
        )
    finally:
        screen.settle()
        close_sampler(sampler)
    end = TurnEnd(stop=None if trajectory.stop is Stop.DONE else trajectory.stop)
    if trajectory.stop is Stop.ERROR:
        end = TurnEnd(stop=Stop.ERROR, error=sentence(trajectory.error or ""))
        screen.error(end.error or "")
    scores = ", ".join(f"{name}={score:g}" for name, score in trajectory.scores.items())
    screen.note(f"task {task.id}: stop={trajectory.stop} reward={trajectory.reward} {scores}")
    if options.as_json:
        print_json(end, trajectory, reward=trajectory.reward, scores=trajectory.scores)
    else:
        print(trajectory.answer, flush=True)
    if options.save:
        append(options.save, trajectory, taskset.blobs)
    return end.exit_code


@contextlib.asynccontextmanager
async def opened(
    options: Options, screen: Screen, reader: Reader, *, can_ask: bool, durable: bool
) -> AsyncGenerator[Shell]:
    """A shell, with its model loaded and its session open; closed again at the end."""
    name = options.resume.id if options.resume else new_id()
    folder = state_folder() / "sessions" / name
    screen.blobs = blobs = BlobStore(folder / "blobs")
    journal = Journal(folder, options.model, options.settings)
    transcript = read_journal(folder) if options.resume else Transcript()

    async def allow() -> bool:
        return await shell.allow(reader)

    approval = approval_for(options, screen, allow if can_ask else None)
    async with contextlib.AsyncExitStack() as stack:
        tools: tuple[Tool, ...] = ()
        if options.tools:
            from tools.python import PythonTool

            python = PythonTool(timeout_s=60.0, blobs=blobs)
            stack.push_async_callback(python.close)
            tools = approval.guard((python.tool,))
        screen.busy(f"loading {options.model}")
        stack.callback(screen.idle)
        sampler = make_talker(options, options.model, blobs)
        screen.idle()
        conversation = Conversation(
            sampler,
            journal,
            tools=tools,
            params=options.params,
            limits=options.limits,
            system=system(options.system) if options.system else None,
            transcript=transcript,
            show=screen.on_event,
        )
        shell = Shell(
            conversation,
            screen,
            model=options.model,
            load=lambda spec: make_talker(options, spec, blobs),
            on_turn=_json_printer(journal) if options.as_json else None,
            debug=options.debug,
        )
        stack.callback(lambda: close_sampler(conversation.sampler))
        stack.push_async_callback(conversation.close)
        await _open_session(shell, stack, durable=durable or options.resume is not None, options=options)
        yield shell


async def _open_session(shell: Shell, stack: contextlib.AsyncExitStack, *, durable: bool, options: Options) -> None:
    """LangGraph's where it is installed; for a single question, which need not wait for it, the journal alone."""
    if not durable or missing_langgraph() is not None:
        shell.session = PlainSession(shell.turn)
        return
    file = state_folder() / "sessions.sqlite"
    session = await stack.enter_async_context(graph_session(file, shell.conversation.journal.id, shell.turn))
    if options.resume:  # the journal also holds what was said in a turn that a crash cut off
        await session.replace(shell.conversation.transcript.messages)
    shell.session = session


def make_talker(options: Options, spec: str, blobs: BlobStore) -> Sampler:
    """`make_sampler` for a conversation. Raises `ConfigError` for those that only play tasks."""
    from agent.models import WITHOUT_MODEL

    if spec in WITHOUT_MODEL and options.base_url is None:
        raise ConfigError(f"{spec} plays tasks and cannot talk", hint="add --taskset arithmetic")
    return make_sampler(options, spec, blobs)


def make_sampler(options: Options, spec: str, blobs: BlobStore | None = None) -> Sampler:
    """The sampler of `spec`, with what only a chat server needs filled in."""
    from agent.chat import ChatSampler
    from agent.models import sampler_for
    from agent.vision import look_in

    sampler = sampler_for(
        spec,
        dialect=options.dialect,
        base_url=options.base_url,
        threads=options.threads,
        dtype=options.dtype,
        device=options.device,
        timeout_s=options.timeout_s,
    )
    look_in(sampler, blobs)
    if isinstance(sampler, ChatSampler):
        sampler.blobs = blobs
        sampler.max_retries = 2  # a person is waiting
    return sampler


def approval_for(options: Options, screen: Screen, ask_person: Callable[[], Any] | None) -> Approval:
    """Approval that asks the person; where there is nobody to ask, it says so on the screen."""

    async def cannot_ask() -> bool:
        screen.note("  not run: there is nobody to ask; --yes allows model-written code to run", style="red")
        return False

    return Approval(ask_person or cannot_ask, given=options.yes)


def make_console(*, stderr: bool) -> Any:
    """A rich console that writes plain text where it is no terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False)


def new_id() -> str:
    """A name that sorts by time and is unique enough for one person: `20260131-154500-a3f2`."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"


def print_json(end: TurnEnd, trajectory: Trajectory, **more: Any) -> None:
    """One line on stdout: the answer, how it ended, the calls."""
    calls = [
        {
            "name": done.call.name,
            "arguments": done.call.arguments,
            "outcome": done.outcome,
            "result": done.result.text,
        }
        for done in trajectory.calls
    ]
    line = {
        "answer": trajectory.answer if end.error is None else None,
        "stop": "interrupted" if end.interrupted else str(end.stop or Stop.DONE),
        "error": end.error,
        "calls": calls,
        **more,
    }
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _json_printer(journal: Journal) -> Callable[[TurnEnd, Trajectory], None]:
    return lambda end, trajectory: print_json(end, trajectory, session=journal.id)


def _ask_on_stderr(screen: Screen) -> Callable[[], Any] | None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    async def ask_person() -> bool:
        screen.idle()
        answer = await Pipe().ask("  Run this code on your machine? y: yes, for this session; n: no. [y/N] ")
        return answer.strip().lower() in ("y", "yes")

    return ask_person


def _keep(options: Options, shell: Shell) -> None:
    if options.save:
        append(options.save, shell.trajectory(), shell.screen.blobs)


def _greet(shell: Shell, options: Options) -> None:
    tools = ", ".join(tool.name for tool in shell.conversation.tools) or "none"
    shell.screen.note(f"{options.model} · tools: {tools} · /help", style="bold")
    if missing_langgraph():
        shell.screen.note(f"{missing_langgraph()} is not installed: conversations are logged, and cannot be resumed")
    if options.resume:
        for message in shell.conversation.transcript.messages:
            shell.screen.say(message)
        if shell.conversation.tools:
            shell.screen.note("(the interpreter starts empty)")
