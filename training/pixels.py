"""Where training meets pictures: rows carry references, and a picture becomes features where its row meets the model.

A batch holds, for each row, which pictures stand where. That survives every shuffle, split and cut that TRL makes of a
batch, costs nothing to copy, and lets a picture that many rows share be computed once per forward pass; with frozen
towers, once per run. See docs/design/007-pictures-are-references.md.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any

from agent.renderer import Renderer
from agent.vision import Vision, vision_of
from envs.log import blobs_beside
from envs.task import Taskset
from envs.trajectory import PlacedImage
from tools.errors import ConfigError
from training.audit import Sight
from training.lora import lora_config
from training.recipe import GRPO, SFT, StageRun


def eyes_of(run: StageRun, taskset: Taskset, tokenizer: Any) -> Vision | None:
    """The eyes of the model that a stage starts from. They find the taskset's pictures, and those that an interrupted
    step has logged."""
    vision = vision_of(run.start, tokenizer, taskset.blobs)
    if vision is not None:
        vision.look_in(blobs_beside(run.folder / "trajectories.jsonl"))
    return vision


def sight_of(renderer: Renderer) -> Sight | None:
    """What the audit has to know of a renderer's eyes; None where it has none."""
    vision = renderer.vision
    if vision is None:
        return None

    def block(size: tuple[int, int]) -> tuple[int, ...]:
        ids = vision.ids(size)
        places = [at for at, number in enumerate(ids) if number == vision.placeholder]
        return ids[places[0] : places[-1] + 1]

    return Sight(placeholder=vision.placeholder, block=block, unreadable=vision.problem)


def show_pictures(model: Any, vision: Vision) -> None:
    """Make `model`, which has an LM head and is not wrapped, take `pictures`: those of each row of its ids, in order.

    They become features within its forward pass, so that whoever wraps it (PEFT, DDP, autocast) sees their gradients.
    """
    forward = model.forward

    @functools.wraps(type(model).forward)
    def seeing(self: Any, *args: Any, pictures: Sequence[Sequence[PlacedImage]] | None = None, **inputs: Any) -> Any:
        if pictures is not None:
            inputs |= vision.inputs(self, pictures, inputs["input_ids"])
        return forward(*args, **inputs)

    model.forward = types.MethodType(seeing, model)


def prepare(model: Any, vision: Vision | None, stage: SFT | GRPO) -> None:
    """With `freeze_vision`, train the language model alone: all that turns pixels into features, projector included,
    stays as it is. The features of a picture are then the same for a whole run, and each is computed once.

    Raises `ConfigError` for a model without eyes.
    """
    if not stage.freeze_vision:
        return
    if vision is None:
        raise ConfigError(f"{stage.name}.freeze_vision is set, and the model reads text only", hint="leave it out")
    for parameter in vision.parameters(model):
        parameter.requires_grad_(False)


def lora_of(stage: SFT | GRPO, vision: Vision | None) -> Any:
    """PEFT's config of a stage's `lora`, None without; with `freeze_vision` it leaves the towers out."""
    lora = stage.lora
    if lora is not None and vision is not None and stage.freeze_vision and "exclude_modules" not in lora:
        lora = {**lora, "exclude_modules": rf"(.*\.)?({'|'.join(vision.eyes.towers)})\..*"}
    return lora_config(lora, stage.name)
