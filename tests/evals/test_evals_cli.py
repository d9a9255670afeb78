"""`evals` as a person types it: exit codes, one sentence for a mistake, resume after a kill."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.cli import run
from envs.log import read_log
from evals.__main__ import cli

ROOT = Path(__file__).parents[2]

TASKS = '''
import asyncio, os
from pathlib import Path
from envs import Env, Reply, Rubric, Task, Taskset, ToolEnv, assistant, user
from tools import tool
from tools.tool import ToolCall

HERE = Path(__file__).parent

class Slow(Env):
    """A world that takes its time and fails while the file `broken` names the task."""

    def __init__(self, task, seconds):
        self.task, self.seconds = task, seconds

    async def step(self, action, ctx):
        await asyncio.sleep(self.seconds)
        if (HERE / "broken").exists() and self.task.id in (HERE / "broken").read_text().split():
            raise OSError("disk on fire")
        return Reply(done=True)

async def correct(env, trajectory):
    return float(trajectory.answer == env.task.answer)

async def lucky(env, trajectory):
    return trajectory.seed % 1000 / 1000

def slow(n: int = 40, seconds: float = 0.02):
    tasks = [Task(id=f"q{i}", prompt=(user(f"q{i}"),), answer=str(i), gold=(assistant(str(i if i % 4 else -1)),))
             for i in range(n)]
    return Taskset(name="slow", tasks=tasks, env=lambda task: Slow(task, seconds),
                   rubric=Rubric(rewards={"correct": (correct, 1.0), "lucky": (lucky, 0.0)}))

def not_a_number():
    async def odd(env, trajectory):
        return float("nan") if env.task.id == "q3" else 1.0
    from dataclasses import replace
    return replace(slow(6), rubric=Rubric(rewards={"odd": (odd, 1.0)}))

def with_tool():
    @tool
    def shout(text: str) -> str:
        "Say it loud."
        return text.upper()

    async def heard(env, trajectory):
        return float(any(call.outcome == "ok" and call.result.text == "HI" for call in trajectory.calls))

    call = ToolCall(id="c", name="shout", raw='shout("hi")', arguments={"text": "hi"})
    gold = (assistant(tool_calls=(call,)), assistant("HI"))
    tasks = [Task(id=f"t{i}", prompt=(user("say hi"),), answer="HI", gold=gold) for i in range(3)]
    return Taskset(name="with_tool", tasks=tasks, env=lambda task: ToolEnv(task=task, tools=(shout,)),
                   rubric=Rubric(rewards={"heard": (heard, 1.0)}))

def scores_everything():
    async def generous(env, trajectory):
        return 1.0
    from dataclasses import replace
    return replace(with_tool(), rubric=Rubric(rewards={"generous": (generous, 1.0)}))
'''


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    (tmp_path / "tasks.py").write_text(TASKS)
    return str(tmp_path / "tasks.py")


def evals(*argv: object) -> int:
    return run(cli, [str(argument) for argument in argv])


def numbers(folder: Path) -> dict[str, object]:
    """The results but for wall time."""
    results = json.loads((folder / "results.json").read_text())
    return {key: value for key, value in results.items() if "seconds" not in key}


def command(tasks: str, out: Path) -> list[str]:
    arguments = ["run", f"{tasks}:slow", "--model", "gold", "--repeats", "2", "-c", "4", "--out", str(out), "--quiet"]
    return [sys.executable, "-m", "evals", *arguments]


def wait_for_lines(log: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)


def test_killed_again_and_again_a_run_loses_and_repeats_nothing(tasks: str, tmp_path: Path) -> None:
    out, chance = tmp_path / "killed", random.Random(0)
    for lines in (3, 20, 45):
        process = subprocess.Popen(command(tasks, out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_lines(out / "samples.jsonl", lines, process)
        time.sleep(chance.random() * 0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    logged = (out / "samples.jsonl").read_bytes()
    assert logged.count(b"\n") >= 45
    with (out / "samples.jsonl").open("ab") as log:  # what a kill within a write leaves
        log.write(b'{"schema_version": 1, "task": {"id": "q')
    assert subprocess.run(command(tasks, out), cwd=ROOT, capture_output=True, timeout=120).returncode == 0
    assert (out / "samples.jsonl").read_bytes().startswith(logged)
    assert evals("run", f"{tasks}:slow", "--model", "gold", "--repeats", 2, "--out", tmp_path / "whole", "-q") == 0
    keys = [(t.task.id, t.sample) for t in read_log(out / "samples.jsonl")]
    assert sorted(keys) == sorted((f"q{i}", k) for i in range(40) for k in range(2))
    assert numbers(out) == numbers(tmp_path / "whole")
    seeds = [{(t.task.id, t.sample): t.seed for t in read_log(f / "samples.jsonl")} for f in (out, tmp_path / "whole")]
    assert seeds[0] == seeds[1]


def test_ctrl_c_keeps_what_is_done_and_exits_130(tasks: str, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    slowly = [*command(tasks, out), "-a", "seconds=0.5"]
    process = subprocess.Popen(slowly, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for_lines(out / "samples.jsonl", 5, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and b"Traceback" not in said
    results = json.loads((out / "results.json").read_text())
    assert results["complete"] is False and 5 <= results["samples"] < 80
    assert results["samples"] == len(list(read_log(out / "samples.jsonl")))
    assert "Unfinished" in (out / "summary.md").read_text()


def test_two_runs_cannot_share_a_folder_at_once(tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shared"
    slowly = [*command(tasks, out), "-a", "seconds=1"]
    process = subprocess.Popen(slowly, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_lines(out / "samples.jsonl", 1, process)
        assert evals("run", f"{tasks}:slow", "--model", "gold", "--out", out) == 1
        assert "is in use by another run" in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()


def test_a_reward_that_is_nan_is_one_sentence_and_exit_code_1(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evals("run", f"{tasks}:not_a_number", "--model", "gold", "--out", tmp_path / "nan", "-c", 1, "-q") == 1
    said = capsys.readouterr()
    assert said.err == "error: reward odd returned nan on task q3; it must be a finite number\n"
    assert said.out == ""
    assert [t.task.id for t in read_log(tmp_path / "nan" / "samples.jsonl")] == ["q0", "q1", "q2", "q3"]


def test_errors_exit_2_and_the_next_run_mends_them(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").write_text(" ".join(f"q{i}" for i in range(1, 9)))
    arguments = (
        "run",
        f"{tasks}:slow",
        "--model",
        "gold",
        "-a",
        "n=16",
        "-a",
        "seconds=0",
        "--out",
        tmp_path / "e",
        "-q",
    )
    assert evals(*arguments) == 2
    said = capsys.readouterr()
    assert "8 of 16 samples ended in an error; the first: OSError: disk on fire" in said.err
    assert re.search(r"correct\s+│\s+75\.0%", said.out) and re.search(r"correct, errors = 0\s+│\s+37\.5%", said.out)
    assert evals(*arguments, "--fail-on-error", 0.5) == 0
    (tmp_path / "broken").unlink()
    assert evals(*arguments) == 0
    assert json.loads((tmp_path / "e" / "results.json").read_text())["errors"] == 0


def test_a_gate_that_is_not_met_exits_4(tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("run", f"{tasks}:slow", "--model", "gold", "-a", "seconds=0", "-n", 8, "--out", tmp_path / "g", "-q")
    assert evals(*arguments, "--fail-under", 0.75) == 0
    assert evals(*arguments, "--fail-under", 0.76) == 4
    assert "the score 0.7500 is below --fail-under 0.76" in capsys.readouterr().err


def test_tools_none_hides_the_tools_and_has_its_own_folder(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[str, dict[str, object]] = {}
    for options in ((), ("--tools", "none")):
        assert evals("run", f"{tasks}:with_tool", "--model", "gold", "--json", "-q", *options) == 0
        found["".join(options)] = json.loads(capsys.readouterr().out)
    assert (found[""]["accuracy"], found["--toolsnone"]["accuracy"]) == (1.0, 0.0)
    assert (found[""]["tool_error_rate"], found["--toolsnone"]["tool_error_rate"]) == (0.0, 1.0)
    assert sorted(p.name for p in Path("runs/evals").iterdir()) == [
        "tasks-with_tool-gold",
        "tasks-with_tool-gold-no-tools",
    ]
    other = ("--tools", "none", "--out", "runs/evals/tasks-with_tool-gold")
    assert evals("run", f"{tasks}:with_tool", "--model", "gold", *other) == 1
    assert "another tools.shout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "arithmetc", "--model", "gold"), "there is no taskset 'arithmetc'\nhint: did you mean arithmetic"),
        (("run", "arithmetic", "--model", "no/such/folder"), "there is no model folder no/such/folder"),
        (("run", "arithmetic", "--model", "gold", "-a", "dificulty=2"), "has no argument 'dificulty'"),
        (("run", "arithmetic", "--model", "gold", "-a", "oops"), "taskset argument 'oops' is not key=value"),
        (("run", "arithmetic", "--model", "gold", "--max-tokens", "0"), "max_tokens is 0"),
        (("run", "arithmetic"), "Missing option '--model'"),
        (("run", "arithmetic", "--model", "gold", "--tools", "some"), "'some' is not 'none'"),
        (("run", ",", "--model", "gold"), "no taskset is named"),
        (("run", "arithmetic", "--model", "gold", "--ids", "zzz"), "(1000 in all)"),
        (("run", "arithmetic", "--model", "gold", "--fail-on-error", "few"), "--fail-on-error is 'few'"),
        (("run", "arithmetic", "--model", "gold", "--fail-under", "nan"), "--fail-under is no number"),
        (("run", "arithmetic", "--model", "gold", "--tools", "none", "--ablate", "tools"), "nothing to compare"),
        (("run", "arithmetic", "--model", "gold", "--max-retries", "-1"), "--max-retries is -1; it must be 0 or more"),
        (("run", "arithmetic", "--model", "gold", "--cost-limit", "0"), "--cost-limit is 0; it must be above 0"),
        (("run", "arithmetic", "--model", "gold", "--time-limit", "0"), "--time-limit is 0; it must be above 0"),
        (("run", "arithmetic", "--model", "gold", "--token-budget", "0"), "--token-budget is 0; it must be above 0"),
        (("run", "arithmetic", "--model", "gold", "--judge-price", "1,1"), "--judge-price needs --judge"),
        (("run", "arithmetic", "--model", "gold", "--judge-mode", "llm"), "--judge-mode llm needs --judge"),
        (("score", "nowhere", "--judge-url", "http://127.0.0.1:1/v1"), "--judge-url needs --judge"),
        (("show", "nowhere"), "nowhere holds no evaluation"),
        (("compare", "nowhere", "nowhere"), "nowhere holds no evaluation"),
        (("view", "nowhere"), "nowhere holds no evaluation"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(
    arguments: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evals(*arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and said in err and "Traceback" not in err
    assert len(err) < 1000 and not list(tmp_path.iterdir())


def test_a_run_can_be_listed_and_read(tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r"
    evals("run", f"{tasks}:with_tool", "--model", "gold", "--out", out, "--repeats", 2, "-q")
    capsys.readouterr()
    assert evals("show", out) == 0
    assert "t0#1" in capsys.readouterr().out
    assert evals("show", out, "t1#1") == 0
    shown = capsys.readouterr().out
    for text in ("say hi", "call shout", "text: hi", "HI", "ok in", "heard 1", "stop: done"):
        assert text in shown
    assert evals("show", out, "t9") == 1
    assert "has no episode 't9'" in capsys.readouterr().err


def test_an_episode_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tasks.py").write_text(
        TASKS
        + """
