"""The score of each category of a taskset, beside the whole: counted alike, and the same however the run came about."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from run_on_disk import Page

from agent.cli import run
from envs.tasksets.bfcl import bfcl
from evals.__main__ import cli
from evals.index import read_index
from evals.run_folder import RunFolder
from evals.view import Viewer

TASKS = '''
from dataclasses import replace
from pathlib import Path
from envs import Env, Reply, Rubric, Task, Taskset, ToolEnv, assistant, user

HERE = Path(__file__).parent

class World(Env):
    """Fails while the file `broken` names the task."""

    async def step(self, action, ctx):
        if (HERE / "broken").exists() and self.task.id in (HERE / "broken").read_text().split():
            raise OSError("disk on fire")
        return Reply(done=True)

    def __init__(self, task):
        self.task = task

async def correct(env, trajectory):
    return float(trajectory.answer == env.task.answer)

async def chance(env, trajectory):
    return env.task.info["chance"]

RUBRIC = Rubric(rewards={"correct": (correct, 1.0), "chance": (chance, 0.0)})

def task(kind, i, right, chance, named=True):
    gold = (assistant("yes" if i < right else "no"),)
    category = {"category": kind} if named else {}
    return Task(id=f"{kind}-{i}", prompt=(user("?"),), answer="yes", gold=gold, info={**category, "chance": chance})

def kinds(named: bool = True):
    """7 of 10 shapes, 2 of 8 colours, and one task of no category."""
    shapes = [task("shape", i, 7, 0.25, named) for i in range(10)]
    colours = [task("colour", i, 2, 0.5, named) for i in range(8)]
    stray = Task(id="stray", prompt=(user("?"),), answer="yes", gold=(assistant("yes"),), info={"chance": 1.0})
    return Taskset(name="kinds", tasks=[*shapes, *colours, stray], env=World, rubric=RUBRIC)

def alike():
    return replace(kinds(), tasks=[task("shape", i, 7, 0.25) for i in range(10)])
'''
KINDS = {"colour": (8, 0.25, 0.5, (0.0715, 0.5907)), "shape": (10, 0.7, 0.25, (0.3968, 0.8922))}
"""Tasks, score, chance, and Wilson's interval as tables print it."""


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    (tmp_path / "tasks.py").write_text(TASKS)
    return str(tmp_path / "tasks.py")


def evals(*argv: object) -> int:
    return run(cli, [str(argument) for argument in argv])


def play(tasks: str, out: Path, *more: object) -> dict[str, Any]:
    assert evals("run", tasks, "--model", "gold", "--out", out, "-q", *more) == 0
    return stored(out)


def stored(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def page_of(out: Path) -> dict[str, Any]:
    return Page((out / "report.html").read_text(encoding="utf-8")).data


def test_each_category_is_counted_as_the_whole_is(tasks: str, tmp_path: Path) -> None:
    found = play(f"{tasks}:kinds", tmp_path / "r")
    assert found["accuracy"] == 10 / 19 and list(found["categories"]) == ["colour", "shape"]
    for name, (n, score, chance, (low, high)) in KINDS.items():
        one = found["categories"][name]
        assert (one["n"], one["samples"], one["scored"], one["errors"], one["interval"]) == (n, n, n, 0, "wilson")
        assert (one["accuracy"], one["accuracy_errors_zero"]) == (score, score)
        assert one["ci95"] == [pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4)] == one["ci95_errors_zero"]
        assert one["scores"] == {"correct": score, "chance": chance}
    alone = play(f"{tasks}:alike", tmp_path / "alone")  # the same tasks as a taskset of their own
    shape = found["categories"]["shape"]
    assert {key: alone[key] for key in shape} == shape


def test_people_see_a_line_for_each(tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r"
    play(f"{tasks}:kinds", out)
    printed = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in capsys.readouterr().out.splitlines()]
    table = [
        ["category", "tasks", "correct", "95%", "chance"],
        ["colour", "8", "25.0%", "7.1% to 59.1%", "0.5"],
        ["shape", "10", "70.0%", "39.7% to 89.2%", "0.25"],
    ]
    assert [row for row in printed if len(row) == 5] == table
    lines = [f"| {' | '.join(row)} |" for row in table]
    assert f"\n{lines[0]}\n|---|---|---|---|---|\n{lines[1]}\n{lines[2]}\n" in (out / "summary.md").read_text()
    page = page_of(out)
    assert page["runs"][0]["categories"] == table
    assert not [label for label, _ in page["runs"][0]["facts"] if "categor" in label]
    assert {one["name"]: one["category"] for one in page["episodes"] if one["repeat"] == 0}["colour-3"] == "colour"
    with Viewer([RunFolder(out)]) as viewer:
        live = Page(viewer.page()).data
    place = live["episodes"]["keys"].index("category")
    assert {row[place] for row in live["episodes"]["rows"]} == {"colour", "shape", None}


