"""A server in trouble: what passes is tried again, what does not is said, and no sample is lost or counted twice."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from answering import AnsweringServer, told
from chat_server import Say
from small_disk import run_on_small_disk

from agent.chat import ChatSampler
from agent.sampler import SamplingParams
from envs import Env, Rubric, Task, Taskset, ToolEnv, Trajectory, user
from envs.log import read_log
from evals import EvalResult, evaluate
from evals.adaptive import Gate, InfrastructureError, PatientSampler
from tools import ConfigError

ROOT = Path(__file__).parents[2]


async def zero(env: Env, trajectory: Trajectory) -> float:
    return float(trajectory.answer == "Answer: 0")


def questions(n: int = 24) -> Taskset:
    tasks = [Task(id=f"q{i}", prompt=(user(f"question {i}"),), answer="0") for i in range(n)]
    return Taskset(
        name="questions",
        tasks=tasks,
        env=lambda task: ToolEnv(task=task),
        rubric=Rubric(rewards={"zero": (zero, 1.0)}),
    )


def sampler_of(server: AnsweringServer, retries: int = 8, timeout_s: float = 300.0) -> PatientSampler:
    chat = ChatSampler("tiny", base_url=server.url, timeout_s=timeout_s)
    return PatientSampler(chat, 8, retries=retries, wait_s=0.01)


def play(server: AnsweringServer, out: Path, **options: Any) -> EvalResult:
    sampler = sampler_of(server, **{key: options.pop(key) for key in ("retries", "timeout_s") if key in options})
    settings: dict[str, Any] = {"repeats": 2, "concurrency": 8, "progress": False, "report_episodes": 0, **options}
    return evaluate(questions(), sampler, out=out, params=SamplingParams(temperature=1.0), **settings)


def said(folder: Path) -> dict[tuple[str, int], tuple[str, int | None]]:
    """Answer and seed of every logged episode; each must be there once."""
    logged = [((t.task.id, t.sample), (t.answer, t.seed)) for t in read_log(folder / "samples.jsonl")]
    assert len(dict(logged)) == len(logged)
    return dict(logged)


def numbers(result: EvalResult) -> EvalResult:
    return replace(result, seconds=0.0, mean_seconds=0.0, retries=0, out=Path())


def storm(number: int) -> Say | None:
    """Two of three requests are refused at first."""
    if number < 60 and number % 3:
        return Say(status=429, error={"message": "slow down"}, headers={"retry-after": "0"})
    return Say(status=503, error={"message": "overloaded"}) if number % 17 == 0 and number else None


def nonsense(number: int) -> Say | None:
    empty = ['{"choices": null}', '{"choices": []}', '{"choices": {"a": 1}}', "[]", ""]
    bodies = ["<html>gateway</html>", '{"choices": [{"message"', *empty]
    return Say(body=bodies[number % len(bodies)]) if number % 4 == 3 else None


@pytest.mark.parametrize("fault", [storm, nonsense], ids=["a storm of 429 and 503", "garbage in place of JSON"])
def test_a_server_in_trouble_changes_no_result(tmp_path: Path, fault: Callable[[int], Say | None]) -> None:
    with AnsweringServer() as well, AnsweringServer(fault) as ill:
        calm, stormy = play(well, tmp_path / "calm"), play(ill, tmp_path / "stormy")
    assert (stormy.errors, stormy.samples) == (0, 48)
    assert stormy.retries > 0 and calm.retries == 0
    assert numbers(stormy) == numbers(calm)
    assert said(tmp_path / "stormy") == said(tmp_path / "calm")
    question = told("question 3", json.loads(json.dumps(well.requests[0].get("seed"))))
    assert question.startswith("Answer: ")


def test_a_reply_that_never_comes_is_asked_for_again(tmp_path: Path) -> None:
    with AnsweringServer(lambda number: Say(wait_s=3600.0) if number == 5 else None) as server:
        result = play(server, tmp_path, timeout_s=5.0)
    assert (result.errors, result.samples) == (0, 48) and result.retries >= 1
    assert len(said(tmp_path)) == 48


def test_what_fails_to_the_last_try_is_an_error_of_that_sample_and_is_played_again(tmp_path: Path) -> None:
    down = True
    with AnsweringServer(lambda number: Say(status=500, error={"message": "boom"}) if down else None) as server:
        broken = play(server, tmp_path, retries=1)
        assert (broken.errors, broken.scored) == (48, 0) and "boom" in (broken.first_error or "")
        down = False
        mended = play(server, tmp_path)
    assert (mended.errors, mended.scored) == (0, 48)


def test_a_server_that_goes_away_ends_the_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    server = AnsweringServer()
    port = int(server.url.split(":")[2].split("/")[0])
    seen = threading.Event()

    def watch(number: int) -> Say | None:
        if number >= 10:
            seen.set()
            return Say(wait_s=3600.0)
        return None

    server.fault = watch
    with server:
        failed: list[BaseException] = []

        def run() -> None:
            try:
                play(server, tmp_path, retries=2)
            except BaseException as error:
                failed.append(error)

        playing = threading.Thread(target=run)
        playing.start()
        assert seen.wait(300)
    playing.join(300)
    assert not playing.is_alive()
    (error,) = failed
    assert isinstance(error, InfrastructureError) and "though it did before" in str(error)
    assert json.loads((tmp_path / "results.json").read_text())["scored"] == 10
    with AnsweringServer(port=port) as back:
        result = play(back, tmp_path)
    assert (result.errors, result.scored) == (0, 48)


def test_a_server_that_a_run_knows_may_begin_with_nonsense_and_is_missed_at_once(tmp_path: Path) -> None:
    with AnsweringServer() as server:
        play(server, tmp_path, n=4)
    with AnsweringServer(lambda number: Say(body="<html>warming up</html>") if number < 8 else None) as server:
        result = play(server, tmp_path, n=8)
    assert (result.errors, result.scored) == (0, 16)
    with pytest.raises(InfrastructureError, match="though it did before"):
        play(server, tmp_path)


def test_an_address_where_nobody_ever_answered_is_a_mistake_said_at_once(tmp_path: Path) -> None:
    server = AnsweringServer()
    server.__enter__()
    server.__exit__(None, None, None)
    with pytest.raises(ConfigError, match="no server answers") as caught:
        play(server, tmp_path)
    assert not isinstance(caught.value, InfrastructureError)


def test_the_gate_halves_once_for_a_burst_and_grows_by_one_a_round() -> None:
    now = 0.0
    gate = Gate(16, clock=lambda: now)
    for _ in range(5):
        gate.shrink(began=0.0)  # five requests of one burst
    assert gate.limit == 8
    now = 1.0
    gate.shrink(began=0.5)
    assert gate.limit == 4
    for _ in range(4):
        gate.grow()
    assert 4.9 < gate.limit <= 5
    for _ in range(1000):
        gate.grow()
    assert gate.limit == 16
    for began in range(2, 12):
        now = began + 0.5
        gate.shrink(began)
    assert gate.limit == 1


def test_the_gate_lets_no_more_through_than_its_limit_and_loses_nobody() -> None:
    gate, inside, most = Gate(3), 0, 0

    async def one(i: int) -> None:
        nonlocal inside, most
        async with gate.slot():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    async def all_of_them() -> None:
        tasks = [asyncio.create_task(one(i)) for i in range(50)]
        await asyncio.sleep(0)
        for task in tasks[10:20]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(all_of_them())
    assert most == 3 and gate.running == 0


# ---- the whole command, killed

SUMS = """
from envs import Rubric, Task, Taskset, ToolEnv, user

