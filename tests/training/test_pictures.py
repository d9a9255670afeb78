"""Pictures through SFT and GRPO: rows keep theirs, and the gradient is the one the model's own inputs give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from vlm_families import FAMILIES, vlm_folder

from agent import Limits, SamplingParams, ScriptedSampler, rollout
from agent.dialects import dialect_named
from agent.engine import Generated, Request
from agent.local import TransformersEngine
from agent.models import load_model
from agent.renderer import Renderer
from agent.token_sampler import TokenSampler
from agent.vision import Vision, vision_of
from envs import PlacedImage, Taskset, TokenSequence, Trajectory
from envs.find import find_taskset
from envs.log import TrajectoryLog, read_log
from tools.content import BlobStore, Image
from training.batch import bucketed, collate, rows_of, trimmed
from training.grpo import grpo, make_trainer
from training.recipe import GRPO, SFT, Recipe, StageRun
from training.sft import IGNORED, sft

WORLD = str(Path(__file__).with_name("two_pictures.py")) + ":two_pictures"
QUICK = ("idefics3", "qwen3-vl")
ALL = [family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]


@cache
def loaded(family: str) -> tuple[Any, Any]:
    return load_model(str(vlm_folder(family)))


def world(n: int = 4, **more: Any) -> Taskset:
    return find_taskset(WORLD, {"n": n, **more})


def eyes(family: str, blobs: BlobStore | None) -> Vision:
    vision = vision_of(str(vlm_folder(family)), loaded(family)[1], blobs)
    assert vision is not None
    return vision


class Plays:
    """An engine that opens a box and names a colour, by the request's seed; each answer has recorded log-probs."""

    max_context = 2048

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer

    async def generate(self, request: Request, on_ids: Any = None) -> Generated:
        box, colour = ("red", "green")[request.seed % 2], ("red", "green", "blue")[request.seed % 3]
        call = f'<tool_call>\n{{"name": "look", "arguments": {{"box": "{box}"}}}}\n</tool_call>'
        ids = (*self.renderer.written(colour if len(request.images) > 1 else call), 2)
        return Generated(token_ids=ids, logprobs=(-0.5,) * len(ids), finish="stop")


def plain_inputs(vision: Vision, images: Sequence[PlacedImage], ids: torch.Tensor) -> dict[str, Any]:
    """What the model's own processor would hand it: pixels, and whatever says where and how large they are."""
    pixels = [vision.pixels(image) for image in images]
    name = type(vision.eyes).__name__
    if name == "IdeficsEyes":
        most = max(len(one["pixel_values"]) for one in pixels)
        assert most  # pictures of one row lie one behind the other
        return {key: torch.cat([one[key] for one in pixels])[None] for key in ("pixel_values", "pixel_attention_mask")}
    if name == "QwenEyes":
        return {
            "pixel_values": torch.cat([one["pixel_values"] for one in pixels]),
            "image_grid_thw": torch.stack([one["image_grid_thw"] for one in pixels]),
            "mm_token_type_ids": (ids == vision.placeholder).int(),
        }
    kinds = {"token_type_ids": (ids == vision.placeholder).long()} if name == "GemmaEyes" else {}
    return {"pixel_values": torch.stack([one["pixel_values"] for one in pixels]), **kinds}


def plain_logps(model: Any, vision: Vision, row: TokenSequence) -> torch.Tensor:
    """Log-probs of a row's trained tokens, by the model's own forward pass on pixels."""
    ids = torch.tensor([row.token_ids])
    logits = model(input_ids=ids, **plain_inputs(vision, row.images, ids)).logits.float()
    logps = logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
    return logps[torch.tensor(row.loss_mask[1:]).bool()]


