"""LoRA (arXiv 2106.09685): train small adapters, then merge them: what a stage leaves is a plain model folder."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
