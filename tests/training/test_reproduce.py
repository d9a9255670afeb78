"""`training reproduce`: every seed is run once, whatever stops it, and the page says what the runs' files say."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent.cli import run as run_command
from envs.log import read_log
from tools.errors import ConfigError
from tools.lock import held
from training.__main__ import cli
from training.experiment import check_fits
from training.files import read_json, read_metrics, write_json
from training.find import find_experiment, known_experiments
from training.reproduce import recipe_of, reproduce

WORLD = '''
import asyncio
from pathlib import Path
from envs import Rubric, Task, Taskset, ToolEnv, assistant, user
from tools import ToolCall, tool

HOLD = Path(__file__).with_name("hold")


@tool
async def add(a: int, b: int) -> str:
    """Add two integers."""
    while a > 3 and HOLD.exists():
        await asyncio.sleep(0.02)
    return str(a + b)


def world(n: int = 16, broken: bool = False) -> Taskset:
    def gold(i):
        return assistant(tool_calls=(ToolCall(id="c", name="add", raw="", arguments={"a": i, "b": 1}),)), assistant("1")

    async def length(env, trajectory):
        if broken:
            raise KeyError("no such thing")
        return 1.0 if trajectory.calls else len(trajectory.answer) / 100

    async def chance(env, trajectory):
        return 0.25

    tasks = [Task(id=f"t{i}", prompt=(user(f"{i} + 1?"),), gold=gold(i)) for i in range(n)]
    rubric = Rubric(rewards={"length": (length, 1.0), "chance": (chance, 0.0)})
    return Taskset(name="world", tasks=tasks, env=lambda task: ToolEnv(task=task, tools=(add,)), rubric=rubric)
'''

RECIPE = '''
"""All kinds of stage on the tiny model."""
from pathlib import Path
from agent.rollout import Limits
from agent.sampler import SamplingParams
from training.experiment import Experiment, Row
from training.recipe import GRPO, SFT, Collect, Evaluate, Recipe

WORLD = f"{Path(__file__).with_name('world.py')}:world"
LIMITS = Limits(max_turns=2)


def measure(name: str, model: str, tools: bool = True) -> Evaluate:
    return Evaluate(name=name, model=model, n=5, tools=tools, params=SamplingParams(max_tokens=8), limits=LIMITS)


def untrained(seed: int = 0) -> Recipe:
    return Recipe(
        name="untrained", model="tiny", taskset=WORLD, seed=seed,
        stages=(Collect(n=8, limits=LIMITS, concurrency=2), measure("a", "base"), measure("b", "base", tools=False)),
    )


def light() -> Experiment:
    return Experiment(
        title="Nothing is trained", claim="Tools tell.", recipe=f"{__file__}:untrained", seeds=(0, 1),
        rows=(Row(label="with", stages=("a",)), Row(label="without", stages=("b",))),
        differences=(("with", "without"),),
    )


def arms(seed: int = 0, grpo_steps: int = 3) -> Recipe:
    trl = {"bf16": False}
    return Recipe(
        name="arms", model="tiny", taskset=WORLD, seed=seed,
        stages=(
            Collect(n=8, limits=LIMITS, concurrency=2),
            measure("eval-base", "base"),
            SFT(steps=2, batch_size=4, lr=1e-3, checkpoint_every=1, trl=trl),
            GRPO(start="sft", steps=grpo_steps, tasks_per_step=2, group_size=2, lr=1e-3, checkpoint_every=1,
                 params=SamplingParams(max_tokens=8), limits=LIMITS, trl=trl),
            measure("eval-sft", "sft"),
            measure("eval-grpo", "grpo"),
        ),
    )


def claim() -> Experiment:
    return Experiment(
        title="A small claim", claim="More is more.", recipe=f"{__file__}:arms", seeds=(0, 1), limits="Much.",
        rows=(
            Row(label="base", stages=("eval-base",)),
            Row(label="trained", stages=("eval-grpo",)),
            Row(label="on the way", stages=("eval-base", "eval-sft")),
        ),
        metrics=("chance%", "mean_tokens"),
        differences=(("trained", "base"), ("trained", "chance"), ("trained", "base", "mean_tokens")),
        curves={"grpo": ("reward", "no such metric"), "sft": ("loss",)},
    )
'''


@pytest.fixture(scope="module")
def claim(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("claim")
    (folder / "world.py").write_text(WORLD)
    (folder / "claim.py").write_text(RECIPE)
    return str(folder / "claim.py")


@pytest.fixture(scope="module")
def calm(claim: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both seeds, one after the other, that nothing disturbed."""
    out = tmp_path_factory.mktemp("calm")
    assert reproduce(claim, jobs=1, out=out) == out / "claim.md"
    return out


