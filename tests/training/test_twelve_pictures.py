"""An episode of many pictures through three doors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from vlm_families import vlm_folder

from agent import Limits, ScriptedSampler, rollout
from agent.dialects import dialect_named
from agent.engine import Generated, Request
from agent.models import load_model
from agent.renderer import Renderer
from agent.token_sampler import TokenSampler
from agent.vision import vision_of
from envs import Rubric, Task, Taskset, ToolEnv, Trajectory, assistant, user
from envs.log import read_log
from evals import evaluate
from tools import ToolCall
from tools.content import BlobStore, Image
from tools.image import Gallery, ImageBudget, image_tools
from training.batch import rows_of


def test_twelve_pictures_from_four_tools_are_the_same_in_an_evaluation_in_sft_and_in_grpo(tmp_path: Path) -> None:
    """Hashes, order and tokens: the log of an evaluation, taught, is what sampling the same words would train on."""
    blobs = BlobStore()
    photo = blobs.put_image(Pillow.radial_gradient("L").resize((300, 200)).crop((20, 40, 300, 200)).convert("RGB"))
    used = ("image_zoom_in_tool", "image_rotate_tool", "image_flip_tool", "object_mapper")
    asked: dict[str, dict[str, Any]] = {
        "image_zoom_in_tool": {"bbox_2d": [10, 20, 90, 80]},
        "image_rotate_tool": {"angle": 90},
        "image_flip_tool": {"direction": "horizontal"},
        "object_mapper": {"items": [{"bbox_2d": [5, 5, 40, 40], "label": "it", "index": 1}]},
    }
    gallery = Gallery(blobs, ImageBudget(max_pixels=128 * 128))
    schemas = {tool.name: tool.parameters["properties"] for tool in image_tools(gallery, *used)}
    calls = [
        ToolCall(
            id=f"{turn}-{name}",
            name=name,
            raw="",
            arguments={k: v for k, v in asked[name].items() if k in schemas[name]},
        )
        for turn in range(3)
        for name in used
    ]
    gold = (*(assistant(tool_calls=[call]) for call in calls), assistant("Answer: 12"))
    task = Task(id="many", prompt=(user(photo, "Look."),), gold=gold)

    def env(_: Task) -> ToolEnv:
        own = Gallery(blobs, ImageBudget(max_pixels=128 * 128))
        return ToolEnv(task=task, tools=image_tools(own, *used), gallery=own)

    async def done(env: Any, trajectory: Trajectory) -> float:
        return float(trajectory.answer == "Answer: 12")

    taskset = Taskset(name="many", tasks=[task], env=env, rubric=Rubric(rewards={"done": (done, 1.0)}), blobs=blobs)
    result = evaluate(taskset, ScriptedSampler(), out=tmp_path / "eval", progress=False, report_episodes=0)
    assert result.accuracy == 1.0
    (evaluated,) = read_log(next((tmp_path / "eval").rglob("*.jsonl")))
    model_folder = str(vlm_folder("idefics3"))
    tokenizer = load_model(model_folder)[1]
    vision = vision_of(model_folder, tokenizer, BlobStore(next((tmp_path / "eval").rglob("blobs"))))
    renderer = Renderer(tokenizer, dialect_named("hermes"), vision=vision)
    (taught,) = renderer.teach(evaluated)
    assert len(taught.images) == 13 and len({image.sha256 for image in taught.images}) == 5

    class Repeats:
        max_context = 20_000
        said = iter([renderer.dialect.write(action) for action in gold])  # type: ignore[union-attr]

        async def generate(self, request: Request, on_ids: Any = None) -> Generated:
            ids = (*renderer.written(next(self.said)), 2)
            return Generated(token_ids=ids, logprobs=(-0.5,) * len(ids), finish="stop")

    sampled = asyncio.run(rollout(env(task), TokenSampler(renderer, Repeats()), limits=Limits(max_turns=None)))
    (row,) = rows_of(sampled.sequences(), episode=0, advantage=1.0)
    assert (*row.prompt, *row.completion) == taught.token_ids
    assert row.pictures == taught.images
    assert [image.sha256 for image in row.pictures] == [
        part.sha256 for message in evaluated.messages for part in message.content if isinstance(part, Image)
    ]
