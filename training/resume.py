"""Going on from what an earlier, interrupted training left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.errors import ConfigError
from training.files import last_checkpoint, read_json
from training.lora import check_adapter

_SIZES = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


def checkpoint_for(folder: Path, model: Any) -> Path | None:
    """The checkpoint in `folder` to go on from with `model`, if there is one. Raises `ConfigError` for another's."""
    checkpoint = last_checkpoint(folder)
    if checkpoint is not None:
        check_checkpoint(checkpoint, model)
    return checkpoint


def check_checkpoint(checkpoint: Path, model: Any) -> None:
    """Refuse to resume from what another model left: its shape differs, or its adapters are for other weights."""
    check_adapter(checkpoint, model)
    stored = read_json(checkpoint / "config.json")
    if stored is None:  # adapters' checkpoints hold the adapters alone
        return
    mine = _shape(model.config.to_dict())
    for name, there in _shape(stored).items():
        here = mine.get(name, there)
        if here != there:
            raise ConfigError(
                f"{checkpoint} is of another model: its {name} is {there}, this one's is {here}",
                hint="give another folder, or start over",
            )


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that a config states, those of its language model and its eyes with a prefix."""
    parts = {part: config[part] for part in ("text_config", "vision_config") if part in config}
    named = {"": config, **{f"{name}.": part for name, part in parts.items()}}
    return {
        f"{prefix}{name}": part[name] for prefix, part in named.items() for name in _SIZES if part.get(name) is not None
    }