def hostile():
    from dataclasses import replace
    said, gold = user("[bold]\\x1b[2Jx\\x9b31m"), assistant("\\x1b]0;owned\\x07 [/nope]")
    task = Task(id="h", prompt=(said,), answer="a", gold=(gold,))
    return replace(slow(1), tasks=[task])
"""
    )
    out = tmp_path / "h"
    assert evals("run", f"{tmp_path}/tasks.py:hostile", "--model", "gold", "--out", out, "-q") == 0
    assert evals("show", out) == 0 and evals("show", out, "h") == 0
    shown = capsys.readouterr().out
    assert not set(shown) & {"\x1b", "\x9b", "\x07"}
    assert "[bold]\\x1b[2Jx\\x9b31m" in shown and "[/nope]" in shown


def test_compare_counts_wins_and_losses(tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tasks.py").write_text(
        TASKS
        + """
def better():
    from dataclasses import replace
    tasks = [replace(t, gold=(assistant(t.answer if int(t.answer) != 1 else "no"),)) for t in slow(12, 0).tasks]
    return replace(slow(12, 0), tasks=tasks)
"""
    )
    for name, function, extra in (("a", "slow", ("-a", "n=10", "-a", "seconds=0")), ("b", "better", ())):
        evals("run", f"{tmp_path}/tasks.py:{function}", "--model", "gold", "--out", tmp_path / name, "-q", *extra)
    capsys.readouterr()
    assert evals("compare", tmp_path / "a", tmp_path / "b", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    # A is wrong on 0, 4, 8; B on 1: of 10 shared, B wins 3, A wins 1; exact p = 2 (1 + 4) / 16
    assert (found["n"], found["b_wins"], found["a_wins"], found["ties"]) == (10, ["q0", "q4", "q8"], ["q1"], 6)
    assert found["p_value"] == 0.625 and found["difference"] == pytest.approx(0.2)
    assert found["only_b"] == ["q10", "q11"]
    assert evals("compare", tmp_path / "a", tmp_path / "b") == 0
    assert "3 / 6 / 1 of 10" in capsys.readouterr().out


def test_check_passes_a_sound_taskset_and_names_the_fault_of_others(
    tasks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evals("check", "toy_arithmetic", "-a", "tools=false", "-n", 20) == 0
    assert "all right" in capsys.readouterr().out
    assert evals("check", f"{tasks}:slow", "-a", "seconds=0", "-n", 4) == 1
    assert capsys.readouterr().err == "error: task q0: the gold scores correct 0, not 1: '-1', target '0'\n"
    assert evals("check", f"{tasks}:scores_everything") == 1
    said = capsys.readouterr().err
    assert "the empty answer scores generous 1, not 0" in said and "the wrong answer scores generous 1" in said


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(tasks: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "evals", "run", f"{tasks}:slow", "--model", "gold", "-n", "8", "--out"]
    piped = subprocess.run([*arguments, str(tmp_path / "p")], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert piped.stderr == "slow: 8/8 correct 0.75, 0 s left\n"
    main, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*arguments, str(tmp_path / "t")], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=other, env=environment
    )
    os.close(other)
    drawn = b""
    try:
        while part := os.read(main, 4096):
            drawn += part
    except OSError:  # Linux: the other end closed
        pass
    finally:
        os.close(main)
    assert process.wait(timeout=120) == 0
    assert b"8/8" in drawn and b"\x1b[" in drawn


def test_list_needs_no_torch_and_names_what_it_knows() -> None:
    code = (
        "import sys; from evals.__main__ import main; code = main(); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    found = subprocess.run([sys.executable, "-c", code, "list"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert "arithmetic " in found.stdout


def test_a_taskset_that_trains_by_default_is_measured_on_its_test_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "split"
    assert evals("run", "toy_arithmetic", "--model", "gold", "-a", "tools=false", "-n", 3, "--out", out, "-q") == 0
    assert all("toy-test" in t.task.id for t in read_log(out / "samples.jsonl"))
    assert (
        evals("run", "toy_arithmetic", "--model", "gold", "-a", "tools=false", "-a", "split=train", "--out", out) == 1
    )
    assert "taskset_args.split" in capsys.readouterr().err


def test_a_real_model_is_measured_and_its_tokens_are_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    out = tmp_path / "tiny"
    model = ("--model", "tiny", "--max-tokens", 8, "--threads", 1)
    assert evals("run", "toy_arithmetic", *model, "-n", 2, "--out", out, "-q", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["samples"], result["errors"]) == (2, 0) and 1 <= result["mean_tokens"] <= 8
    page = (out / "report.html").read_text()
    data = json.loads(page.partition('type="application/json">')[2].partition("</script>")[0])
    (sequence,) = data["episodes"][0]["sequences"]
    assert "=?<|im_end|>" in "".join(sequence["texts"])
    assert sum(count for count, _, mask in sequence["runs"] if mask) == data["episodes"][0]["tokens"]
    assert evals("view", out, "--bundle", tmp_path / "page.html") == 0
    assert 'type="application/json"' in (tmp_path / "page.html").read_text()
