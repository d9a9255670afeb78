"""An episode of many pictures through four doors."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import twelve_pictures as world

from agent import Limits, ScriptedSampler
from agent.__main__ import main as agent_command
from agent.dialects import dialect_named
from agent.engine import Generated, Request
from agent.models import load_model
from agent.renderer import Renderer
from agent.sampler import SamplingParams
from agent.tiny_vlm import Shape, tiny_vlm
from agent.token_sampler import TokenSampler
from agent.vision import vision_of
from envs import Trajectory, assistant
from envs.find import find_taskset
from envs.log import blobs_beside, read_log
from evals import evaluate
from tools.content import BlobStore, Image
from training.grpo import make_trainer
from training.recipe import GRPO
from training.sft import rows_of

WORLD = f"{world.__file__}:twelve_pictures"


def hashes(episode: Trajectory) -> list[str]:
    return [part.sha256 for message in episode.messages for part in message.content if isinstance(part, Image)]


def loaded(folder: str, blobs: BlobStore | None) -> tuple[Any, Renderer]:
    """The model in `folder`, and what writes for it."""
    model, tokenizer = load_model(folder)
    return model, Renderer(tokenizer, dialect_named("hermes"), vision=vision_of(folder, tokenizer, blobs))


class Says:
    """An engine that writes gold, turn by turn; the second of two attempts gives another answer at the end."""

    max_context = 20_000

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.ends = [assistant("Answer: 11"), assistant("Answer: 12")]

    async def generate(self, request: Request, on_ids: Any = None) -> Generated:
        calls = world.twelve_pictures().tasks[0].gold[:-1]
        turn = len(request.images) - 1  # each call brings back one
        action = calls[turn] if turn < len(calls) else self.ends.pop()
        ids = (*self.renderer.written(self.renderer.dialect.write(action)), 2)
        return Generated(token_ids=ids, logprobs=(-0.5,) * len(ids), finish="stop")


def through_grpo(eyes: str, folder: Path) -> list[tuple[list[int], list[str]]]:
    """Tokens and hashes of each row that a step of training takes the loss of."""
    taskset = find_taskset(WORLD)
    model, renderer = loaded(eyes, taskset.blobs)
    settings = GRPO(
        steps=1, tasks_per_step=1, group_size=2, params=SamplingParams(max_tokens=400), limits=Limits(max_turns=None)
    )
    trainer: Any = make_trainer(
        settings,
        model=model,
        tokenizer=renderer.tokenizer,
        taskset=taskset,
        make_sampler=lambda _: TokenSampler(renderer, Says(renderer)),
        out=folder,
        seed=1,
        vision=renderer.vision,
    )
    taken: list[dict[str, Any]] = []
    loss = trainer._compute_loss
    trainer._compute_loss = lambda model, inputs: (taken.append(inputs), loss(model, inputs))[1]
    try:
        trainer.train()
    finally:
        trainer.close()
    rows: list[tuple[list[int], list[str]]] = []
    for batch in taken:
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        real = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1).bool()
        for row, pictures in enumerate(batch["pictures"]):
            rows.append((ids[row][real[row]].tolist(), [picture.sha256 for picture in pictures]))
    return rows


def test_twelve_pictures_of_four_tools_are_the_same_in_the_repl_in_an_evaluation_in_sft_and_in_grpo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hashes, order and tokens: what a person saw and an evaluation logged is, taught, what GRPO trains on."""
    saved = tmp_path / "repl.jsonl"
    monkeypatch.setattr(sys, "argv", ["agent", "--taskset", WORLD, "--model", "gold", "--save", str(saved)])
    assert agent_command() == 0
    on_screen = re.findall(r"\d+x\d+ picture ([0-9a-f]{12})", capsys.readouterr().err)
    (played,) = read_log(saved)
    expected = hashes(played)
    assert len(expected) == len(set(expected)) == 12 and on_screen == [sha[:12] for sha in expected]
    assert {call.call.name for call in played.calls} == set(world.TOOLS)
    assert all(call.outcome == "ok" for call in played.calls)

    evaluate(find_taskset(WORLD), ScriptedSampler(), out=tmp_path / "eval", progress=False)
    kept = tmp_path / "eval" / "samples.jsonl"
    (evaluated,) = read_log(kept)
    assert hashes(evaluated) == expected

    eyes = str(tiny_vlm(tmp_path / "model", shape=Shape(context=4096)))
    by_log = [
        rows_of([episode], loaded(eyes, blobs_beside(log))[1])[0]
        for log, episode in ((saved, played), (kept, evaluated))
    ]
    assert by_log[0] == by_log[1]
    (taught,) = by_log[0]
    assert [picture.sha256 for picture in taught.pictures] == expected

    rows = through_grpo(eyes, tmp_path / "grpo")
    assert [pictures for _, pictures in rows] == [expected] * 2
    assert [ids == list(taught.input_ids) for ids, _ in rows].count(True) == 1, "the other gave another answer"