def cells(page: str) -> dict[str, list[str]]:
    """First cell -> the others, of every line of a table."""
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in reversed(lines)}  # of two tables the first counts


def test_the_page_says_what_the_report_of_each_seed_says(calm: Path) -> None:
    page, found = (calm / "claim.md").read_text(), read_json(calm / "claim.json")
    reports = [read_json(calm / f"seed-{seed}" / "report.json") for seed in (0, 1)]
    accuracy = {
        stage: [row["accuracy"] for report in reports for row in report["rows"] if row["stage"] == stage]
        for stage in ("base", "sft", "grpo")
    }
    shown = cells(page)
    both = [(one + other) / 2 for one, other in zip(accuracy["base"], accuracy["sft"], strict=True)]
    for label, values in {"base": accuracy["base"], "trained": accuracy["grpo"], "on the way": both}.items():
        row = next(row for row in found["rows"] if row["label"] == label)
        assert row["values"] == pytest.approx(values)
        assert shown[label][0] == f"{100 * sum(values) / 2:.1f}%"
        assert shown[label][2] == " ".join(f"{100 * value:.1f}" for value in values)
    tokens = [row["mean_tokens"] for report in reports for row in report["rows"] if row["stage"] == "grpo"]
    assert shown["trained"][3:] == ["25.0%", f"{sum(tokens) / 2:.3g}"]
    gaps = [a - b for a, b in zip(accuracy["grpo"], accuracy["base"], strict=True)]
    assert found["differences"][0]["values"] == pytest.approx(gaps)
    assert found["differences"][1]["values"] == pytest.approx([value - 0.25 for value in accuracy["grpo"]])
    tokens = {
        stage: [row["mean_tokens"] for r in reports for row in r["rows"] if row["stage"] == stage] for stage in accuracy
    }
    fewer = [a - b for a, b in zip(tokens["grpo"], tokens["base"], strict=True)]
    assert found["differences"][2]["values"] == pytest.approx(fewer)
    assert "trained - base | mean_tokens |" in page
    assert "$ training reproduce" in page and "**Claim.** More is more." in page and "Much." in page
    assert f"torch {reports[0]['versions']['torch']}" in page.replace("\n", " ")


def test_budgets_and_curves_are_those_of_the_metrics(calm: Path) -> None:
    page, found = (calm / "claim.md").read_text(), read_json(calm / "claim.json")
    sft, grpo = ([read_metrics(calm / f"seed-{seed}" / stage) for seed in (0, 1)] for stage in ("sft", "grpo"))
    budget = next(one for one in found["budgets"] if one["label"] == "trained")
    assert budget["stages"] == ["sft", "grpo"]
    assert (budget["sft_rows"], budget["episodes"]) == (8, 12)
    tokens = [one[-1]["num_tokens"] + other[-1]["num_tokens"] for one, other in zip(sft, grpo, strict=True)]
    assert budget["tokens"] == sum(tokens) / 2 > 0
    reward, nothing = found["curves"][0]["metrics"].values()
    assert found["curves"][0]["steps"] == ["1", "2", "3"]
    assert reward == pytest.approx([(grpo[0][at]["reward"] + grpo[1][at]["reward"]) / 2 for at in range(3)])
    assert nothing == [None] * 3 and cells(page)["no such metric"] == ["-"] * 3
    lengths = [len(episode.tokens) for episode in _rows_of_gold(calm / "seed-0")]
    assert sft[0][-1]["num_tokens"] == sum(lengths)


def _rows_of_gold(run: Path) -> list[Any]:
    """The eight rows that two steps of four see: each gold episode once."""
    from types import SimpleNamespace

    from agent.dialects import dialect_named
    from agent.models import load_model
    from agent.renderer import Renderer
    from training.sft import rows_of

    _, tokenizer = load_model(str(run / "sft" / "model"))
    rows, _ = rows_of(list(read_log(run / "collect" / "kept.jsonl")), Renderer(tokenizer, dialect_named("hermes")))
    return [SimpleNamespace(tokens=row.input_ids) for row in rows]


def without_times(page: str) -> str:
    """All but the last lines, on when and how long; where nothing was trained nothing else differs."""
    return page.partition("\nModel tiny")[0]


