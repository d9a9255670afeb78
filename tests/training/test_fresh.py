"""Learning from gold that is played as it trains: the rows of a log, without the log."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from agent import ScriptedSampler, rollout_sync
from agent.dialects import dialect_named
from agent.models import load_model
from agent.renderer import Renderer
from agent.tiny_vlm import tiny_vlm
from agent.vision import vision_of
from envs.find import find_taskset
from tools import ConfigError
from tools.content import BlobStore
from training import fresh
from training.files import MODEL, read_metrics
from training.fresh import fresh_rows
from training.gold import GoldTasks
from training.recipe import SFT, Recipe, StageRun
from training.run import run
from training.sft import dataset_of, rows_of, sft


def recipe_of(stage: SFT, **fields: Any) -> Recipe:
    return Recipe(**{"name": "r", "model": "tiny", "taskset": "toy_arithmetic", "stages": (stage,), **fields})


def test_the_rows_are_those_of_the_gold_episodes_in_any_order_they_are_read() -> None:
    taskset = find_taskset("toy_arithmetic", {"n": 8})
    _, tokenizer = load_model("tiny")
    renderer = Renderer(tokenizer, dialect_named("hermes"))
    played = [rollout_sync(taskset.env(task), ScriptedSampler()) for task in taskset.tasks]
    logged = dataset_of(rows_of(played, renderer)[0])
    made = fresh_rows(GoldTasks("toy_arithmetic", {"n": 8}), 8, renderer, BlobStore())
    for order in ([0, 1, 2, 3], [7, 4], [4, 4]):
        found = made[order]
        assert found["input_ids"] == [logged[index]["input_ids"] for index in order]
        assert found["labels"] == [logged[index]["labels"] for index in order]


def test_it_trains_resumes_and_learns(tmp_path: Path) -> None:
    stage = SFT(data="gold", steps=6, batch_size=4, checkpoint_every=2, trl={"bf16": False})
    recipe = recipe_of(stage, taskset_args={"n": 24})
    calm, again = (
        StageRun(recipe=recipe, folder=tmp_path / name, start="tiny", dialect="hermes", seed=1) for name in ("a", "b")
    )
    for each in (calm, again):
        each.folder.mkdir()
    assert sft(stage, calm, None)["rows"] == 24
    sft(stage, again, None)
    losses = [row["loss"] for row in read_metrics(calm.folder)]
    assert losses[-1] < losses[0]
    first, _ = load_model(str(calm.folder / MODEL))
    second, _ = load_model(str(again.folder / MODEL))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_pictures_are_drawn_when_their_turn_comes_and_the_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh, "KEPT", 6)
    tasks = GoldTasks("sight", {"n": 24, "skills": "colour,where", "on_photos": 0})
    model, blobs = tiny_vlm(tmp_path / "base"), BlobStore(tmp_path / "pictures")
    _, tokenizer = load_model(str(model))
    renderer = Renderer(tokenizer, dialect_named("hermes"), vision=vision_of(str(model), tokenizer, blobs))
    made = fresh_rows(tasks, 24, renderer, blobs)
    assert len(made) == 24 and not (tmp_path / "pictures").exists()
    for start in range(0, 24, 4):
        assert all(pictures != "[]" for pictures in made[list(range(start, start + 4))]["pictures"])
    assert len(list((tmp_path / "pictures").iterdir())) == 6


OWN = """
import PIL.Image
from envs import Rubric, Task, Taskset, ToolEnv, assistant
from envs.message import Message
from tools.content import BlobStore, Text

def own(folder: str, n: int = 4):
    blobs = BlobStore(folder)
    pictures = [blobs.put_image(PIL.Image.new("RGB", (8, 8), (index, 0, 0))) for index in range(n)]
    tasks = [
        Task(id=str(at), prompt=(Message(role="user", content=(picture, Text(text="?"))),), gold=(assistant("red"),))
        for at, picture in enumerate(pictures)
    ]
    async def right(env, trajectory):
        return 1.0
    rubric = Rubric(rewards={"right": (right, 1.0)})
    return Taskset(name="own", tasks=tasks, env=lambda task: ToolEnv(task=task), rubric=rubric, blobs=blobs)
"""


def test_pictures_of_a_users_own_store_are_copied_and_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh, "KEPT", 1)
    (tmp_path / "own.py").write_text(OWN)
    tasks = GoldTasks(f"{tmp_path / 'own.py'}:own", {"folder": str(tmp_path / "mine")})
    model, blobs = tiny_vlm(tmp_path / "base"), BlobStore(tmp_path / "pictures")
    _, tokenizer = load_model(str(model))
    renderer = Renderer(tokenizer, dialect_named("hermes"), vision=vision_of(str(model), tokenizer, blobs))
    made = fresh_rows(tasks, 4, renderer, blobs)
    for start in (0, 2):
        assert all(pictures != "[]" for pictures in made[[start, start + 1]]["pictures"])
    assert len(list((tmp_path / "mine").iterdir())) == 4 and len(list((tmp_path / "pictures").iterdir())) == 1


@pytest.mark.parametrize("long", [False, True], ids=["", "where-no-socket-fits"])
def test_what_is_drawn_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], long: bool
) -> None:
    """Rows are made by a process of their own, which ends without a farewell; by this one where it could not be."""
    model = tiny_vlm(tmp_path / "base")
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        scratch = tmp_path / ("long" * 20) if long else Path(short)
        scratch.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        stage = SFT(data="gold", steps=2, batch_size=2, trl={"bf16": False, "dataloader_num_workers": 1})
        asked = {"n": 2, "skills": "colour", "on_photos": 0}
        run(recipe_of(stage, model=str(model), taskset="sight", taskset_args=asked), tmp_path / "run")
        gc.collect()
        assert not list(scratch.glob("toolweave-pictures-*"))
    assert ("rows are made by this process: sockets have no room in" in capsys.readouterr().err) == long


def test_when_the_tasks_are_used_up_those_of_the_next_seed_follow() -> None:
    asked = {"skills": "colour", "on_photos": 0, "seed": 5}
    tasks = GoldTasks("sight", {**asked, "n": 4})
    rows = [tasks.taskset(number).tasks[index].info for number, index in map(tasks.of, range(10))]
    following = [find_taskset("sight", {**asked, "n": 4, "seed": seed}).tasks for seed in (5, 6, 7)]
    assert rows == [task.info for taskset in following for task in taskset][:10]


def test_what_cannot_be_played_is_said_before_anything_runs(tmp_path: Path) -> None:
    source = tmp_path / "seedless.py"
    source.write_text(
        "from envs.tasksets.arithmetic import toy_arithmetic\n"
        "def seedless(n: int = 8):\n"
        "    return toy_arithmetic(n=n)\n"
    )
    with pytest.raises(ConfigError, match="trains on 40 rows, and toy_arithmetic has 8 tasks and no seed"):
        run(recipe_of(SFT(data="gold", steps=10, batch_size=4), taskset=f"{source}:seedless"), tmp_path / "few")
    assert not (tmp_path / "few").exists()
    with pytest.raises(ConfigError, match="not packed"):
        SFT(data="gold", packing=True)
    with pytest.raises(ConfigError, match="taskset_args are given"):
        SFT(data="log.jsonl", taskset_args={"n": 3})
