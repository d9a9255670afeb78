"""Tools that episodes share: bounded, freed when a call is cut, and looked up once for a group."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.episodes import episodes, jobs
from agent.rollout import Limits
from agent.sampler import SamplingParams, ScriptedSampler
from envs import Rubric, Task, Taskset, ToolEnv, Trajectory, assistant, user
from envs.log import read_log
from tools import ToolError, tool
from tools.errors import ConfigError
from tools.image.memory import PixelMemory, Slot
from tools.tool import Tool, ToolCall, ToolResult
from training.rollouts import Planned, StepRollouts
from training.sharing import check_tools, with_shared_results, with_slots


def looks_up(word: Any = "cat", n: int = 1) -> tuple[Any, ...]:
    calls = [ToolCall(id=f"c{i}", name="look", raw="", arguments={"word": word}) for i in range(n)]
    return (*(assistant(tool_calls=(call,)) for call in calls), assistant("done"))


def taskset_of(look: Tool, tasks: int = 1, gold: tuple[Any, ...] | None = None) -> Taskset:
    made = tuple(Task(id=f"t{i}", prompt=(user("?"),), gold=gold or looks_up()) for i in range(tasks))

    async def zero(env: Any, trajectory: Trajectory) -> float:
        return 0.0

    rubric = Rubric(rewards={"zero": (zero, 1.0)})
    return Taskset(name="shared", tasks=made, env=lambda task: ToolEnv(task=task, tools=(look,)), rubric=rubric)


def play(taskset: Taskset, samples: int, **limits: Any) -> list[Trajectory]:
    async def run() -> list[Trajectory]:
        plan = jobs(taskset.tasks, samples)
        stream = episodes(taskset, plan, ScriptedSampler(), limits=Limits(**limits), concurrency=64)
        return [trajectory async for trajectory in stream]

    return asyncio.run(run())


def test_no_more_calls_run_at_once_than_the_limit_says() -> None:
    running, most = 0, 0

    @tool
    async def look(word: str) -> str:
        """Look a word up."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return word

    taskset = taskset_of(look)
    play(taskset, 12)
    assert most == 12
    most = 0
    found = play(with_slots(taskset, {"look": 3}), 12)
    assert most == 3 and all(t.calls[0].outcome == "ok" for t in found)


def test_a_tool_that_bounds_itself_is_bounded_by_both() -> None:
    memory = PixelMemory(100)
    together: list[tuple[int, int]] = []
    running = 0

    async def fn(word: str) -> ToolResult:
        nonlocal running
        running += 1
        together.append((running, memory.held))
        await asyncio.sleep(0)
        running -= 1
        return ToolResult()

    look = Tool(name="look", description="", parameters={}, fn=fn, slots=Slot(memory, lambda: 40))
    for most, held in ((5, 80), (1, 40)):
        together.clear()
        found = play(with_slots(taskset_of(look), {"look": most}), 6)
        assert all(t.calls[0].outcome == "ok" for t in found) and memory.held == 0
        assert max(together) == (min(most, 2), held)


def test_calls_that_hang_are_cut_and_the_tool_is_free_for_those_that_waited() -> None:
    """One slot. Two calls hang for ever; the others wait for two deadlines, which are not their own time, and run."""
    freed: list[str] = []
    calls = 0

    @tool
    async def look(word: str) -> str:
        """Look a word up."""
        nonlocal calls
        calls += 1
        if calls <= 2:
            try:
                await asyncio.Event().wait()
            finally:
                freed.append(word)
        return word

    found = play(with_slots(taskset_of(look), {"look": 1}), 5, call_timeout_s=0.3)
    assert freed == ["cat"] * 2
    assert sorted(t.calls[0].outcome for t in found) == ["ok", "ok", "ok", "timeout", "timeout"]
    assert max(t.calls[0].seconds for t in found if t.calls[0].outcome == "ok") > 0.6


def test_attempts_at_a_task_share_a_result_and_look_it_up_once() -> None:
    asked: list[str] = []

    @tool
    async def look(word: str) -> str:
        """Look a word up."""
        asked.append(word)
        said = f"{word} {len(asked)}"
        await asyncio.sleep(0)
        return said

    taskset = taskset_of(look, tasks=2, gold=looks_up(n=2))
    found = play(with_shared_results(taskset, ["look"]), 8)
    assert asked == ["cat", "cat"], "once for each task"
    for task in ("t0", "t1"):
        assert len({call.result.text for t in found for call in t.calls if t.task.id == task}) == 1
    assert {call.result.text for t in found for call in t.calls} == {"cat 1", "cat 2"}
    asked.clear()
    play(taskset, 8)
    assert len(asked) == 2 * 2 * 8


def test_a_failure_is_not_shared_and_neither_is_a_call_that_was_cut() -> None:
    calls = 0

    @tool
    async def look(word: str) -> str:
        """Look a word up."""
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ToolError("not now")
        if calls == 2:
            await asyncio.Event().wait()
        return word

    taskset = with_shared_results(taskset_of(look), ["look"])
    outcomes = [play(taskset, 1, call_timeout_s=0.3)[0].calls[0].outcome for _ in range(4)]
    assert outcomes == ["tool_error", "timeout", "ok", "ok"]
    assert calls == 3


def test_rewards_still_see_the_world_itself() -> None:
    class World(ToolEnv):  # pyright: ignore[reportGeneralTypeIssues]
        board = "x"

    @tool
    async def look(word: str) -> str:
        """Look a word up."""
        return word

    async def board(env: Any, trajectory: Trajectory) -> float:
        return float(env.board == "x")

    taskset = replace(
        taskset_of(look),
        env=lambda task: World(task=task, tools=(look,)),
        rubric=Rubric(rewards={"board": (board, 1.0)}),
    )
    found = play(with_slots(with_shared_results(taskset, ["look"]), {"look": 1}), 2)
    assert [t.reward for t in found] == [1.0, 1.0]


def test_a_step_of_grpo_shares_within_the_step_alone(tmp_path: Path) -> None:
    asked: list[str] = []

    @tool
    async def look(word: str) -> str:
        """Look a word up."""
        asked.append(word)
        return word

    taskset = taskset_of(look)
    step = StepRollouts(
        taskset,
        ScriptedSampler(),
        params=SamplingParams(),
        limits=Limits(),
        log=tmp_path / "log.jsonl",
        seed=0,
        concurrency=8,
        share_results=("look",),
    )
    for number in range(2):
        step.run(number, [Planned(task=taskset.tasks[0], sample=k) for k in range(4)])
    step.close()
    assert len(asked) == 2
    assert len(list(read_log(tmp_path / "log.jsonl"))) == 8


def test_names_of_no_tool_are_refused() -> None:
    @tool
    def look(word: str) -> str:
        """Look a word up."""
        return word

    with pytest.raises(ConfigError) as caught:
        check_tools(taskset_of(look), "grpo.share_results", ["lok"])
    assert "grpo.share_results names 'lok', and shared has no such tool" in str(caught.value)
    assert "look" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match=r"tool_concurrency\.look is 0; it must be at least 1"):
        with_slots(taskset_of(look), {"look": 0})
