"""A model folder that stands by itself, from a stage, a checkpoint or LoRA adapters."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import shutil
from pathlib import Path

from agent.adapters import CONFIG as ADAPTERS
from tools.errors import ConfigError
from training.files import MODEL, last_checkpoint, publish, read_json


def export(source: Path, target: Path) -> Path:
    """Write the model of `source` to `target`, which must not exist; returns `target`.

    A stage's `model`, where it has one, is copied; a checkpoint is loaded and saved, its adapters merged into the model
    they were trained on. Raises `ConfigError` where there is nothing to export.
    """
    if target.exists():
        raise ConfigError(f"{target} exists", hint="give the path of a new folder")
    found = next((path for path in (source / MODEL, last_checkpoint(source), source) if path and _is_model(path)), None)
    if found is None:
        raise ConfigError(f"{source} holds no model, no checkpoint and no adapters")
    target.parent.mkdir(parents=True, exist_ok=True)
    if found.name == MODEL and not (found / ADAPTERS).exists():
        publish(target, lambda folder: shutil.copytree(found, folder, dirs_exist_ok=True))
        return target
    from agent.models import dialect_of, load_model
    from training.sft import save_model

    model, tokenizer = load_model(str(found))
    dialect = _dialect_of_run(found) or dialect_of(str(found)) or "hermes"
    publish(target, lambda folder: save_model(model, tokenizer, dialect, folder))
    return target


def _is_model(path: Path) -> bool:
    return (path / "config.json").exists() or (path / ADAPTERS).exists()


def _dialect_of_run(path: Path) -> str | None:
    """The dialect that the run around `path` was told to use."""
    for folder in path.absolute().parents[:3]:
        recipe = read_json(folder / "recipe.json")
        if recipe is not None:
            return recipe.get("dialect")
    return None