@pytest.mark.parametrize("made", ["alike", "kinds"])
def test_nothing_is_said_where_there_are_not_two(
    made: str, tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    found = play(f"{tasks}:{made}", out, *(["-a", "named=false"] if made == "kinds" else []))
    assert found["categories"] == {} and page_of(out)["runs"][0]["categories"] == []
    assert "category" not in capsys.readouterr().out + (out / "summary.md").read_text()


def test_errors_are_left_out_counted_and_mended(tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, out = tmp_path / "broken", tmp_path / "r"
    broken.write_text("shape-0 shape-9")
    found = play(f"{tasks}:kinds", out, "--fail-on-error", "never", "--repeats", 2)
    colour, shape = found["categories"].values()
    assert (shape["n"], shape["samples"], shape["scored"], shape["errors"]) == (10, 20, 16, 4)
    assert (shape["accuracy"], shape["accuracy_errors_zero"], colour["errors"]) == (6 / 8, 0.6, 0)
    assert re.search(r"shape\D+10\D+75\.0%.*\b4\b", capsys.readouterr().out)
    broken.unlink()
    mended = play(f"{tasks}:kinds", out, "--repeats", 2)["categories"]
    assert mended == play(f"{tasks}:kinds", tmp_path / "fresh", "--repeats", 2)["categories"]


def test_a_run_scored_again_says_the_same_and_a_mended_scorer_what_it_finds(tasks: str, tmp_path: Path) -> None:
    out = tmp_path / "r"
    before = play(f"{tasks}:kinds", out)["categories"]
    assert evals("score", out) == 0
    assert stored(out)["categories"] == before
    Path(tasks).write_text(TASKS.replace("trajectory.answer == env", "trajectory.answer != env"))
    assert evals("score", out) == 0
    assert {name: one["accuracy"] for name, one in stored(out)["categories"].items()} == {
        "colour": 0.75,
        "shape": pytest.approx(0.3),
    }


def test_scoring_again_counts_by_the_categories_that_tasks_name_now(tasks: str, tmp_path: Path) -> None:
    named, bare = tmp_path / "named", tmp_path / "bare"
    expected = play(f"{tasks}:kinds", named)["categories"]
    Path(tasks).write_text(TASKS.replace("named: bool = True", "named: bool = False"))
    assert play(f"{tasks}:kinds", bare)["categories"] == {}
    Path(tasks).write_text(TASKS)
    assert evals("score", bare) == 0
    assert stored(bare)["categories"] == expected


def test_a_folder_from_before_categories_opens_and_goes_on(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    expected = play(f"{tasks}:kinds", out)
    folder = RunFolder(out)
    whole = folder.index.read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    folder.index.write_text(
        "".join(json.dumps({k: v for k, v in line.items() if k != "category"}) + "\n" for line in lines)
    )
    folder.results.write_text(json.dumps({key: value for key, value in expected.items() if key != "categories"}))
    assert evals("show", out) == 0 and "shape-3" in capsys.readouterr().out
    assert evals("view", out, "--bundle", tmp_path / "page.html") == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8")).data
    assert page["runs"][0]["categories"] == []
    assert {entry.sample.category for entry in read_index(folder)} == {"colour", "shape", None}  # from the log
    assert folder.index.read_text() == whole
    assert play(f"{tasks}:kinds", out)["categories"] == expected["categories"]


def test_a_column_of_your_own_file_names_them(tmp_path: Path) -> None:
    said = [("red", "a"), ("blue", "a"), ("green", "b"), ("half \ud800", "b\ud800")]
    rows = [{"question": "?", "answer": word, "part": part} for word, part in said]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = play(str(tmp_path / "quiz.jsonl"), tmp_path / "r", "-a", "category=part")["categories"]
    assert {name: (one["n"], one["accuracy"]) for name, one in found.items()} == {
        "a": (2, 1.0),
        "b": (1, 1.0),
        "b?": (1, 1.0),
    }
    assert page_of(tmp_path / "r")["runs"][0]["categories"][1][:3] == ["a", "2", "100.0%"]


@pytest.mark.skipif(find_spec("bfcl_eval") is None, reason="pip install --no-deps bfcl-eval")
def test_bfcl_names_its_own(tmp_path: Path) -> None:
    measured = play("bfcl", tmp_path / "bfcl", "-a", "category=simple_python,irrelevance", "-a", "each=2")
    assert {name: one["n"] for name, one in measured["categories"].items()} == {"irrelevance": 2, "simple_python": 2}
    assert {task.info["category"] for task in bfcl("irrelevance", each=1).tasks} == {"irrelevance"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_a_browser_draws_the_table_of_each_run_and_a_column(tasks: str, tmp_path: Path) -> None:
    play(f"{tasks}:kinds", tmp_path / "a")
    play(f"{tasks}:alike", tmp_path / "b")
    page = tmp_path / "two.html"
    assert evals("view", tmp_path / "a", tmp_path / "b", "--bundle", page) == 0

    def drawn(at: str) -> str:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'p'}", "--dump-dom"]
        command = ["chromium", *flags, "--virtual-time-budget=5000", f"file://{page}#{at}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout

    run_page = drawn("run")
    assert run_page.count('<section class="categories">') == 1
    assert '<td class="">shape</td><td class="num">10</td><td class="num">70.0%</td>' in run_page
    samples = drawn("samples")
    assert '<option value="colour">colour</option>' in samples and 'title="colour">colour</td>' in samples
