"""Going on from what an earlier, interrupted training left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.adapters import base_of
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


def without_tied(load_result: Any, model: Any) -> Any:
    """What loading a checkpoint found missing, without weights that are tied to others: it holds those once, and
    transformers would warn of them whenever training goes on.
    """
    missing = [name for name in load_result.missing_keys if name not in model.all_tied_weights_keys]
    return load_result._replace(missing_keys=missing)


def remember_base(spec: str, file: Path) -> None:
    """Write to `file` what the weights are that a run begins from."""
    write_json(file, {"model": spec, "weights": _weights(spec)})


def hold_to_base(spec: str, file: Path) -> None:
    """Raise `ConfigError` where the weights of `spec` are others than those that `remember_base` wrote to `file`.

    A folder's weights can be trained anew between an interruption and the run's continuation, `tiny_vlm` among them.
    Nothing is said where there is no such file, as in runs of before there was one.
    """
    stored: dict[str, dict[str, str]] = read_json(file) or {}
    if "weights" not in stored:
        return
    before = stored["weights"]
    now = _weights(spec)
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        raise ConfigError(
            f"{file.parent} began from other weights of {spec}: {changed[0]} in {model_folder(spec)} is not the same",
            hint="put back the model it began with to continue it, give another --out, or --fresh to start over",
        )


def _weights(spec: str) -> dict[str, str]:
    """A mark of each file of weights in the folder that `spec` names, those that adapters are for with them; none of a
    hub id, whose files are not here.
    """
    folder = Path(model_folder(spec))
    files = [*folder.glob("*.safetensors"), *folder.glob("*model*.bin")] if folder.is_dir() else []
    base = base_of(folder)
    behind = {} if base is None else {f"base/{name}": mark for name, mark in _weights(base).items()}
    return {**behind, **{path.name: _mark(path) for path in sorted(files)}}


def _mark(path: Path) -> str:
    """Of a file's size and of pieces all over it, the first and the last bytes among them: which numbers training
    changes depends on what is frozen, and 15 GB take a while to read whole.
    """
    size = path.stat().st_size
    mark = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for piece in range(_PIECES):
            file.seek(max(0, size - _PIECE) * piece // (_PIECES - 1))
            mark.update(file.read(_PIECE))
    return mark.hexdigest()[:16]


_PIECES, _PIECE = 256, 1 << 14


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that a config states, those of its language model and its eyes with a prefix."""
    parts = {part: config[part] for part in ("text_config", "vision_config") if part in config}
    named = {"": config, **{f"{name}.": part for name, part in parts.items()}}
    return {
        f"{prefix}{name}": part[name] for prefix, part in named.items() for name in _SIZES if part.get(name) is not None
    }