def test_finished_seeds_are_not_run_again_and_the_page_is_the_same(calm: Path, claim: str, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in calm.glob("seed-*/**/*")}
    page = (calm / "claim.md").read_text()
    reproduce(claim, jobs=2, out=calm, page=tmp_path / "docs" / "claim.md")
    assert {path: path.stat().st_mtime_ns for path in calm.glob("seed-*/**/*")} == before
    assert (tmp_path / "docs" / "claim.md").read_text() == (calm / "claim.md").read_text() == page


def test_a_page_of_some_of_the_seeds_says_which_are_missing(calm: Path, claim: str, tmp_path: Path) -> None:
    (tmp_path / "seed-1").symlink_to(calm / "seed-1")
    page = reproduce(claim, seeds=(0, 1, 5), out=tmp_path, run=False).read_text()
    page_in_one_line = " ".join(page.split())
    assert "1 of 3 seeds are done; missing: 0, 5" in page_in_one_line
    assert "One seed says nothing of others" in page
    report = read_json(calm / "seed-1" / "report.json")
    low, high = report["rows"][0]["ci95"]
    assert cells(page)["base"][1] == f"{100 * low:.1f}% to {100 * high:.1f}%"
    assert not (tmp_path / "seed-0").exists()


def test_killed_in_the_middle_and_continued_the_page_is_the_same_and_nothing_is_played_twice(
    claim: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """kill -9 of the command takes the processes of both seeds along; both have finished some episodes by then,
    and no interrupt would reach them, as in what a shell begins in the background."""
    hold, name, deaf = Path(claim).with_name("hold"), f"{claim}:light", ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    reproduce(name, jobs=1, out=(calm := tmp_path_factory.mktemp("light")))
    hold.touch()
    command = [sys.executable, "-m", "training", "reproduce", name, "--jobs", "2", "--out", str(tmp_path)]
    logs = [tmp_path / f"seed-{seed}" / "collect" / "trajectories.jsonl" for seed in (0, 1)]
    try:
        with subprocess.Popen(deaf + command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            try:
                until(lambda: all(log.exists() and log.read_bytes().count(b"\n") == 4 for log in logs), process)
            finally:
                process.send_signal(signal.SIGKILL)
        until(lambda: not any(is_held(log.parents[1]) for log in logs))
        assert [log.read_bytes().count(b"\n") for log in logs] == [4, 4]
    finally:
        hold.unlink()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    page = without_times((tmp_path / "light.md").read_text())
    assert page in done.stdout and page == without_times((calm / "light.md").read_text())
    for log in logs:
        played = [episode.task.id for episode in read_log(log)]
        assert len(played) == len(set(played)) == 8


@pytest.mark.slow
def test_killed_while_both_seeds_train_and_continued_the_numbers_are_the_same(
    calm: Path, claim: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "training", "reproduce", claim, "--jobs", "2", "--out", str(tmp_path)]
    logs = [tmp_path / f"seed-{seed}" / "grpo" / "metrics.jsonl" for seed in (0, 1)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: any(log.exists() and log.read_bytes().count(b"\n") >= 1 for log in logs), process)
        finally:
            process.send_signal(signal.SIGKILL)
    until(lambda: not any(is_held(log.parents[1]) for log in logs))
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    ours, theirs = (read_json(folder / "claim.json") for folder in (tmp_path, calm))
    for key in ("rows", "differences", "curves"):
        assert ours[key] == theirs[key], key
    for one, other in zip(ours["budgets"], theirs["budgets"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def until(there: Any, process: Any = None) -> None:
    deadline = time.monotonic() + 300
    while not there():
        assert process is None or process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_held(folder: Path) -> bool:
    try:
        with held(folder):
            return False
    except ConfigError:
        return True


def test_a_seed_that_fails_ends_the_command_with_a_sentence_that_names_its_log(
    claim: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", f"{claim}:light", "taskset_args.broken=true", "--jobs", "2", "--out", str(tmp_path)]
    assert run_command(cli, arguments) == 1
    error = capsys.readouterr().err.partition("error: ")[2]
    assert re.match(r"seed [01] failed: reward length failed on task t\d: KeyError: 'no such thing'", error)
    assert "Traceback" not in error and re.search(r"hint: .*seed-[01]\.log has all it said", error)
    assert not any(is_held(tmp_path / f"seed-{seed}") for seed in (0, 1))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tool_or_nto"], "there is no experiment 'tool_or_nto'"),
        (["CLAIM", "--seeds", "0,x"], "'x' is no seed"),
        (["CLAIM", "--seeds", ""], "'' is no seed"),
        (["CLAIM", "--seeds", "1,2,1"], "seed 1 is given twice"),
        (["CLAIM", "--seeds", "-1"], "'-1' is no seed"),
        (["CLAIM", "--jobs", "0"], "jobs is 0"),
        (["CLAIM", "seed=3"], "seed=3 is given"),
        (["CLAIM", "grpo_stepz=3"], "no setting 'grpo_stepz'"),
        (["CLAIM", "grpo_steps=0"], "grpo.steps is 0"),
        (["CLAIM", "taskset_args.m=0"], "m"),
        (["CLAIM", "memory_gb=600000", "--jobs", "2"], "2 times arms needs 1.2e+06 GB of memory"),
        (["CLAIM", "memory_gb=600000"], "arms needs 600000 GB of memory"),
        (["CLAIM", "--only-page", "--fresh"], "--only-page"),
        (["CLAIM", "--only-page"], "no seed is finished"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(
    claim: str, tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = [claim if argument == "CLAIM" else argument for argument in arguments]
    assert run_command(cli, ["reproduce", *given, "--out", str(out)]) == 1
    error = capsys.readouterr().err.partition("error: ")[2].splitlines()[0]
    assert says in error
    assert not list(out.glob("seed-*/*/*"))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("rows=(Row(label='a', stages=('eval-nothing',)),)", "'eval-nothing', and recipe arms has no such evaluation"),
        ("rows=(Row(label='a', stages=('sft',)),)", "'sft', and recipe arms has no such evaluation"),
        ("rows=(Row(label='a', stages='eval-base'),)", "stages='eval-base'"),
        ("rows=()", "has no rows"),
        ("metrics=('chanse',)", "measures no 'chanse'"),
        ("curves={'eval-base': ('reward',)}", "trains no such stage"),
        ("differences=(('a', 'b'),)", "differences has 'b'"),
        ("differences=(('a', 'a'),)", "differences has 'a'"),
        ("differences=(('a', 'a', 'chance'),)", "differences has 'a'"),
        ("differences=('ab',)", "differences has 'ab'"),
        ("metrics=('tool_error_rate',), differences=(('a', 'tool_error_rate'),)", "no metric of episodes"),
        ("seeds=(0, 0)", "seed 0 is given twice"),
        ("rows=1 / 0", "ZeroDivisionError"),
        ("recipe='quikstart'", "there is no recipe 'quikstart'"),
    ],
)
def test_an_experiment_that_cannot_be_told_is_refused_before_anything_runs(
    claim: str, tmp_path: Path, fields: str, says: str
) -> None:
    given = dict([fields.split("=", 1)])  # a second field may follow in the value
    whole = {
        "title": "'t'",
        "claim": "'c'",
        "recipe": f"'{claim}:arms'",
        "rows": "(Row(label='a', stages=('eval-base',)),)",
        **given,
    }
    body = ", ".join(f"{key}={value}" for key, value in whole.items())
    path = tmp_path / "broken.py"
    path.write_text(f"from training.experiment import Experiment, Row\ndef broken():\n    return Experiment({body})\n")
    with pytest.raises(ConfigError, match=re.escape(says)):
        reproduce(str(path), out=tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


def test_other_settings_than_those_of_the_runs_are_refused_by_name(calm: Path, claim: str) -> None:
    with pytest.raises(ConfigError, match=r"stages\.grpo\.steps: 3 -> 4"):
        reproduce(claim, ["grpo_steps=4"], out=calm, jobs=1)
    with pytest.raises(ConfigError, match=r"stages\.grpo\.steps: 3 -> 4"):
        reproduce(claim, ["grpo_steps=4"], out=calm, run=False)


def test_an_evaluation_that_scored_nothing_is_no_result(calm: Path, claim: str, tmp_path: Path) -> None:
    shutil.copytree(calm / "seed-0", tmp_path / "seed-0")
    done = tmp_path / "seed-0" / "eval-base" / "done.json"
    found = json.loads(done.read_text())
    found["result"] |= {"accuracy": None, "ci95": [None, None], "first_error": "the model fell over"}
    write_json(done, found)
    with pytest.raises(ConfigError, match="the model fell over"):
        reproduce(claim, seeds=(0,), out=tmp_path, run=False)


def test_without_a_name_the_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(cli, ["reproduce"]) == 0
    assert "tool_or_not  A tool" in capsys.readouterr().out


@pytest.mark.parametrize("name", known_experiments())
def test_a_shipped_experiment_tells_of_what_its_recipe_measures(name: str) -> None:
    if name == "sight":
        pytest.importorskip("skimage")  # for its photographs
    check_fits(find_experiment(name), recipe_of(find_experiment(name), (), 0))
