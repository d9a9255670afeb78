"""What collection keeps, by name, and where it stops spending."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.sampler import ScriptedSampler
from envs import Step, StepTokens, Stop, Task, Trajectory, assistant, user
from envs.log import read_log
from envs.trajectory import CallRecord
from tools.errors import ConfigError
from tools.tool import ToolCall, ToolResult
from training.collect import KEPT, LOG, collect
from training.recipe import Collect, Recipe, StageRun
from training.selection import Spent, reasons_to_drop, spent_on

PROMPT = (user("What is 1 + 1?"),)


def call(outcome: Any = "ok") -> CallRecord:
    asked = ToolCall(id="c", name="add", raw="", arguments={"a": 1, "b": 1})
    return CallRecord(call=asked, result=ToolResult(), outcome=outcome, seconds=0.0)


def episode(task: str, correct: float, *outcomes: Any, said: str = "2") -> Trajectory:
    step = Step(observation=PROMPT, action=assistant(said), calls=tuple(call(outcome) for outcome in outcomes))
    scores = {"correct": correct}
    return Trajectory(task=Task(id=task, prompt=PROMPT), steps=[step], stop=Stop.DONE, scores=scores, reward=correct)


def reasons(episodes: list[Trajectory], before: list[str | None] | None = None, **filters: Any) -> list[str | None]:
    stage = Collect(filters=filters)
    return reasons_to_drop(stage, episodes, before or [None] * len(episodes), "correct")


def test_well_formed_means_no_call_that_could_not_be_run() -> None:
    found = [episode("a", 1, "ok"), episode("a", 1, "ok", "malformed"), episode("a", 1, "tool_error"), episode("a", 1)]
    assert reasons(found, well_formed={}) == [None, "a malformed call", None, None]


def test_calls_are_counted_when_they_ran_and_went_well() -> None:
    found = [episode("a", 1), episode("a", 1, "ok"), episode("a", 1, "ok", "ok"), episode("a", 1, "ok", "timeout")]
    assert reasons(found, min_calls={"k": 2}) == ["fewer than 2 calls"] * 2 + [None, "fewer than 2 calls"]


def test_the_same_said_to_the_same_is_kept_once() -> None:
    found = [episode("a", 1), episode("a", 1), episode("b", 1, said="two"), episode("b", 1)]
    assert reasons(found, unique={}) == [None, "said before", None, "said before"], "the prompts are the same"
    assert reasons(found, ["correct below 1", None, None, None], unique={})[1] is None, "the first is not kept anyway"


def test_a_call_says_the_same_in_whatever_order_its_arguments_stand() -> None:
    def calling(**arguments: int) -> Trajectory:
        asked = ToolCall(id="c", name="add", raw="", arguments=arguments)
        found = episode("a", 1)
        found.steps[0] = Step(observation=PROMPT, action=assistant(tool_calls=(asked,)))
        return found

    assert reasons([calling(a=1, b=2), calling(b=2, a=1), calling(a=2, b=1)], unique={}) == [None, "said before", None]


def test_the_pass_rate_counts_every_attempt() -> None:
    found = [episode("never", 0), episode("never", 0), episode("half", 1), episode("half", 0), episode("always", 1)]
    before = [None if t.reward else "correct below 1" for t in found]
    kept = reasons(found, before, pass_rate={"low": 0.25, "high": 0.75})
    assert [reason is None for reason in kept] == [False, False, True, False, False]
    assert kept[-1] == "pass rate outside the band"


def test_filters_run_in_order_and_the_first_reason_counts() -> None:
    found = [episode("a", 1, "ok"), episode("a", 1, "ok", said="3"), episode("a", 1, "malformed")]
    assert reasons(found, well_formed={}, per_task={"most": 1}) == [None, "more than 1 of a task", "a malformed call"]


def test_a_filter_of_the_users_is_used_like_ours(tmp_path: Path) -> None:
    lines = ("def short(episodes, most):", "    return ['long' if len(e.answer) > most else None for e in episodes]")
    (tmp_path / "mine.py").write_text("\n".join(lines))
    found = [episode("a", 1), episode("a", 1, said="22222")]
    assert reasons(found, **{f"{tmp_path}/mine.py:short": {"most": 2}}) == [None, "long"]
    (tmp_path / "mine.py").write_text("def short(episodes):\n    return [None]\n")
    with pytest.raises(ConfigError, match="for 2 episodes; it needs a list, one for each"):
        reasons(found, **{f"{tmp_path}/mine.py:short": {}})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"filters": {"well_form": {}}}, "there is no filter named 'well_form'"),
        ({"filters": {"min_calls": {"n": 2}}}, "has no argument 'n'"),
    ],
)
def test_a_filter_that_does_not_exist_is_said_before_anything_is_played(
    tmp_path: Path, fields: dict[str, Any], sentence: str
) -> None:
    stage = Collect(n=2, **fields)
    with pytest.raises(ConfigError, match=sentence):
        collect(stage, run_of(stage, tmp_path))
    assert not (tmp_path / LOG).exists()


def test_a_cost_cap_without_prices_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"collect.max_cost is 2.0, and no prices are given"):
        Collect(max_cost=2.0)


def test_tokens_are_counted_as_a_server_bills_them() -> None:
    """Prompts of 3 and 3+2+1 tokens, 2 and 4 sampled; a fork starts its prompt anew."""

    def tokens(added: int, sampled: int, extends: bool) -> StepTokens:
        ids = (1,) * sampled
        return StepTokens(added=(1,) * added, completion=ids, logprobs=(-1.0,) * sampled, extends=extends, spans=())

    def steps(*made: StepTokens) -> Trajectory:
        steps = [Step(observation=(), action=assistant("x"), tokens=one) for one in made]
        return Trajectory(task=Task(id="t", prompt=()), steps=steps)

    assert spent_on(steps(tokens(3, 2, False), tokens(1, 4, True))) == Spent(prompt=3 + 6, sampled=6)
    assert spent_on(steps(tokens(3, 2, False), tokens(7, 4, False))) == Spent(prompt=3 + 7, sampled=6)
    billed = Step(observation=(), action=assistant("x"), usage={"prompt": 11, "completion": 5})
    assert spent_on(Trajectory(task=Task(id="t", prompt=()), steps=[billed] * 2)) == Spent(prompt=22, sampled=10)


WORLD = """
from envs import Rubric, Task, Taskset, ToolEnv, assistant, user

