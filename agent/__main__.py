"""`agent`: talk to a model that uses tools, ask it one question, or watch it play a task."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli import our_version, run
from agent.dialects import DIALECTS

if TYPE_CHECKING:
    from agent.repl.doors import Options
    from agent.repl.journal import Summary


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(our_version(), package_name="toolweave")
@click.argument("question", nargs=-1)
@click.option("--model", "-m", default="smollm2", show_default=True, help="A folder, a hub id, tiny, or openai:NAME.")
@click.option("--dialect", type=click.Choice(sorted(DIALECTS)), help="How calls are written. Default: the model's.")
@click.option("--base-url", help="An OpenAI-compatible server that serves the model, up to and with /v1.")
@click.option("--tools", type=click.Choice(["python", "none"]), default="python", show_default=True)
@click.option("--system", help="A system message.")
@click.option("--taskset", help="Play a task of this taskset instead of talking: arithmetic, file.py:function, ...")
@click.option("--arg", "-a", "args", multiple=True, metavar="KEY=VALUE", help="Argument of the taskset.")
@click.option("--task", help="Which task. Default: the first.")
@click.option("--max-turns", default=16, show_default=True, help="The model's actions per question.")
@click.option("--max-tokens", default=512, show_default=True, help="Per action.")
@click.option("--thinking-budget", type=int, metavar="N", help="Of them, tokens of thinking before it is closed.")
@click.option("--temperature", default=0.7, show_default=True, help="0 is greedy.")
@click.option("--seed", type=int, help="Default: a fresh one each time.")
@click.option("--timeout", default=120.0, show_default=True, help="Longest wait for a server, seconds.")
@click.option("--continue", "go_on", is_flag=True, help="Go on with the last conversation.")
@click.option("--resume", metavar="ID", help="Go on with a conversation; the beginning of its id is enough.")
@click.option("--list", "list_all", is_flag=True, help="List the conversations and leave.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Append the episode to a log (JSONL).")
@click.option("--json", "as_json", is_flag=True, help="One JSON line per answer on stdout.")
@click.option("--yes", "-y", is_flag=True, help="Let model-written code run without asking.")
@click.option("--threads", type=int, help="CPU threads of a model in this process.")
@click.option("--dtype", metavar="TYPE", help="How its weights are held: bfloat16, float16, auto. Default: float32.")
@click.option("--device", metavar="NAME", help="Where it runs: cuda, cuda:1, mps. Default: the CPU.")
@click.pass_context
def cli(context: click.Context, question: tuple[str, ...], **given: Any) -> int:
    """Talk to a model that uses tools; with QUESTION, answer it and leave.

    The answer goes to stdout, all else to stderr. Exit codes: 0 answered, 1 a mistake in the request, 2 something
    broke, 3 a limit cut the answer, 130 interrupted. Conversations are kept in the user's state folder
    (TOOLWEAVE_STATE).
    """
    if given["list_all"]:
        return list_conversations(as_json=given["as_json"])
    import asyncio

    from agent.repl.doors import ask, play, talk

    options = options_from(context, given)
    if given["taskset"]:
        return asyncio.run(play(options, given["taskset"], arguments(given["args"]), given["task"]))
    if given["task"] or given["args"]:
        raise click.UsageError("--task and --arg belong to --taskset")
    if question:
        return asyncio.run(ask(options, " ".join(question)))
    return asyncio.run(talk(options))


def options_from(context: click.Context, given: dict[str, Any]) -> Options:
    """The options, those of the conversation to go on with filled in where the command line says nothing."""
    from agent.repl.doors import Options
    from agent.rollout import Limits
    from agent.sampler import SamplingParams

    if not given["timeout"] > 0:
        raise click.UsageError(f"--timeout is {given['timeout']:g}; it must be more than 0 seconds")
    if given["save"]:
        from envs.log import TrajectoryLog

        TrajectoryLog(given["save"]).close()  # before the episode that it is to keep, not after it
    options = Options(
        model=given["model"],
        dialect=given["dialect"],
        base_url=given["base_url"],
        tools=given["tools"] != "none",
        system=given["system"],
        params=SamplingParams(
            **{name: given[name] for name in ("max_tokens", "temperature", "seed", "thinking_budget")}
        ),
        # A person who is asked for approval may take their time; the interpreter has a deadline of its own.
        limits=Limits(max_turns=given["max_turns"], call_timeout_s=None),
        timeout_s=given["timeout"],
        threads=given["threads"],
        dtype=given["dtype"],
        device=given["device"],
        yes=given["yes"],
        as_json=given["as_json"],
        save=given["save"],
        resume=resumed(given),
        debug="--debug" in sys.argv,
    )
    if options.resume is None:
        return options
    kept = {"model": options.resume.model, **options.resume.settings}
    default = click.core.ParameterSource.DEFAULT
    return replace(options, **{name: kept[name] for name in kept if context.get_parameter_source(name) is default})


def resumed(given: dict[str, Any]) -> Summary | None:
    """The conversation to go on with, or None for a new one."""
    if not given["go_on"] and not given["resume"]:
        return None
    from agent.repl.journal import find_session, state_folder
    from agent.session import require_langgraph

    require_langgraph()
    return find_session(state_folder() / "sessions", given["resume"])


def list_conversations(*, as_json: bool) -> int:
    """Print the conversations, the last one first."""
    import json

    from agent.repl.journal import state_folder, summaries
    from agent.repl.screen import visible

    for summary in summaries(state_folder() / "sessions"):
        if as_json:
            line = {"id": summary.id, "model": summary.model, "changed": summary.changed, "messages": summary.messages}
            click.echo(json.dumps({**line, "first": summary.first}))
            continue
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(summary.changed))
        first = visible(" ".join(summary.first.split()))[:60]
        click.echo(f"{summary.id}  {when}  {summary.messages:>3} messages  {summary.model}  {first}")
    return 0


def arguments(pairs: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` pairs as a mapping."""
    for pair in pairs:
        if "=" not in pair:
            raise click.UsageError(f"--arg {pair!r} is not KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; `argv` stands in for the command line."""
    return run(cli, argv)


if __name__ == "__main__":
    sys.exit(main())
