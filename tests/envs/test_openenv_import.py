"""An OpenEnv server as a taskset. Played against a real one where `pip install openenv` is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from agent.cli import run
from agent.sampler import ScriptedSampler
from envs import assistant
from envs.find import find_taskset
from envs.log import read_log
from evals import evaluate
from evals.__main__ import cli
from tools import ConfigError, ToolCall

needs_openenv = pytest.mark.skipif(importlib.util.find_spec("openenv") is None, reason="openenv is not installed")

SERVER = '''
import socket
import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

class Guess(Action):
    """Guess a number from 0 to 9."""
    number: int

class Seen(Observation):
    hint: str = ""

class Game(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **_):
        self.hidden, self.asked = (seed or 0) % 10, 0
        return Seen(hint="guess")

    def step(self, action, **_):
        self.asked += 1
        right = action.number == self.hidden
        hint = "right" if right else "higher" if action.number < self.hidden else "lower"
        return Seen(hint=hint, done=right, reward=1.0 if right else -0.25)

    @property
    def state(self):
        return State(step_count=self.asked)

app = create_fastapi_app(Game, Guess, Seen, max_concurrent_envs=8)
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
'''


@pytest.fixture
def url(tmp_path: Path) -> Generator[str]:
    (tmp_path / "server.py").write_text(SERVER)
    with subprocess.Popen([sys.executable, tmp_path / "server.py"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def guess(call_id: str, number: object) -> ToolCall:
    return ToolCall(id=call_id, name="act", raw="", arguments={"number": number})


@needs_openenv
def test_episodes_are_reset_by_seed_and_end_when_the_server_says_so(url: str, tmp_path: Path) -> None:
    taskset = find_taskset(f"openenv:{url}", {"n": "3", "seed": "4", "instructions": "Find the number."})
    script = [assistant("", tool_calls=[guess(f"c{number}", number)]) for number in (9, 4, 5, 6)]
    result = evaluate(taskset, ScriptedSampler(script), out=tmp_path, progress=False)
    assert (result.errors, result.metric) == (0, "return"), result.first_error
    played = sorted(read_log(tmp_path / "samples.jsonl"), key=lambda trajectory: trajectory.task.id)
    assert [trajectory.task.id for trajectory in played] == ["seed-4", "seed-5", "seed-6"]
    assert [trajectory.scores["return"] for trajectory in played] == [0.75, 0.5, 0.25]
    first = played[0]
    assert [m.role for m in first.messages] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert '"hint": "guess"' in first.messages[1].text and '"hint": "lower"' in first.calls[0].result.text
    assert (first.tools[0].name, list(first.tools[0].parameters["properties"])) == ("act", ["number"])


@needs_openenv
def test_an_action_that_the_server_refuses_is_the_models_to_mend(url: str, tmp_path: Path) -> None:
    taskset = find_taskset(f"openenv:{url}", {"n": 1})
    script = [assistant("", tool_calls=[guess("a", "many")]), assistant("", tool_calls=[guess("b", 0)])]
    result = evaluate(taskset, ScriptedSampler(script), out=tmp_path, progress=False)
    (played,) = read_log(tmp_path / "samples.jsonl")
    assert result.errors == 0 and played.scores["return"] == 1.0
    assert played.calls[0].outcome in ("malformed", "tool_error") and played.calls[1].outcome == "ok"


def test_an_address_where_nobody_answers_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"no OpenEnv server answers at http://127\.0\.0\.1:9"):
        find_taskset("openenv:http://127.0.0.1:9")
    assert run(cli, ["run", "openenv:somewhere", "-m", "gold"]) == 1
    assert capsys.readouterr().err == "error: openenv:somewhere is no address\nhint: openenv:http://127.0.0.1:8000\n"
