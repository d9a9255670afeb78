"""Folders of LoRA adapters, as PEFT writes them: loaded, they are the model they were trained on, changed by them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tools.errors import ConfigError

CONFIG = "adapter_config.json"


def base_of(folder: str | Path) -> str | None:
    """The model that the adapters in `folder` were trained on, as they say; None where it holds none.

    Raises `ConfigError` where they do not say it, or where it is a path at which there is nothing.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        return None
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is no JSON object", hint="is the folder complete?") from error
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"{path} does not say which model its adapters are for", hint="set base_model_name_or_path in it"
        )
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise ConfigError(
            f"the adapters in {folder} are for {base}, which is not there any more",
            hint=f"set base_model_name_or_path in {CONFIG} to where it is now",
        )
    return base


def with_adapters(model: Any, folder: str | Path) -> Any:
    """`model` with the adapters of `folder` added into its weights, which changes it."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ConfigError(
            f"{folder} holds LoRA adapters, and they need {error.name}, which is not installed",
            hint="pip install 'toolweave[train]'",
        ) from error
    with without_peft_warnings():
        adapted: Any = PeftModel.from_pretrained(model, folder)
    return adapted.merge_and_unload()


@contextlib.contextmanager
def without_peft_warnings() -> Generator[None]:
    """PEFT reads a property of models that transformers has renamed; the user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