def world(n: int = 12) -> Taskset:
    async def correct(env, trajectory):
        return 1.0

    tasks = [Task(id=f"t{i}", prompt=(user(f"{i}?"),), gold=(assistant(f"Answer: {i}"),)) for i in range(n)]
    rubric = Rubric(rewards={"correct": (correct, 1.0)})
    return Taskset(name="world", tasks=tasks, env=lambda task: ToolEnv(task=task), rubric=rubric)
"""


class Billed:
    """Gold, at 100 prompt and 10 sampled tokens an action."""

    async def sample(self, *args: Any) -> Step:
        from dataclasses import replace

        return replace(await ScriptedSampler().sample(*args), usage={"prompt": 100, "completion": 10})


def run_of(stage: Collect, folder: Path, taskset: str = "toy_arithmetic") -> StageRun:
    recipe = Recipe(name="r", taskset=taskset, stages=(stage,))
    return StageRun(recipe=recipe, folder=folder, start="gold", dialect="hermes", seed=0)


@pytest.mark.parametrize(
    ("cap", "played"),
    [({"max_tokens": 35}, 4), ({"max_cost": 0.5, "prices": (1000.0, 0.0)}, 5), ({"max_tokens": 10**6}, 12)],
)
def test_a_cap_stops_new_episodes_and_still_does_when_resumed(tmp_path: Path, cap: Any, played: int) -> None:
    """One at a time, 10 tokens each: 35 tokens are spent after the fourth; half a unit of money after the fifth."""
    (tmp_path / "world.py").write_text(WORLD)
    stage = Collect(n=12, concurrency=1, **cap)
    run = run_of(stage, tmp_path / "out", f"{tmp_path / 'world.py'}:world")
    run.folder.mkdir()
    for _ in range(2):
        found = collect(stage, run, Billed())
        assert (found["kept"], found["not_played"], found["tokens"]) == (played, 12 - played, 10 * played)
    assert len(list(read_log(run.folder / LOG))) == len(list(read_log(run.folder / KEPT))) == played
