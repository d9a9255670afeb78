"""LoRA (arXiv 2106.09685): train small adapters, then merge them: what a stage leaves is a plain model folder."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import dataclasses
import filecmp
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.adapters import base_of
from tools.errors import ConfigError, nearest

ADAPTER = "adapter"
"""Where a stage keeps its adapters by themselves, beside `model`."""

DEFAULTS: Mapping[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
"""Every linear layer but the LM head; the update is W + (lora_alpha / r) B A with A (r, in) and B (out, r)."""


def lora_config(settings: Mapping[str, Any] | None, stage: str) -> Any:
    """PEFT's `LoraConfig` for a stage's `lora` field; None where that is None, and all weights are trained.

    `{}` is `DEFAULTS`. Raises `ConfigError` for fields that PEFT does not know or that do not add up.
    """
    if settings is None:
        return None
    from peft import LoraConfig

    known = [field.name for field in dataclasses.fields(LoraConfig) if field.init]
    for name in settings:
        if name not in known:
            raise ConfigError(f"{stage}.lora has {name!r}, which LoraConfig does not know", hint=nearest(name, known))
    try:
        return LoraConfig(**{**DEFAULTS, **settings})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{stage}.lora does not fit PEFT's LoraConfig: {error}") from error


def merged(model: Any, adapter: Path | None = None) -> Any:
    """`model` with its adapters added into its weights, which changes it; a model without adapters as it is.

    `adapter` is where the adapters by themselves are saved first.
    """
    if not hasattr(model, "peft_config"):
        return model
    if adapter is not None:
        model.save_pretrained(adapter)
    return model.merge_and_unload()


def check_adapter(folder: Path, model: Any) -> None:
    """Refuse adapters that were trained on another model than `model`, which they are about to be put into.

    Nothing is said of a folder that holds none. A base that was copied or moved with its run is the same base.
    """
    base = base_of(folder)
    if base is None:
        return
    misfit = next(_misfits(folder, model), None)
    if misfit is not None:
        problem = f"its adapters are for {base}, and they do not fit this one: {misfit}"
    elif model.name_or_path and _other_weights(Path(base), Path(model.name_or_path)):
        problem = f"its adapters are for {base}, and this one is {model.name_or_path}, whose weights are others"
    else:
        return
    raise ConfigError(f"{folder} is of another model: {problem}", hint="give another folder, or start over")


def _misfits(folder: Path, model: Any) -> Iterator[str]:
    """Layers that the adapters change and `model` lacks, or has in another size. A is (r, in), B is (out, r)."""
    from safetensors import safe_open

    layers: dict[str, Any] = dict(model.named_modules())
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  # no mapping
            name, adapter, side = key.removeprefix("base_model.model.").partition(".lora_")
            if not adapter:
                continue  # a layer that was trained whole beside the adapters
            if name not in layers:
                yield f"it has no {name}"
                continue
            size, axis = ("in_features", 1) if side == "A.weight" else ("out_features", 0)
            mine, theirs = getattr(layers[name], size, None), file.get_slice(key).get_shape()[axis]
            if mine is not None and mine != theirs:
                yield f"{size} of {name} are {theirs} there and {mine} here"


def _other_weights(theirs: Path, mine: Path) -> bool:
    """True where both are folders of models, and their files of weights differ."""
    if not theirs.is_dir() or not mine.is_dir() or theirs.samefile(mine):
        return False
    names = sorted(path.name for path in theirs.glob("*.safetensors"))
    if names != sorted(path.name for path in mine.glob("*.safetensors")):
        return True
    return not all(filecmp.cmp(theirs / name, mine / name, shallow=False) for name in names)
