"""A run goes on from the weights it began with, and the seeds of one page begin from the same."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agent.models import load_model, save_dialect
from tools.errors import ConfigError
from training.files import read_json, write_json
from training.recipe import SFT, Collect, Evaluate, Recipe
from training.resume import hold_to_base, remember_base, without_tied
from training.run import BEGAN_FROM, RECIPE, VERSIONS, made_with, run, stage_run
from training.seeds import run_seeds, seed_folder

WORLD = '''
from pathlib import Path
from envs import Rubric, Task, Taskset, ToolEnv, assistant, user


def world(weights: str = "", n: int = 4) -> Taskset:
    """Whoever scores an episode of it trains the model in `weights` anew."""

    async def right(env, trajectory):
        if weights:
            Path(weights).write_bytes(b"trained anew")
        return 1.0

    tasks = [Task(id=f"t{i}", prompt=(user("?"),), gold=(assistant("1"),)) for i in range(n)]
    rubric = Rubric(rewards={"right": (right, 1.0)})
    return Taskset(name="world", tasks=tasks, env=lambda task: ToolEnv(task=task), rubric=rubric)
'''
MB = 1 << 20


@pytest.fixture
def world(tmp_path: Path) -> str:
    (tmp_path / "world.py").write_text(WORLD)
    return f"{tmp_path / 'world.py'}:world"


def folder_of_weights(folder: Path, name: str = "model.safetensors") -> Path:
    """As much of a model folder as is looked at; returns its file of weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / name).write_bytes(os.urandom(12 * MB))
    return folder / name


def test_weights_are_others_wherever_in_their_file_they_changed(tmp_path: Path) -> None:
    weights, file = folder_of_weights(tmp_path / "base"), tmp_path / "out" / BEGAN_FROM
    began_with = weights.read_bytes()
    remember_base(str(weights.parent), file)
    for first in (0, 5 * MB, 11 * MB):  # of a model whose eyes are frozen, neither end need change
        weights.write_bytes(began_with[:first] + os.urandom(MB) + began_with[first + MB :])
        with pytest.raises(ConfigError, match=r"out began from other weights of .*: model.safetensors in"):
            hold_to_base(str(weights.parent), file)
    weights.write_bytes(began_with)
    (weights.parent / "training_args.bin").write_bytes(b"no weights")
    moved = shutil.move(weights.parent, tmp_path / "moved")
    hold_to_base(str(moved), file)
    (tmp_path / "moved" / "model-00002-of-00002.safetensors").write_bytes(b"more")
    with pytest.raises(ConfigError, match="model-00002-of-00002"):
        hold_to_base(str(moved), file)


def test_adapters_are_held_to_the_model_that_they_are_for(tmp_path: Path) -> None:
    weights, adapters = folder_of_weights(tmp_path / "base"), tmp_path / "adapters"
    adapter = folder_of_weights(adapters, "adapter_model.safetensors")
    write_json(adapters / "adapter_config.json", {"base_model_name_or_path": str(weights.parent)})
    remember_base(str(adapters), tmp_path / BEGAN_FROM)
    hold_to_base(str(adapters), tmp_path / BEGAN_FROM)
    for file in (weights, adapter):
        began_with = file.read_bytes()
        file.write_bytes(began_with[::-1])
        with pytest.raises(ConfigError, match=f"{file.name} in {adapters} is not the same"):
            hold_to_base(str(adapters), tmp_path / BEGAN_FROM)
        file.write_bytes(began_with)


