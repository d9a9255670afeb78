"""The command line end to end: stages run once, a kill at any moment changes nothing, and mistakes are one sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent.models import load_model, model_folder
from agent.rollout import Limits
from agent.sampler import SamplingParams
from envs.log import read_log
from tools.errors import ConfigError
from tools.lock import held
from training.files import last_checkpoint, publish, read_json, read_metrics, rewind_metrics, write_json
from training.progress import Progress, Stopwatch, duration
from training.recipe import Evaluate, Recipe
from training.run import run, settle

RECIPE = '''
"""All four kinds of stage on a tiny model and a world without kernels."""
from pathlib import Path
from agent.rollout import Limits
from agent.sampler import SamplingParams
from training.recipe import GRPO, SFT, Collect, Evaluate, Recipe

WORLD = f"{Path(__file__).with_name('world.py')}:world"
SHORT = SamplingParams(max_tokens=8, temperature=0.0)
LIMITS = Limits(max_turns=2)


def whole(seed: int = 0, sft_steps: int = 6, grpo_steps: int = 4) -> Recipe:
    def measure(name: str, model: str, tools: bool = True) -> Evaluate:
        return Evaluate(name=name, model=model, tools=tools, n=6, params=SHORT, limits=LIMITS, concurrency=2)

    return Recipe(
        name="whole", model="tiny", taskset=WORLD, seed=seed, threads=1,
        stages=(
            measure("eval-base", "base"),
            Collect(n=8, limits=LIMITS, concurrency=2),
            SFT(steps=sft_steps, batch_size=4, lr=1e-3, warmup=1, checkpoint_every=1, trl={"bf16": False}),
            measure("eval-sft", "sft"),
            GRPO(start="sft", steps=grpo_steps, tasks_per_step=2, group_size=2, lr=1e-4, skip=8,
                 params=SamplingParams(max_tokens=8), limits=LIMITS, checkpoint_every=1, trl={"bf16": False}),
            measure("eval-grpo", "grpo"),
            measure("eval-bare", "sft", tools=False),
        ),
    )
'''

WORLD = '''
from envs import Rubric, Task, Taskset, ToolEnv, assistant, user
from tools import tool
from tools.tool import ToolCall


@tool
def add(a: int, b: int) -> str:
    """Add two integers."""
    return str(a + b)


def world(n: int = 24) -> Taskset:
    def gold(i):
        call = ToolCall(id="call_0", name="add", raw="", arguments={"a": i, "b": 1})
        return assistant(tool_calls=(call,)), assistant(f"Answer: {i + 1}")

    async def length(env, trajectory):
        return 1.0 if trajectory.calls else len(trajectory.answer) / 100

    tasks = [Task(id=f"t{i}", prompt=(user(f"{i} + 1?"),), gold=gold(i)) for i in range(n)]
    rubric = Rubric(rewards={"length": (length, 1.0)})
    return Taskset(name="world", tasks=tasks, env=lambda task: ToolEnv(task=task, tools=(add,)), rubric=rubric)
'''


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "world.py").write_text(WORLD)
    (folder / "whole.py").write_text(RECIPE)
    return folder / "whole.py"


@pytest.fixture(scope="module")
def calm(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run that nothing disturbed, and what it printed."""
    out = tmp_path_factory.mktemp("calm") / "run"
    done = training("run", str(recipe), f"out={out}")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "training", *arguments]


def training(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600, env=os.environ.copy())


def test_the_report_holds_a_row_per_measurement_in_the_agreed_form(calm: tuple[Path, str]) -> None:
    out, _ = calm
    report = read_json(out / "report.json")
    assert list(report) == ["model", "n", "rows", "seconds", "seed", "versions"]
    assert (report["model"], report["n"], report["seed"]) == ("tiny", 6, 0)
    assert [(row["stage"], row["tools"]) for row in report["rows"]] == [
        ("base", True), ("sft", True), ("grpo", True), ("sft", False),
    ]  # fmt: skip
    for row in report["rows"]:
        assert list(row) == [
            "evaluation", "stage", "tools", "accuracy", "ci95", "calls_per_task", "tool_error_rate", "mean_tokens",
            "seconds",
        ]  # fmt: skip
        low, high = row["ci95"]
        assert 0 <= low <= row["accuracy"] <= high <= 1
        assert row["seconds"] > 0
    assert sum(row["seconds"] for row in report["rows"]) == pytest.approx(report["seconds"], abs=0.5)
    assert {"torch", "transformers", "trl", "python", "toolweave"} <= set(report["versions"])


