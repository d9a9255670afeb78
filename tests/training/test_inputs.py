"""What a run is given is looked at before anything heavy is imported and before its first stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cli import run
from agent.rollout import rollout_sync
from agent.sampler import ScriptedSampler
from envs import Task, ToolEnv, assistant, user
from envs.log import append
from tools.errors import ConfigError
from training.__main__ import cli
from training.inputs import check_inputs
from training.recipe import GRPO, SFT, Collect, Evaluate, HeldOut, Recipe
from training.seeds import run_seeds

MISTAKES = {
    "grpo taskset=arithmetik": "there is no taskset 'arithmetik'",
    "grpo taskset_args.difficulty=9": "difficulty is 9; it goes from 1 to 5",
    "grpo taskset=arithmetic model=nowhere": "there is no model 'nowhere'",
    "grpo model=gold": "gold plays without weights",
    "grpo dialect=hermse": "there is no dialect 'hermse'",
    "sft data=nope.jsonl": "there is no log nope.jsonl",
    "sft data=empty.jsonl": "empty.jsonl holds no episodes",
    "sft data=damaged.jsonl": "damaged.jsonl, line 1 is damaged",
    "sft data=./": ". is a folder, not a log of episodes",
    "collect n=0": "collect.n is 0; it must be at least 1",
    "collect n=100 taskset_args.n=5": "collect asks for 100 tasks after 0; arithmetic has 5 left",
    "run broken.py": "recipe broken failed: ZeroDivisionError: division by zero (",
    "run broken.py:wrong": "recipe wrong returned list, not a Recipe",
    "run broken.py:typed steps=3": "recipe typed returned int, not a Recipe",
    "run quickstart threads=0": "threads is 0; it must be 1 or more",
    "run quickstart --resume": "runs/quickstart holds no run to go on with",
    "run quickstart --resume --fresh": "--resume goes on with a run and --fresh forgets it",
    "run .": ". is a folder without a readable recipe.json",
}

RECIPES = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from somewhere import Number

def broken():
    return 1 / 0

def wrong():
    return []

def typed(steps: Number = 1):
    return steps
"""


def test_each_mistake_is_one_sentence_without_torch_and_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "damaged.jsonl").write_text('{"no": "episode"}\n')
    (tmp_path / "broken.py").write_text(RECIPES)
    code = (
        "import sys\n"
        "from agent.cli import run\n"
        "from training.__main__ import cli\n"
        f"for words in {list(MISTAKES)!r}:\n"
        "    print(run(cli, words.split()))\n"
        "    print('---', file=sys.stderr)\n"
        "print([name for name in ('torch', 'transformers', 'trl') if name in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.stdout.split("\n") == ["1"] * len(MISTAKES) + ["[]", ""]
    said = done.stderr.split("---\n")
    for words, complaint, err in zip(MISTAKES, MISTAKES.values(), said, strict=False):
        assert err.startswith(f"error: {complaint}"), words
        assert err.count("\n") <= 2, words
    assert not (tmp_path / "runs").exists()


def test_a_slip_in_the_last_stage_stops_a_run_before_its_first(tmp_path: Path) -> None:
    stages = (Collect(n=4), SFT(start="base"), Evaluate(model="sft", n=4, taskset_args={"split": "tset"}))
    with pytest.raises(ConfigError, match="split='tset' does not fit"):
        check_inputs(Recipe(name="late", model="tiny", stages=stages), stages)
    few = (Collect(n=4), Evaluate(n=400, taskset_args={"n": 300}))
    with pytest.raises(ConfigError, match="eval asks for 400 tasks, and arithmetic has 300"):
        check_inputs(Recipe(name="few", model="tiny", stages=few), few)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"micro_batch_size": 5}, "grpo.micro_batch_size is 5; it must divide a process's 32 episodes per step"),
        ({"micro_batch_size": 4, "trl": {"gradient_accumulation_steps": 2}}, "4 tasks x 8 attempts make 32 episodes"),
        ({"trl": {"num_iterations": 4}}, "grpo.checkpoint_every is 10; one sampling serves 4 steps"),
        ({"trl": {"learning_rat": 1}}, "grpo.trl has 'learning_rat', which GRPOConfig does not know"),
        ({"trl": {"num_generations": 4}}, "grpo.trl sets num_generations, which group_size decides"),
        ({"trl": {"report_to": ["tensorbord"]}}, "grpo.trl.report_to has 'tensorbord', which is no tracker"),
        ({"lora": {"rank": 4}}, "grpo.lora has 'rank', which LoraConfig does not know"),
        ({"lora": {}, "server": "http://127.0.0.1:1"}, "grpo trains adapters and samples from a server"),
        ({"held_out": HeldOut(every=1, n=64, taskset_args={"n": 40})}, "grpo.held_out.n is 64, and arithmetic has 40"),
        ({"skip": 28}, "taskset arithmetic has 2 tasks, and a step takes 4 of them"),
        ({"advantages": "grop"}, "there is no advantages named 'grop'"),
        ({"trl": {"loss_type": "luspo"}}, "loss_type 'luspo' weighs whole sequences"),
        ({"share_results": ("serch",)}, "grpo.share_results names 'serch', and arithmetic has no such tool"),
    ],
)
def test_what_grpo_could_not_start_with_is_said_before_what_comes_before_it(
    fields: dict[str, Any], sentence: str
) -> None:
    stages = (Collect(n=4), SFT(), GRPO(start="sft", taskset_args={"n": 30}, **fields))
    with pytest.raises(ConfigError) as caught:
        check_inputs(Recipe(name="late", model="tiny", stages=stages), stages)
    assert str(caught.value).startswith(sentence)


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_trained() -> None:
    from transformers.integrations import integration_utils as trackers

    installed = trackers.get_available_reporting_integrations()
    missing = next(name for name in trackers.INTEGRATION_TO_CALLBACK if name not in installed)
    stages = (Collect(n=4), SFT(trl={"report_to": missing}))
    with pytest.raises(ConfigError, match=f"^sft.trl.report_to is {missing}, which is not installed"):
        check_inputs(Recipe(name="late", model="tiny", stages=stages), stages)


