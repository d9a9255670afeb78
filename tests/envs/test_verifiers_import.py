"""Environments of verifiers as tasksets: their loop, tools and rubric see what they would see without us.

Run where `pip install 'verifiers<0.2'` is; elsewhere only what is said without it is tested.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.cli import run
from agent.sampler import ScriptedSampler
from envs import assistant
from envs.find import find_taskset
from envs.log import read_log
from evals import evaluate
from evals.__main__ import cli
from tools import ConfigError, ToolCall

needs_verifiers = pytest.mark.skipif(importlib.util.find_spec("verifiers") is None, reason="verifiers is not installed")

WORLDS = '''
import verifiers as vf
from datasets import Dataset

def rows(n):
    return Dataset.from_list([{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(n)])

async def right(completion, answer):
    return float(completion[-1].content == answer)

async def length(completion):
    return float(len(completion))

def add(a: int, b: int) -> int:
    """Add two numbers."""
    if a < 0:
        raise ValueError("no negative numbers")
    return a + b

class Game(vf.MultiTurnEnv):
    """Higher or lower, three guesses."""

    async def env_response(self, messages, state, **kwargs):
        guess, answer = int(messages[-1].content), int(state["answer"])
        if guess == answer:
            state["final_env_response"] = [vf.UserMessage(content="Found.")]
            return state["final_env_response"]
        return [vf.UserMessage(content="higher" if guess < answer else "lower")]

def load_environment(kind="single", size=2):
    rubric = vf.Rubric(funcs=[right, length], weights=[1.0, 0.0])
    given = {"eval_dataset": rows(size), "rubric": rubric, "system_prompt": "Be brief."}
    if kind == "tools":
        return vf.ToolEnv(tools=[add], **given)
    if kind == "game":
        return Game(max_turns=3, **given)
    return vf.SingleTurnEnv(**given)
'''


@pytest.fixture
def worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an environment package that can be imported."""
    (tmp_path / "small_world.py").write_text(WORLDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("small_world", None)
    return "verifiers:small-world"


def play(name: str, out: Path, *script: Any, **arguments: Any) -> list[Any]:
    result = evaluate(find_taskset(name, arguments), ScriptedSampler(script), out=out, progress=False)
    assert result.errors == 0, result.first_error
    return sorted(read_log(out / "samples.jsonl"), key=lambda trajectory: trajectory.task.id)


@pytest.mark.skipif(importlib.util.find_spec("verifiers") is not None, reason="verifiers is installed")
def test_without_the_package_it_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="verifiers is not installed") as caught:
        find_taskset("verifiers:gsm8k")
    assert "pip install 'verifiers<0.2'" in (caught.value.hint or "")
    assert run(cli, ["run", "verifiers:gsm8k", "-m", "gold"]) == 1
    assert capsys.readouterr().err.startswith("error: verifiers is not installed\nhint: ")


@needs_verifiers
def test_one_answer_is_scored_by_their_rubric(worlds: str, tmp_path: Path) -> None:
    first, second = play(worlds, tmp_path / "out", assistant("1"), n="2")
    assert [message.role for message in first.messages] == ["system", "user", "assistant"]
    assert (first.scores["reward"], second.scores["reward"]) == (1.0, 0.0)
    assert first.scores["right"] == 1.0 and first.scores["length"] == 1.0 and first.task.answer == "1"


@needs_verifiers
def test_their_tools_run_and_every_call_is_recorded(worlds: str, tmp_path: Path) -> None:
    calls = [ToolCall(id=f"c{i}", name="add", raw="", arguments={"a": a, "b": 1}) for i, a in enumerate((-1, 0))]
    script = [*(assistant("I add.", tool_calls=[call]) for call in calls), assistant("1")]
    first, _ = play(worlds, tmp_path / "out", *script, kind="tools")
    assert [tool.name for tool in first.tools] == ["add"]
    assert [call.result.text for call in first.calls] == ["no negative numbers", "1"]
    assert [m.text for m in first.messages if m.role == "tool"] == ["no negative numbers", "1"]
    assert first.scores["reward"] == 1.0 and first.scores["add_calls"] == 2.0


@needs_verifiers
def test_a_game_of_several_turns_goes_as_theirs_does(worlds: str, tmp_path: Path) -> None:
    script = [assistant("0"), assistant("2"), assistant("1")]
    first, second = play(worlds, tmp_path / "out", *script, kind="game")
    assert [m.text for m in first.messages if m.role == "user"][1:] == ["higher", "lower", "Found."][:2]
    assert [m.text for m in second.messages if m.role == "user"][1:] == ["higher", "Found."]
    assert second.stop == "done" and len(second.steps) == 2


@needs_verifiers
def test_what_a_limit_cuts_off_is_scored_as_far_as_it_came(worlds: str, tmp_path: Path) -> None:
    from agent.rollout import Limits

    taskset = find_taskset(worlds, {"kind": "game", "n": 1})
    sampler = ScriptedSampler([assistant("0"), assistant("2"), assistant("1")])
    result = evaluate(taskset, sampler, out=tmp_path / "out", limits=Limits(max_turns=1), progress=False)
    assert (result.truncated, result.errors, result.scores["reward"]) == (1.0, 0, 0.0)


@needs_verifiers
def test_the_same_model_gets_the_same_rewards_from_their_own_evaluation(worlds: str, tmp_path: Path) -> None:
    import asyncio

    import verifiers
    from answering import AnsweringServer
    from verifiers.types import ClientConfig

    with AnsweringServer() as server:
        asked = ["run", f"{worlds}", "-m", "openai:tiny", "--base-url", server.url, "-a", "size=6", "-q", "--json"]
        assert run(cli, [*asked, "--out", str(tmp_path / "out")]) == 0
        world = verifiers.load_environment("small-world", size=6)
        client = ClientConfig(api_base_url=server.url, api_key_var="HOME")
        theirs = asyncio.run(world.evaluate(client=client, model="tiny", on_progress=lambda *_: None))
    ours = {t.task.id: t.scores["reward"] for t in read_log(tmp_path / "out" / "samples.jsonl")}
    assert len(ours) == len(theirs["outputs"]) == 6
    assert [message["role"] for message in server.requests[0]["messages"]] == ["system", "user"]
    prompts = [json.dumps([m["content"] for m in request["messages"]]) for request in server.requests]
    assert sorted(prompts[:6]) == sorted(prompts[6:]), "their model is asked what ours is asked"
