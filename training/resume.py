"""Going on from what an earlier, interrupted training left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.models import model_folder
from tools.errors import ConfigError
from training.files import last_checkpoint, read_json, write_json
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


def hold_to_base(spec: str, file: Path) -> None:
    """Write to `file` what the weights of a run's base are; later, raise `ConfigError` where they are others.

    A folder's weights can be trained anew between an interruption and the run's continuation, `tiny_vlm` among them.
    """
    found = {"model": spec, "files": _weights(spec)}
    stored = read_json(file)
    if stored is None:
        write_json(file, found)
        return
    changed = [name for name, mark in stored["files"].items() if found["files"].get(name) != mark]
    if changed:
        raise ConfigError(
            f"{file.parent} began from other weights of {spec}: {changed[0]} in {model_folder(spec)} is not the same",
            hint="put back the model it began with to continue it, give another --out, or --fresh to start over",
        )


def _weights(spec: str) -> dict[str, str]:
    """A mark of each file of weights in the folder that `spec` names; none of a hub id, whose files are not here.

    Of its size, its first and its last megabyte: trained on, all numbers change, and 15 GB take a while to read.
    """
    folder = Path(model_folder(spec))
    marks: dict[str, str] = {}
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]) if folder.is_dir() else []:
        size = path.stat().st_size
        with path.open("rb") as file:
            ends = file.read(_ENDS)
            file.seek(max(size - _ENDS, 0))
            marks[path.name] = hashlib.sha256(str(size).encode() + ends + file.read()).hexdigest()[:16]
    return marks


_ENDS = 1 << 20


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that a config states, those of its language model and its eyes with a prefix."""
    parts = {part: config[part] for part in ("text_config", "vision_config") if part in config}
    named = {"": config, **{f"{name}.": part for name, part in parts.items()}}
    return {
        f"{prefix}{name}": part[name] for prefix, part in named.items() for name in _SIZES if part.get(name) is not None
    }