def trainer_on(family: str, taskset: Taskset, out: Path, engine: Any = None, **settings: Any) -> Any:
    model, tokenizer = load_model(str(vlm_folder(family)))
    vision = eyes(family, taskset.blobs)
    renderer = Renderer(tokenizer, dialect_named("hermes"), vision=vision)
    defaults: dict[str, Any] = {
        "steps": 1,
        "tasks_per_step": 2,
        "group_size": 4,
        "micro_batch_size": 2,
        "lr": 0.1,
        "params": SamplingParams(max_tokens=24),
        "limits": Limits(max_turns=3),
        "trl": {"bf16": False, "optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant"},
    }
    trainer = make_trainer(
        GRPO(**{**defaults, **settings}),
        model=model,
        tokenizer=tokenizer,
        taskset=taskset,
        make_sampler=lambda _: TokenSampler(renderer, (engine or Plays)(renderer)),
        out=out,
        seed=1,
        vision=vision,
    )
    return trainer, vision


def by_hand(family: str, out: Path, vision: Vision) -> dict[str, torch.Tensor]:
    """Weights after a step of gradient descent on -sum(advantage x log-prob) / tokens, of the episodes that count."""
    model, _ = load_model(str(vlm_folder(family)))
    worth = {
        (line["task"], line["sample"]): line["advantage"]
        for line in map(json.loads, (out / "advantages.jsonl").read_text().splitlines())
        if line["trained"]
    }
    tokens, total = 0, torch.zeros(())
    for episode in read_log(out / "trajectories.jsonl"):
        if (episode.task.id, episode.sample) in worth:
            (row,) = episode.sequences()
            logps = plain_logps(model, vision, row)
            total = total - worth[episode.task.id, episode.sample] * logps.sum()
            tokens += len(logps)
    (total / tokens).backward()
    return {
        name: weight.detach() - 0.1 * weight.grad if weight.grad is not None else weight.detach()
        for name, weight in model.named_parameters()
    }


