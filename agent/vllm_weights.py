"""Model folders as vLLM can load them again and again.

Many models share one matrix between the input embedding and the output layer, and their files hold it once. On a CPU,
vLLM packs the output layer into a copy of its own when it starts, and reloading weights does not reach that copy: the
new network would go on with the old output layer, without an error. Folders written here hold both matrices and say
that they are not shared, so that both are loaded.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tools.errors import ConfigError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
INPUT, OUTPUT = "embed_tokens.weight", "lm_head.weight"
SHARED = "tie_word_embeddings"


def shares_output(folder: str | Path) -> bool:
    """Whether the model in `folder` shares its embedding with its output layer; False where the folder is not here."""
    config = Path(folder) / CONFIG
    return config.is_file() and bool(_read(config).get(SHARED))


def save_weights(model: Any, folder: str | Path) -> None:
    """Write a transformers model's weights and config into a new `folder`, for `VLLMEngine.refresh`.

    An adapter must be merged into it first. The folder appears under its name when it is whole. Raises `ConfigError`
    when there is one already: a server may be reading it.
    """
    from safetensors.torch import save_file

    target = Path(folder)
    if target.exists():
        raise ConfigError(f"{target} exists already", hint="give each version of the weights a folder of its own")
    unfinished = _unfinished(target)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(weights, unfinished / WEIGHTS, metadata={"format": "pt"})
    _write(unfinished / CONFIG, _said(model.config.to_dict(), OUTPUT not in weights))
    unfinished.rename(target)


def with_own_output(source: str | Path, folder: str | Path) -> Path:
    """Make `folder`, a copy of the model folder `source` in which the output layer stands by itself."""
    from safetensors.torch import load_file, save_file

    origin, target = Path(source), Path(folder)
    unfinished = _unfinished(target)
    shutil.copytree(origin, unfinished, dirs_exist_ok=True)
    index = _read(origin / INDEX) if (origin / INDEX).is_file() else None
    names = index["weight_map"] if index else dict.fromkeys(load_file(origin / WEIGHTS), WEIGHTS)
    embedding = next((name for name in names if name.endswith(INPUT)), None)
    if embedding is None:
        raise ConfigError(f"the model in {origin} has no {INPUT}, so its output layer cannot be written out")
    shard = unfinished / names[embedding]
    weights = load_file(shard)
    shard.unlink()  # the copy may be a link into a shared cache
    save_file({**weights, OUTPUT: weights[embedding].clone()}, shard, metadata={"format": "pt"})
    if index:
        names[OUTPUT] = names[embedding]
        _write(unfinished / INDEX, index)
    _write(unfinished / CONFIG, _said(_read(origin / CONFIG), False))
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    return target


def _said(config: dict[str, Any], shared: bool) -> dict[str, Any]:
    """A model's config with whether it shares; one that sees says it of its language model too."""
    text = config.get("text_config")
    inner = {"text_config": {**text, SHARED: shared}} if isinstance(text, dict) else {}
    return {**config, **inner, SHARED: shared}


def _unfinished(target: Path) -> Path:
    folder = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
