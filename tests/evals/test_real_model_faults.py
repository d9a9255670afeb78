"""A real model behind a server in trouble and a run that is killed again and again end as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_disk import run_on_small_disk

from envs.log import read_log

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "servers" / "model_server.py"
SAMPLES = 160

TASKS = """
from envs import Rubric, Task, Taskset, ToolEnv, user

async def even(env, trajectory):
    return float(len(trajectory.answer) % 2 == 0)

def sums(n: int = 40):
    tasks = [Task(id=f"q{i}", prompt=(user(f"{i}+{i * 7}="),), answer=8 * i) for i in range(n)]
    rubric = Rubric(rewards={"even": (even, 1.0)})
    return Taskset(name="sums", tasks=tasks, env=lambda task: ToolEnv(task=task), rubric=rubric)
"""


class Serving:
    """The server's process; it can be killed, and started again under the same address."""

    def __init__(self, *options: str) -> None:
        self.options = options
        self.port = "0"
        self.url = ""
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(SERVER), "tiny", "--port", self.port, *self.options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:")
        self.port = self.url.split(":")[2].split("/")[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def serving(*options: str) -> Generator[Serving]:
    server = Serving(*options)
    try:
        yield server
    finally:
        server.kill()


def command(tasks: Path, url: str, out: Path) -> list[str]:
    argv = [sys.executable, "-m", "evals", "run", f"{tasks}:sums", "-m", "openai:local", "--base-url", url]
    sampling = ["-k", "4", "-c", "6", "--temperature", "1", "--max-tokens", "12", "--request-timeout", "15"]
    return [*argv, *sampling, "--out", str(out), "-q"]


def logged(out: Path) -> int:
    """Whole lines of the log."""
    return (out / "samples.jsonl").read_bytes().count(b"\n") if (out / "samples.jsonl").exists() else 0


def said(out: Path) -> dict[tuple[str, int], tuple[str, int | None, int]]:
    """Answer, seed and tokens of every scored episode; each must be there once."""
    scored = [t for t in read_log(out / "samples.jsonl") if t.reward is not None]
    found = {(t.task.id, t.sample): (t.answer, t.seed, t.sampled_tokens) for t in scored}
    assert len(found) == len(scored)
    return found


def numbers(out: Path) -> dict[str, Any]:
    """The results, but for what time and trouble are in them."""
    results = json.loads((out / "results.json").read_text())
    return {key: value for key, value in results.items() if "seconds" not in key and key != "retries"}


def whole_run(tasks: Path, server: Serving, out: Path) -> None:
    ended = subprocess.run(command(tasks, server.url, out), cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def disturbed(tasks: Path, server: Serving, out: Path, chance: random.Random) -> dict[str, int]:
    """Kill the run twenty times, the server under it three times, and let the disk fill once."""
    seen = {"killed": 0, "servers": 0, "full": 0}
    while seen["killed"] < 20:
        before = logged(out)
        if seen["killed"] == 10 and not seen["full"]:
            most = (out / "samples.jsonl").stat().st_size + 2000
            full = run_on_small_disk(command(tasks, server.url, out), most, ROOT)
            assert full.returncode == 2 and "cannot be written: File too large" in full.stderr, full.stderr
            seen["full"] = 1
            continue
        run = subprocess.Popen(command(tasks, server.url, out), cwd=ROOT, stderr=subprocess.PIPE, text=True, stdout=-3)
        wanted = before + chance.randint(0, 8)
        while logged(out) < wanted and run.poll() is None:
            time.sleep(0.01)
        restarts = seen["killed"] in (4, 9, 14)
        if restarts:
            server.kill()
            time.sleep(chance.random())
            server.start()
            seen["servers"] += 1
        time.sleep(chance.random() * 0.3)
        run.kill()
        _, errors = run.communicate()
        gone = restarts and "though it did before" in errors  # it had not been answered yet
        assert run.returncode in (-signal.SIGKILL, 0) or (run.returncode == 2 and gone), errors
        assert run.returncode != 0 or logged(out) >= SAMPLES, "a run that ended by itself had nothing left to do"
        seen["killed"] += 1
    return seen


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_that_everything_happens_to_ends_as_if_nothing_had(tmp_path: Path) -> None:
    tasks, wild, calm = tmp_path / "sums.py", tmp_path / "wild", tmp_path / "calm"
    tasks.write_text(TASKS)
    with serving("--faults") as server:
        assert disturbed(tasks, server, wild, random.Random(11)) == {"killed": 20, "servers": 3, "full": 1}
        whole_run(tasks, server, wild)
    with serving() as server:
        whole_run(tasks, server, calm)
    assert len(said(calm)) == SAMPLES and said(wild) == said(calm)
    assert numbers(wild) == numbers(calm) and 0 < numbers(calm)["accuracy"] < 1