def test_the_last_lines_are_the_table_the_report_and_how_to_talk_to_the_model(calm: tuple[Path, str]) -> None:
    out, printed = calm
    lines = printed.strip().splitlines()
    assert lines[0].split()[:3] == ["model", "tools", "accuracy"]
    assert [line.split()[0] for line in lines[1:5]] == ["base", "sft", "grpo", "sft"]
    assert str(out / "report.html") in printed
    assert f"agent --model {out / 'grpo' / 'model'}" in lines[-1]


def test_a_run_folder_explains_itself(calm: tuple[Path, str]) -> None:
    out, _ = calm
    for name in ("recipe.json", "versions.json", "report.md", "report.html", "plots/sft.png", "plots/grpo.png"):
        assert (out / name).stat().st_size > 0, name
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 2 and "http://" not in page and "https://" not in page
    for stage in ("eval-base", "collect", "grpo"):
        assert f'href="{stage}/report.html"' in page
        assert (out / stage / "report.html").exists()
    for stage in ("sft", "grpo"):
        load_model(str(out / stage / "model"))
        assert [row["step"] for row in read_metrics(out / stage)] == list(range(1, 7 if stage == "sft" else 5))


def test_a_finished_run_runs_nothing_again_and_prints_the_same(calm: tuple[Path, str]) -> None:
    out, printed = calm
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/done.json")}
    again = training("run", str(out))
    assert again.returncode == 0 and again.stdout == printed
    assert again.stderr.count("done before") == 7
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/done.json")}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_in_every_stage_the_same_command_ends_in_the_same_place(
    recipe: Path, calm: tuple[Path, str], tmp_path: Path
) -> None:
    """kill -9 in evaluation, collection, SFT and GRPO; then data, weights and accuracies are those of the calm run."""
    out = tmp_path / "run"
    moments = [
        (out / "eval-base" / "samples.jsonl", 1),
        (out / "collect" / "trajectories.jsonl", 1),
        (out / "sft" / "metrics.jsonl", 2),
        (out / "grpo" / "trajectories.jsonl", 1),
        (out / "grpo" / "metrics.jsonl", 2),
    ]
    for log, lines in moments:
        kill_when(log, lines, recipe, out)
    last = training("run", str(recipe), f"out={out}")
    assert last.returncode == 0, last.stderr
    assert "missing keys" not in last.stderr

    expected, _ = calm
    assert episodes(out / "collect" / "kept.jsonl") == episodes(expected / "collect" / "kept.jsonl")
    for stage in ("sft", "grpo"):
        ours, theirs = (load_model(str(run / stage / "model"))[0].state_dict() for run in (out, expected))
        assert all((theirs[name] == value).all() for name, value in ours.items()), stage
        lines = [[(row["step"], row["loss"]) for row in read_metrics(run / stage)] for run in (out, expected)]
        assert lines[0] == lines[1]
    ours, theirs = (read_json(run / "report.json")["rows"] for run in (out, expected))
    for row, other in zip(ours, theirs, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
    played = [key for key, *_ in episodes(out / "grpo" / "trajectories.jsonl")]
    assert len(played) == len(set(played)) == 16


def episodes(log: Path) -> list[Any]:
    return [((t.task.id, t.sample), t.seed, t.messages) for t in read_log(log)]


def kill_when(log: Path, lines: int, recipe: Path, out: Path) -> None:
    """kill -9 as soon as `log` holds so many lines."""
    with subprocess.Popen(
        command("run", str(recipe), f"out={out}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 180
            while not (log.exists() and log.read_bytes().count(b"\n") >= lines):
                assert process.poll() is None, f"it ended before {log} held {lines} lines"
                assert time.monotonic() < deadline, f"{log} does not hold {lines} lines"
                time.sleep(0.005)
        finally:
            process.send_signal(signal.SIGKILL)


def test_ctrl_c_says_that_the_same_command_continues(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command("run", str(recipe), f"out={out}"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with process:
        deadline = time.monotonic() + 120
        while not (out / "collect" / "done.json").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["run", "quikstart"], "there is no recipe 'quikstart'", "quickstart"),
        (["run", "quickstart", "stages.grop.lr=1"], "there is no stage 'grop'", "grpo"),
        (["run", "quickstart", "grpo_lr=fast"], "'fast' is not a number", ""),
        (["collect", "taskset=arithmatic"], "arithmatic", "arithmetic"),
        (["sft"], "sft needs data", "data="),
        (["sft", "data=nowhere.jsonl", "model=tiny"], "no log nowhere.jsonl", ""),
        (["grpo", "model=no/such/folder"], "no/such/folder", ""),
        (["grpo", "steps"], "'steps' is not key=value", "="),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(tmp_path: Path, arguments: list[str], says: str, hint: str) -> None:
    done = training(*arguments, "--out", str(tmp_path / "run"))
    assert done.returncode == 1
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert says in error
    assert "Traceback" not in done.stderr
    if hint:
        assert hint in done.stderr.partition("hint: ")[2]


def test_other_settings_are_refused_by_name_in_a_folder_that_holds_a_run(calm: tuple[Path, str], recipe: Path) -> None:
    out, _ = calm
    done = training("run", str(recipe), "stages.grpo.lr=0.5", f"out={out}")
    assert done.returncode == 1
    assert "stages.grpo.lr: 0.0001 -> 0.5" in done.stderr


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = training("collect", "taskset=toy_arithmetic", "n=1", "--fresh", "--out", str(tmp_path))
    assert done.returncode == 1 and "not empty" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_two_processes_cannot_run_in_one_folder(tmp_path: Path) -> None:
    with held(tmp_path):
        done = training("collect", "taskset=toy_arithmetic", "n=1", "--out", str(tmp_path))
    assert done.returncode == 1 and "in use by another run" in done.stderr


def test_show_prints_json_that_runs_and_list_names_every_recipe() -> None:
    shown = training("show", "demo", "seed=4", "stages.grpo.trl.beta=0.1")
    recipe = json.loads(shown.stdout)
    assert recipe["seed"] == 4
    assert next(s for s in recipe["stages"] if s["name"] == "grpo")["trl"] == {"beta": 0.1}
    listed = training("list").stdout
    assert all(name in listed for name in ("demo", "quickstart", "collect", "sft", "grpo"))


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys; from training.__main__ import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'matplotlib', 'rich', 'openai'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_settle_forgives_a_kill_between_its_two_files(tmp_path: Path) -> None:
    recipe = Recipe(name="r")
    settle(recipe, tmp_path)
    (tmp_path / "versions.json").unlink()
    settle(recipe, tmp_path)
    assert read_json(tmp_path / "versions.json")["versions"]["torch"]
    with pytest.raises(ConfigError, match="seed: 0 -> 1"):
        settle(Recipe(name="r", seed=1), tmp_path)


def test_a_run_goes_on_from_the_weights_it_began_with_alone(recipe: Path, tmp_path: Path) -> None:
    """A model that was trained anew between an interruption and the continuation would mix two runs."""
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(model_folder("tiny:5"), base)
    weights = next(base.glob("*.safetensors"))
    began_with = weights.read_bytes()
    measure = Evaluate(n=2, params=SamplingParams(max_tokens=4), limits=Limits(max_turns=1))
    asked = Recipe(name="one", model=str(base), taskset=f"{recipe.with_name('world.py')}:world", stages=(measure,))
    run(asked, out)
    weights.write_bytes(began_with[:-1] + bytes([began_with[-1] ^ 1]))
    run(asked, out)  # finished: nothing is run with the weights
    (out / measure.name / "done.json").unlink()  # as an interruption leaves it
    with pytest.raises(ConfigError, match=f"began from other weights of {base}: {weights.name}"):
        run(asked, out)
    weights.write_bytes(began_with)
    run(asked, out)
    assert read_json(out / measure.name / "done.json") is not None


def test_seconds_add_up_over_runs_of_a_stage(tmp_path: Path) -> None:
    write_json(tmp_path / "clock.json", {"seconds": 100.0})
    with Stopwatch(tmp_path, tick_s=0.01) as watch:
        deadline = time.monotonic() + 60
        while (kept := read_json(tmp_path / "clock.json")["seconds"]) <= 100:  # kept while it runs, for a kill to find
            assert time.monotonic() < deadline
    assert 100 < kept <= read_json(tmp_path / "clock.json")["seconds"] <= watch.seconds + 0.01


def test_metrics_of_steps_that_are_taken_again_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    rewind_metrics(tmp_path, 2)
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "first").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "model", half)
    assert not (tmp_path / "model").exists()
    publish(tmp_path / "model", lambda folder: (folder / "second").write_text("2"))
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["second"]


def test_a_checkpoint_cut_short_is_passed_over(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step, state in ((9, '{"global_step": 9}'), (10, '{"global_step": 10}'), (11, '{"glo'), (12, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_time_left_is_by_the_pace_of_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("stage", total=100, done=90) as progress:
        assert progress.seconds_left is None
        time.sleep(0.05)
        progress.advance(5)
        left = progress.seconds_left
        assert left is not None and 0.04 < left < 0.5
    assert "90 done before" in capsys.readouterr().err
    assert duration(59.6) == "1 min 0 s"
