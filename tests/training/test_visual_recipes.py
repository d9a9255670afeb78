"""The recipes of models that see: what their arms share and differ in, and one run of all of them in small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.model_cache import keep_folder
from agent.models import keep_model, model_folder
from agent.sampler import ScriptedSampler
from agent.tiny_vlm import Shape
from agent.tiny_vlm import tiny_vlm as make_tiny_vlm
from envs.find import hide_tools
from envs.tasksets.maze import maze
from evals import evaluate
from tools import ConfigError
from training.files import read_json
from training.recipe import GRPO, SFT, Evaluate, Recipe
from training.recipes.deepeyes import ARMS as ZOOM
from training.recipes.deepeyes import deepeyes
from training.recipes.tiny_vlm import SKILLS, tiny_vlm
from training.recipes.vilasr import ARMS as DRAW
from training.recipes.vilasr import vilasr
from training.report import closing_words, offers_tools
from training.run import run

pytest.importorskip("skimage")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLWEAVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "recipe", [deepeyes(arms=",".join(ZOOM)), vilasr(arms=",".join(DRAW))], ids=["deepeyes", "vilasr"]
)
def test_arms_have_the_same_budgets_and_are_measured_on_the_same_pictures(recipe: Recipe) -> None:
    for kind in (GRPO, SFT):
        shared = ("near", "mazes", "way")
        (budget,) = {
            stage.max_tokens for stage in recipe.stages if isinstance(stage, kind) and stage.name not in shared
        }
        assert budget
    measured = {stage.model for stage in recipe.stages if isinstance(stage, Evaluate)}
    assert measured >= {stage.name for stage in recipe.stages if isinstance(stage, GRPO)}
    asked = [recipe.arguments(stage) for stage in recipe.stages if isinstance(stage, Evaluate)]
    only = ("tools", "aloud", "bonus", "careful", "reward")
    pictures = [{name: value for name, value in one.items() if name not in only} for one in asked]
    assert all(one == pictures[0] and one["split"] == "test" for one in pictures)


def test_tasks_of_the_cold_start_are_not_those_of_grpo() -> None:
    zoom = deepeyes(arms=",".join(ZOOM))
    gold = {stage.name: stage.n for stage in zoom.stages if stage.kind == "collect"}
    for stage in zoom.stages:
        if isinstance(stage, GRPO):
            taught_by = zoom.stage(stage.start).data if stage.start != "base" else ""
            assert stage.skip == gold.get(taught_by, max(gold.values()))
    seeds: dict[str, set[int]] = {"grpo": set(), "sft": set()}
    for seed in range(3):
        draw = vilasr(seed=seed)
        for stage in draw.stages:
            if not isinstance(stage, Evaluate):
                seeds[stage.kind].add(draw.arguments(stage)["seed"])
    assert seeds["grpo"] == {500, 1500, 2500}
    assert seeds["sft"] == {seed + part for seed in (0, 1000, 2000) for part in (0, 100, 200)}, "and the seeds between"


def test_a_maze_that_is_measured_is_in_no_training_data_whatever_was_asked_of_it() -> None:
    asked = {name: value for name, value in vilasr().taskset_args.items() if name != "n"}

    def drawn(**dials: Any) -> set[str]:
        tasks = maze(**{**asked, **dials}).tasks
        return {json.dumps(task.info["scene"]["maze"], sort_keys=True) for task in tasks}

    measured = drawn(split="test", n=100)
    assert measured.isdisjoint(drawn(ask="doors", n=1500, order="way")) and measured.isdisjoint(drawn(n=500))


def test_what_a_recipe_does_not_know_is_refused() -> None:
    for wrong in ({"preset": "huge"}, {"arms": "tool,feel"}):
        with pytest.raises(ConfigError, match=r"huge|feel"):
            deepeyes(**wrong)
        with pytest.raises(ConfigError, match=r"huge|feel|tool"):
            vilasr(**wrong)
    with pytest.raises(ConfigError, match="model is tiny, which cannot be kept as tiny_vlm"):
        tiny_vlm(model="tiny")
    assert tiny_vlm(model="tiny", keep=False).model == "tiny"
    with pytest.raises(ConfigError, match="steps is '1,2'"):
        tiny_vlm(steps="1,2")


def test_the_papers_presets_are_those_of_large_models() -> None:
    assert deepeyes("paper").stages[0].kind == "grpo" and "7B" in deepeyes("paper").model
    sft, grpo = vilasr("paper").stages
    assert isinstance(sft, SFT) and sft.freeze_vision and isinstance(grpo, GRPO) and grpo.group_size == 8


def test_the_model_that_was_taught_has_to_be_taught_first(cache: Path) -> None:
    with pytest.raises(ConfigError, match="tiny_vlm has not been trained on this machine") as caught:
        run(deepeyes(), cache.parent / "run")
    assert "training run tiny_vlm" in str(caught.value.hint) and not (cache.parent / "run").exists()
    (cache / "models" / "tiny_vlm-00000000").mkdir(parents=True)
    with pytest.raises(ConfigError, match="tiny_vlm-00000000 is of another version"):
        model_folder("tiny_vlm")


def test_what_is_kept_is_of_this_version_and_stays_until_another_is_whole(cache: Path) -> None:
    taught = [make_tiny_vlm(cache.parent / f"taught{seed}", seed) for seed in (1, 2)]

    def kept() -> bytes:
        return (Path(model_folder("tiny_vlm")) / "model.safetensors").read_bytes()

    for folder in taught:
        keep_model("tiny_vlm", folder)
        assert kept() == (folder / "model.safetensors").read_bytes()
    (taught[0] / "chat_template.jinja").write_text("{{ messages }}")
    others = taught[0], make_tiny_vlm(cache.parent / "small", shape=Shape(layers=1)), Path(model_folder("tiny"))
    for other in others:
        with pytest.raises(ConfigError, match="was made by another version"):
            keep_model("tiny_vlm", other)
    assert kept() == (taught[1] / "model.safetensors").read_bytes()

    mine = keep_folder("mine", [1], taught[1])
    with pytest.raises(ConfigError, match="mine cannot be written"):
        keep_folder("mine", [1], cache / "gone")
    assert (mine / "config.json").is_file()


def test_too_little_memory_and_a_name_that_keeps_nothing_are_said_before_a_run(tmp_path: Path) -> None:
    dear = replace(tiny_vlm(), memory_gb=1e6)
    with pytest.raises(ConfigError, match=r"tiny_vlm needs 1e\+06 GB of memory, and .* GB are free"):
        run(dear, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.json").exists()
    with pytest.raises(ConfigError, match="no model is kept under the name 'mine'"):
        run(replace(tiny_vlm(), keep_as="mine"), tmp_path / "mine")


def test_arms_without_tools_are_reported_so_whether_these_are_hidden_or_the_taskset_has_none(tmp_path: Path) -> None:
    arms = {"drawn": maze(n=1), "words": maze(n=1, tools="none"), "hidden": hide_tools(maze(n=1))}
    for name, taskset in arms.items():
        evaluate(taskset, ScriptedSampler(), out=tmp_path / name)
    assert [name for name in arms if offers_tools(Evaluate(name=name), tmp_path)] == ["drawn"]


@pytest.mark.slow
def test_a_model_is_taught_and_kept_and_then_learns_to_zoom_and_to_draw(cache: Path) -> None:
    pytest.importorskip("sklearn")
    run(tiny_vlm(steps="2,2,2,2,2,2", batch_size=8, n=8), cache.parent / "sees")
    report = read_json(cache.parent / "sees" / "report.json") or {}
    assert report["n"] == 8 and len(report["rows"]) == len(SKILLS)
    said = closing_words(tiny_vlm(), cache.parent / "sees").splitlines()
    assert [line.split()[0] for line in said[1 : 1 + len(SKILLS)]] == [f"eval-{skill}" for skill in SKILLS]
    kept = Path(model_folder("tiny_vlm"))
    assert kept.is_relative_to(cache) and (kept / "preprocessor_config.json").is_file()
    small = {"sft_tokens": 4000, "grpo_tokens": 4000, "n": 8}
    for recipe in (
        deepeyes(arms=",".join(ZOOM), gold=32, **small),
        vilasr(arms=",".join(DRAW), sight_steps=3, **small),
    ):
        out = cache.parent / recipe.name
        run(recipe, out)
        grpo = [stage.name for stage in recipe.stages if isinstance(stage, GRPO)]
        assert len(grpo) == (len(ZOOM) if recipe.name == "deepeyes" else len(DRAW))
        assert all((out / name / "model" / "config.json").is_file() for name in grpo)