def test_what_is_there_passes(tmp_path: Path) -> None:
    task = Task(id="t", prompt=(user("Hi"),), gold=(assistant("Hello"),))
    log = tmp_path / "collect" / "kept.jsonl"
    append(log, rollout_sync(ToolEnv(task=task), ScriptedSampler()))
    stages = (
        SFT(data=str(log)),
        GRPO(start="sft"),
        Collect(source="grpo", n=3),
        Collect(name="told", source="openai:x"),
    )
    check_inputs(Recipe(name="sound", model="tiny", stages=stages), stages)
    folder = (SFT(data=str(tmp_path)),)
    with pytest.raises(ConfigError) as caught:
        check_inputs(Recipe(name="folder", model="tiny", stages=folder), folder)
    assert caught.value.hint == f"did you mean {log}?"


def test_a_fresh_start_that_cannot_run_forgets_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["collect", "taskset=toy_arithmetic", "n=2", "taskset_args.n=2", f"out={out}"]
    assert run(cli, words) == 0
    assert run(cli, [*words, "memory_gb=1000000", "--fresh"]) == 1
    assert "needs 1e+06 GB of memory" in capsys.readouterr().err
    assert (out / "collect" / "kept.jsonl").exists()
    stored = json.loads((out / "recipe.json").read_text())
    stored["taskset"] = "gone.py:taskset"
    (out / "recipe.json").write_text(json.dumps(stored))
    assert run(cli, ["run", str(out), "--fresh"]) == 1
    assert "there is no file gone.py" in capsys.readouterr().err
    assert (out / "collect" / "kept.jsonl").exists()
    out.rename(tmp_path / "seed-7")
    sound = Recipe(name="r", model="tiny", taskset="toy_arithmetic", stages=(Collect(n=2),))
    for recipe in (replace(sound, memory_gb=1e6), replace(sound, taskset="gone.py:taskset")):
        with pytest.raises(ConfigError, match=r"GB of memory|gone\.py"):
            run_seeds({7: recipe}, tmp_path, jobs=1, fresh=True)
        assert (tmp_path / "seed-7" / "collect" / "kept.jsonl").exists()