def test_of_a_hub_id_and_of_a_run_of_before_nothing_is_said(tmp_path: Path) -> None:
    remember_base("owner/name", tmp_path / BEGAN_FROM)
    hold_to_base("owner/name", tmp_path / BEGAN_FROM)
    assert read_json(tmp_path / BEGAN_FROM) == {"model": "owner/name", "weights": {}}
    hold_to_base("owner/name", tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


def test_a_base_trained_anew_while_the_run_ran_is_not_gone_on_with(tmp_path: Path, world: str) -> None:
    weights, out = folder_of_weights(tmp_path / "base"), tmp_path / "out"
    recipe = Recipe(
        name="r",
        model=str(weights.parent),
        taskset=world,
        stages=(Collect(n=1, taskset_args={"weights": str(weights)}), Evaluate(n=1)),
    )
    with pytest.raises(ConfigError, match="began from other weights"):
        run(recipe, out)
    assert read_json(out / "collect" / "done.json")["kept"] == 1 and not (out / "evaluate").exists()


def test_a_run_that_began_before_marks_were_kept_is_not_said_to_have_begun_from_what_is_there_now(
    tmp_path: Path, world: str
) -> None:
    recipe = Recipe(name="r", model="tiny:5", taskset=world, stages=(Evaluate(n=1, taskset_args={"n": 1}),))
    run(recipe, tmp_path / "out")
    assert read_json(tmp_path / "out" / BEGAN_FROM)["weights"].keys() == {"model.safetensors"}
    (tmp_path / "out" / BEGAN_FROM).unlink()
    (tmp_path / "out" / recipe.stages[0].name / "done.json").unlink()
    run(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / BEGAN_FROM).exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_seeds_begin_from_the_same_weights(tmp_path: Path, world: str, jobs: int) -> None:
    weights = folder_of_weights(tmp_path / "base")
    recipes = {
        seed: Recipe(name="r", model=str(weights.parent), taskset=world, seed=seed, stages=(Evaluate(n=1),))
        for seed in (0, 1)
    }
    remember_base(str(weights.parent), seed_folder(tmp_path / "out", 0) / BEGAN_FROM)
    write_json(seed_folder(tmp_path / "out", 0) / "report.json", {})
    weights.write_bytes(b"trained anew")
    with pytest.raises(ConfigError, match="seed-0 began from other weights"):
        run_seeds(recipes, tmp_path / "out", jobs=jobs)
    assert not seed_folder(tmp_path / "out", 1).exists()


def test_a_base_that_is_gone_leaves_its_dialect(tmp_path: Path, world: str) -> None:
    """What was trained goes on in the dialect it was trained in, and not in another one by default."""
    stages = (SFT(data="gold", steps=1), Evaluate(model="sft"))
    recipe = Recipe(name="r", model=str(tmp_path / "gone"), taskset=world, stages=stages)
    (tmp_path / "out" / "sft" / "model").mkdir(parents=True)
    save_dialect(tmp_path / "out" / "sft" / "model", "vilasr")
    assert stage_run(recipe, stages[1], tmp_path / "out", "sft").dialect == "vilasr"


def test_what_other_code_goes_on_with_is_written_down(tmp_path: Path, world: str) -> None:
    recipe, out = Recipe(name="r", taskset=world, stages=(Collect(n=1),)), tmp_path / "out"
    run(recipe, out)
    now = made_with(out)
    assert len(now) == 1 and now[0]["versions"]["python"]
    write_json(out / VERSIONS, {**read_json(out / VERSIONS), "commit": "an older one"})
    run(recipe, out)  # finished: nothing is made with this one
    assert [one["commit"] for one in made_with(out)] == ["an older one"]
    for _ in range(2):
        (out / "collect" / "done.json").unlink()
        run(recipe, out)
        assert made_with(out) == [{**now[0], "commit": "an older one"}, *now]


def test_memory_is_asked_of_what_is_left_to_do_and_less_is_no_other_run(tmp_path: Path, world: str) -> None:
    recipe = Recipe(name="r", taskset=world, stages=(Collect(n=1),))
    run(recipe, tmp_path / "out")
    dear = replace(recipe, memory_gb=1e6)
    run(dear, tmp_path / "out")  # finished: its report needs no memory
    (tmp_path / "out" / "collect" / "done.json").unlink()
    with pytest.raises(ConfigError, match=r"needs 1e\+06 GB of memory") as caught:
        run(dear, tmp_path / "out")
    assert "set memory_gb=0 to try" in str(caught.value.hint)
    run(recipe, tmp_path / "out")
    assert read_json(tmp_path / "out" / RECIPE)["memory_gb"] == 0


def test_weights_that_a_checkpoint_holds_once_are_not_missed(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model, _ = load_model("tiny:5")
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    found = model.load_state_dict(weights, strict=False)
    assert found.missing_keys == ["lm_head.weight"] and without_tied(found, model).missing_keys == []
    del weights["model.norm.weight"]
    assert without_tied(model.load_state_dict(weights, strict=False), model).missing_keys == ["model.norm.weight"]