async def zero(env, trajectory):
    return float(trajectory.answer == "Answer: 0")

def questions(n: int = 60):
    tasks = [Task(id=f"q{i}", prompt=(user(f"question {i}"),), answer="0") for i in range(n)]
    return Taskset(name="questions", tasks=tasks, env=lambda task: ToolEnv(task=task),
                   rubric=Rubric(rewards={"zero": (zero, 1.0)}))
"""


def command(tmp_path: Path, url: str, out: Path) -> list[str]:
    (tmp_path / "sums.py").write_text(SUMS)
    argv = [sys.executable, "-m", "evals", "run", f"{tmp_path}/sums.py:questions", "-m", "openai:tiny"]
    return [*argv, "--base-url", url, "-k", "4", "-c", "4", "--temperature", "1", "--out", str(out), "-q"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_twenty_times_every_sample_is_there_once_and_the_result_is_that_of_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    chance, out = random.Random(7), tmp_path / "killed"
    slow = [0.02]
    with AnsweringServer(lambda number: Say(status=429) if number % 50 == 49 else None) as server:
        answer = server.fault
        server.fault = lambda number: (time.sleep(slow[0]), answer(number))[1]
        for _ in range(20):
            process = subprocess.Popen(
                command(tmp_path, server.url, out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            before = server.asked
            while server.asked < before + chance.randint(1, 12) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.random() * 0.05)
            process.kill()
            process.wait()
            if process.returncode == 0:
                break
        slow[0] = 0.0
        ended = subprocess.run(command(tmp_path, server.url, out), cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        whole = subprocess.run(command(tmp_path, server.url, tmp_path / "w"), cwd=ROOT, capture_output=True, text=True)
        assert whole.returncode == 0, whole.stderr
    assert said(out) == said(tmp_path / "w") and len(said(out)) == 240
    results = [json.loads((folder / "results.json").read_text()) for folder in (out, tmp_path / "w")]
    timeless = [{k: v for k, v in r.items() if "seconds" not in k and k != "retries"} for r in results]
    assert timeless[0] == timeless[1]


def test_a_full_disk_ends_the_run_with_2_and_room_lets_it_go_on(tmp_path: Path) -> None:
    out = tmp_path / "full"

    with AnsweringServer() as server:
        full = run_on_small_disk(command(tmp_path, server.url, out), 30_000, ROOT)
        assert full.returncode == 2, full.stderr
        assert "cannot be written: File too large" in full.stderr and "Traceback" not in full.stderr
        kept = (out / "samples.jsonl").read_bytes()
        assert not list(out.glob("*.part"))
        assert 0 < len(kept) <= 30_000 and kept.endswith(b"\n")
        again = subprocess.run(command(tmp_path, server.url, out), cwd=ROOT, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
    assert len(said(out)) == 240 and (out / "samples.jsonl").read_bytes().startswith(kept)