@pytest.mark.parametrize("family", ALL)
def test_a_step_has_the_gradient_of_the_models_own_inputs(family: str, tmp_path: Path) -> None:
    """Through TRL's shuffle and split, buckets, padding, trimming, and features instead of pixels."""
    trainer, vision = trainer_on(family, world(), tmp_path)
    trainer.train()
    trainer.close()
    expected = by_hand(family, tmp_path, vision)
    moved = 0.0
    before = dict(loaded(family)[0].named_parameters())
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(
            weight.detach(), expected[name], rtol=1e-3, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
        moved += float((weight.detach() - before[name].detach()).abs().sum())
    assert moved > 1e-3


@pytest.mark.parametrize("what", ["unreadable", "cut", "written by the model"])
def test_one_broken_sample_is_dropped_with_its_reason_and_the_others_gradients_stay(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taskset = world()
    trainer, vision = trainer_on("idefics3", taskset, tmp_path)
    play = trainer.rollouts.run

    def one_broken(step: int, planned: Any) -> list[Trajectory]:
        played = play(step, planned)
        tokens = played[1].steps[1].tokens
        assert tokens is not None
        if what == "unreadable":
            broken = replace(tokens, images=(replace(tokens.images[0], sha256="0" * 64),))
        elif what == "cut":
            at = tokens.images[0].position
            spans = (replace(tokens.spans[0], end=tokens.spans[0].end - 1), *tokens.spans[1:])
            spans = tuple(replace(s, start=s.start - (i > 0), end=s.end - (i > 0)) for i, s in enumerate(spans))
            broken = replace(tokens, added=tokens.added[:at] + tokens.added[at + 1 :], spans=spans)
        else:
            broken = replace(tokens, completion=(vision.placeholder, *tokens.completion[1:]))
        played[1].steps[1] = replace(played[1].steps[1], tokens=broken)
        return played

    trainer.rollouts.run = one_broken
    trainer.train()
    trainer.close()
    said = {"unreadable": "cannot be read", "cut": "16 features and 15 placeholders", "written": "model wrote the one"}
    assert "sample 1 is left out: row 0:" in caplog.text and said[what.split()[0]] in caplog.text
    expected = by_hand("idefics3", tmp_path, vision)
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(weight.detach(), expected[name], rtol=1e-3, atol=2e-6)


def image(name: str, position: int) -> PlacedImage:
    return PlacedImage(sha256=name * 64, shown_size=(8, 8), position=position)


def sequence(length: int, trained: int, *images: PlacedImage) -> TokenSequence:
    mask = tuple(int(length - trained - 1 <= at < length - 1) for at in range(length))
    return TokenSequence(
        token_ids=tuple(range(1, length + 1)),
        loss_mask=mask,
        sources=tuple("model" if on else "env" for on in mask),
        logprobs=tuple(-1.0 * on for on in mask),
        images=images,
    )


def test_pictures_move_with_their_rows_through_padding_buckets_and_trimming() -> None:
    made = [
        sequence(9, 2, image("a", 1), image("b", 4)),
        sequence(5, 1),
        sequence(7, 3, image("c", 2)),
        sequence(6, 2, image("d", 0), image("e", 5)),  # the last one stands behind all that is trained
    ]
    rows = [row for index, one in enumerate(made) for row in rows_of([one], episode=index, advantage=1.0)]
    whole = collate(rows, size=6, pad_id=0)
    names = {tuple(row.prompt + row.completion): [picture.sha256[0] for picture in row.pictures] for row in rows}
    assert sorted(names.values()) == [[], ["a", "b"], ["c"], ["d"]]
    halves = [{key: value[start : start + 3] for key, value in whole.items()} for start in (0, 3)]
    for part in [trimmed(part) for part in bucketed(halves, 2)]:
        ids = torch.cat([part["prompt_ids"], part["completion_ids"]], dim=1)
        attention = torch.cat([part["prompt_mask"], part["completion_mask"]], dim=1).bool()
        for row, pictures in enumerate(part["pictures"]):
            key = tuple(ids[row][attention[row]].tolist())
            assert [picture.sha256[0] for picture in pictures] == names.get(key, [])


def test_a_batch_without_pictures_carries_none() -> None:
    rows = rows_of([sequence(5, 1)], episode=0, advantage=1.0)
    assert "pictures" not in collate(rows, size=2, pad_id=0)


# SFT.


def gold_log(path: Path, taskset: Taskset) -> Path:
    """Gold episodes of the taskset, as they are collected."""
    log = TrajectoryLog(path, taskset.blobs)

    async def play() -> None:
        for task in taskset.tasks:
            log.append(await rollout(taskset.env(task), ScriptedSampler(), rubric=taskset.rubric))

    asyncio.run(play())
    log.close()
    return path


def stage_run(stage: Any, folder: Path, start: str) -> StageRun:
    folder.mkdir(parents=True)
    recipe = Recipe(name="sees", model=start, taskset=WORLD, stages=(stage,))
    return StageRun(recipe=recipe, folder=folder, start=start, dialect="hermes", seed=0)


def test_sft_on_pictures_has_exact_labels_and_the_loss_of_the_models_own_inputs(tmp_path: Path) -> None:
    from training.sft import RowTrainer, config, dataset_of, row_of
    from training.sft import rows_of as sft_rows

    log = gold_log(tmp_path / "gold.jsonl", world(3))
    model, tokenizer = loaded("idefics3")
    vision = eyes("idefics3", BlobStore(tmp_path / "blobs"))
    renderer = Renderer(tokenizer, dialect_named("hermes"), vision=vision)
    episodes = list(read_log(log))
    rows, _ = sft_rows(episodes, renderer)
    for row, episode in zip(rows, episodes, strict=True):
        labelled = [token for token in row.labels if token != IGNORED]
        said = [(*renderer.written(renderer.dialect.write(step.action)), 2) for step in episode.steps]
        assert labelled == [token for ids in said for token in ids]
        shown = [part for message in episode.messages for part in message.content if isinstance(part, Image)]
        assert [picture.sha256 for picture in row.pictures] == [part.sha256 for part in shown]
    stage = SFT(data=str(log), steps=1, batch_size=3, trl={"bf16": False})
    settings = config(stage, tmp_path / "out", seed=0)
    trainer = RowTrainer(
        model=model, args=settings, train_dataset=dataset_of(rows), processing_class=tokenizer, vision=vision
    )
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        sums = [-plain_logps(model.eval(), vision, one).sum() for e in episodes for one in renderer.teach(e)]
        trained = sum(label != IGNORED for row in rows for label in row.labels[1:])
        ours = trainer.compute_loss(model, dict(batch)).item()
        theirs = super(RowTrainer, trainer).compute_loss(model, dict(batch)).item()
    assert ours == pytest.approx(float(sum(sums)) / trained, rel=1e-4)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert row_of(renderer.teach(episodes[0])[0]) == rows[0]


def test_a_row_with_an_unreadable_picture_is_left_out_of_sft_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from training.sft import rows_of as sft_rows

    log = gold_log(tmp_path / "gold.jsonl", world(3))
    episodes = list(read_log(log))
    lost = episodes[1].calls[0].result.content[0].sha256  # type: ignore[union-attr]
    (tmp_path / "blobs" / f"{lost}.png").write_bytes(b"not a picture any more")
    vision = eyes("idefics3", BlobStore(tmp_path / "blobs"))
    rows, _ = sft_rows(episodes, Renderer(loaded("idefics3")[1], dialect_named("hermes"), vision=vision))
    assert len(rows) == 2
    assert f"task two-1 is left out: image 1 ({lost[:12]}) cannot be read" in caplog.text


def test_lora_with_frozen_vision_trains_the_language_model_alone_and_leaves_a_model_that_sees(tmp_path: Path) -> None:
    taskset = world(4)
    log = gold_log(tmp_path / "gold.jsonl", taskset)
    start = str(vlm_folder("idefics3"))
    stage = SFT(
        data=str(log), steps=2, batch_size=2, warmup=0, lr=1e-2, lora={"r": 2}, freeze_vision=True, trl={"bf16": False}
    )
    run = stage_run(stage, tmp_path / "sft", start)
    sft(stage, run, log)
    before, after = dict(loaded("idefics3")[0].named_parameters()), load_model(str(run.folder / "model"))[0]
    changed = {name for name, weight in after.named_parameters() if not torch.equal(weight, before[name])}
    assert changed and all("text_model" in name for name in changed)
    tokenizer = loaded("idefics3")[1]
    vision = vision_of(str(run.folder / "model"), tokenizer, taskset.blobs)
    engine = TransformersEngine(after, tokenizer, vision=vision)
    sampler = TokenSampler(Renderer(tokenizer, dialect_named("hermes"), vision=vision), engine)
    task = taskset.tasks[0]
    episode = asyncio.run(rollout(taskset.env(task), sampler, SamplingParams(max_tokens=4)))
    assert episode.error is None and episode.sampled_tokens


def test_grpo_with_frozen_vision_moves_no_eye_and_encodes_each_picture_once(tmp_path: Path) -> None:
    taskset = world()
    trainer, _ = trainer_on("idefics3", taskset, tmp_path, freeze_vision=True, steps=2)
    calls: list[int] = []
    trainer.model.model.vision_model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    trainer.train()
    trainer.close()
    before = dict(loaded("idefics3")[0].named_parameters())
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(weight, before[name]) == ("vision_model" in name or "connector" in name)
    shown = {p.sha256 for t in read_log(tmp_path / "trajectories.jsonl") for p in t.sequences()[0].images}
    assert 0 < sum(calls) <= len(shown)  # groups whose attempts all did alike are not computed at all


def test_the_stage_runs_from_a_spec_and_leaves_a_folder_that_sees(tmp_path: Path) -> None:
    """`training grpo`, front door: the model samples for itself, untrained, and what it leaves can be loaded."""
    start = str(vlm_folder("idefics3"))
    stage = GRPO(
        steps=1,
        tasks_per_step=1,
        group_size=2,
        params=SamplingParams(max_tokens=6),
        limits=Limits(max_turns=2),
        taskset_args={"n": 2},
        trl={"bf16": False},
    )
    run = stage_run(stage, tmp_path / "grpo", start)
    grpo(stage, run)
    folder = run.folder / "model"
    assert (folder / "preprocessor_config.json").is_file()
    assert vision_of(str(folder), load_model(str(folder))[1]) is not None
    logged = list(read_log(run.folder / "trajectories.jsonl"))
    assert len(logged) == 2 and all(t.sequences()[0].images for t in logged)
