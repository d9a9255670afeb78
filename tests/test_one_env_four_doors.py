"""One environment, one player, four doors: the REPL, an evaluation, collection and GRPO record the same episodes.

The player writes each task's gold actions through a renderer, so its episodes have ids. The world makes it meet a
`ToolError` before it gets its answer, in a dialect whose results are turns and in one where they continue the turn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent.__main__ import main as agent_command
from agent.dialects import dialect_named
from agent.models import load_model
from agent.renderer import Renderer
from agent.sampler import SamplingParams, ScriptedSampler
from agent.token_sampler import context_ids
from envs.find import find_taskset
from envs.log import read_log
from envs.message import Message
from envs.trajectory import Step, StepTokens, Trajectory
from evals import evaluate
from training.collect import collect
from training.recipe import GRPO, Collect, Recipe, StageRun

WORLD = '''
from envs import Env, Rubric, Task, Taskset, ToolEnv, Trajectory, assistant, user
from tools import ToolCall, ToolError, tool

@tool
def python(code: str) -> str:
    """Look up a sum.

    Args:
        code: The sum.
    """
    sums = {"2+3": "5", "4+4": "8"}
    if code not in sums:
        raise ToolError(f"{code!r} is not in the book")
    return sums[code]

async def right(env: Env, episode: Trajectory) -> float:
    return float(episode.answer == f"Answer: {episode.task.answer}")

async def failed(env: Env, episode: Trajectory) -> float:
    return sum(call.outcome != "ok" for call in episode.calls)

def task(asked: str, answer: str) -> Task:
    calls = [ToolCall(id="c", name="python", raw="", arguments={"code": code}) for code in ("1/0", asked)]
    gold = (*(assistant("I look.", tool_calls=[call]) for call in calls), assistant(f"Answer: {answer}"))
    return Task(id=asked, prompt=(user(f"What is {asked}?"),), answer=answer, gold=gold)

def taskset() -> Taskset:
    """Sums in a book."""
    rubric = Rubric(rewards={"right": (right, 1.0), "failed": (failed, -0.25)})
    tasks = [task("2+3", "5"), task("4+4", "8")]
    return Taskset(name="book", tasks=tasks, env=lambda task: ToolEnv(task=task, tools=(python,)), rubric=rubric)
'''


class GoldInIds:
    """Plays gold as a policy would: ids recorded, the action read back from them."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.script = ScriptedSampler()
        self.given: list[tuple[int, ...]] = []

    async def sample(
        self,
        so_far: Trajectory,
        new: tuple[Message, ...],
        params: SamplingParams,
        on_text: Callable[[str], None] | None = None,
    ) -> Step:
        step = await self.script.sample(so_far, new, params)
        delta = self.renderer.extend(so_far, new) if so_far.steps else None
        extends = delta is not None
        delta = delta or self.renderer.start(so_far.messages, so_far.tools)
        text = self.renderer.dialect.write(step.action)
        ids = tuple(self.renderer.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
        if not text.endswith(self.renderer.stop_strings or ("\0",)):
            ids += tuple(self.renderer.stop_ids)
        self.given.append((*context_ids(so_far), *delta.ids, *ids))
        parsed = self.renderer.parse(ids, so_far.tools)
        assert said([parsed]) == said([step.action])
        tokens = StepTokens(
            added=delta.ids, completion=ids, logprobs=(-0.5,) * len(ids), extends=extends, spans=delta.spans
        )
        return Step(observation=new, action=step.action, tokens=tokens)


def said(messages: Iterable[Message]) -> list[Any]:
    """Messages without what only the writer's format decides: the ids of calls and their raw text."""
    return [
        (message.role, message.text, [(call.name, dict(call.arguments or {})) for call in message.tool_calls])
        for message in messages
    ]


def facts(episode: Trajectory) -> dict[str, Any]:
    """All that two doors must agree on."""
    return {
        "task": episode.task.id,
        "tools": [tool.name for tool in episode.tools],
        "messages": said(episode.messages),
        "calls": [(done.call.name, done.outcome, done.result.text) for done in episode.calls],
        "stop": episode.stop,
        "scores": episode.scores,
        "reward": episode.reward,
    }


def through_the_repl(world: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Trajectory]:
    log = folder / "repl.jsonl"
    for task in ("2+3", "4+4"):
        arguments = ["--taskset", world, "--task", task, "--model", "gold", "--yes", "--save", str(log)]
        monkeypatch.setattr(sys, "argv", ["agent", *arguments])
        assert agent_command() == 0
    return list(read_log(log))


def through_collection(world: str, folder: Path, player: GoldInIds, dialect: str) -> list[Trajectory]:
    stage = Collect(n=2)
    recipe = Recipe(name="doors", model="tiny", taskset=world, dialect=dialect, stages=(stage,))
    folder.mkdir()
    collect(stage, StageRun(recipe=recipe, folder=folder, start="gold", dialect=dialect, seed=1), player)
    return list(read_log(folder / "trajectories.jsonl"))


def through_grpo(world: str, folder: Path, player: GoldInIds) -> list[Trajectory]:
    from training.grpo import make_trainer

    folder.mkdir()
    model, tokenizer = load_model("tiny")
    settings = GRPO(steps=1, tasks_per_step=2, group_size=2)
    trainer = make_trainer(
        settings,
        model=model,
        tokenizer=tokenizer,
        taskset=find_taskset(world),
        make_sampler=lambda model: player,
        out=folder,
        seed=1,
    )
    try:
        trainer.train()  # pyright: ignore[reportUnknownMemberType]
    finally:
        trainer.close()
    return list(read_log(folder / "trajectories.jsonl"))


@pytest.mark.parametrize("dialect", ["hermes", "inline"])
def test_one_environment_gives_the_same_episodes_through_all_four_doors(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "world.py").write_text(WORLD)
    world = f"{tmp_path / 'world.py'}:taskset"
    renderer = Renderer(load_model("tiny")[1], dialect_named(dialect))
    player = GoldInIds(renderer)
    evaluate(find_taskset(world), player, out=tmp_path / "eval", progress=False)
    doors = {
        "repl": through_the_repl(world, tmp_path, monkeypatch),
        "eval": list(read_log(tmp_path / "eval" / "samples.jsonl")),
        "collect": through_collection(world, tmp_path / "collect", player, dialect),
        "grpo": through_grpo(world, tmp_path / "grpo", player),
    }
    seen = {name: {json.dumps(facts(episode), sort_keys=True) for episode in log} for name, log in doors.items()}
    assert {name: len(log) for name, log in doors.items()} == {"repl": 2, "eval": 2, "collect": 2, "grpo": 4}
    assert seen["eval"] == seen["collect"] == seen["grpo"] == seen["repl"]
    assert {(episode.reward, len(episode.calls)) for episode in doors["grpo"]} == {(0.75, 2)}
    rows = {name: {row for episode in doors[name] for row in episode.sequences()} for name in ("eval", "grpo")}
    assert rows["eval"] == rows["grpo"]
    assert {row.token_ids for row in rows["grpo"]} <= set(player.given), "a row is what the policy was given and wrote"
    taught = {(row.token_ids, row.loss_mask) for episode in doors["repl"] for row in renderer.teach(episode)}
    assert taught == {(row.token_ids, row.loss_mask) for row in rows["grpo"]}
