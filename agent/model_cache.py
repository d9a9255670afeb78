"""Model folders this project makes itself, each built once into the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from tools.cache import cache_root
from tools.errors import ConfigError

TEMPLATE = Path(__file__).parent / "templates" / "chatml_hermes.jinja"
"""ChatML with Hermes calls; saved in every folder we make, so that vLLM and TRL render a conversation as we do."""
FACTS = "toolweave.json"
"""What a model folder says about itself: its dialect, where it came from."""


def cached_folder(name: str, recipe: object, build: Callable[[Path], None]) -> Path:
    """The folder `models/NAME-FINGERPRINT` of the cache, built by `build(folder)` the first time.

    `recipe` is all that decides the folder's content, as JSON values: another recipe is another folder, so a newer
    version never reads what an older one built. A folder appears whole or not at all, and processes that want the same
    one wait for the first.
    """
    folder = _place(name, recipe)
    if not _is_whole(folder):
        _write(name, folder, build, anew=False)
    return folder


def kept_folder(name: str, recipe: object, command: str) -> Path:
    """The folder that `keep_folder` left, and that only the user's `command` makes: it takes long.

    Raises `ConfigError` naming the command, and what an older version left.
    """
    folder = _place(name, recipe)
    if not _is_whole(folder):
        older = _others(name, folder)
        found = f"; {older[-1]} is of another version" if older else ""
        raise ConfigError(f"{name} has not been trained on this machine yet{found}", hint=f"first run: {command}")
    return folder


def keep_folder(name: str, recipe: object, source: Path) -> Path:
    """Copy `source` into the cache, whole or not at all, in the place of what was kept before."""
    folder = _place(name, recipe)
    _write(name, folder, lambda partial: shutil.copytree(source, partial, dirs_exist_ok=True) and None, anew=True)
    return folder


def _place(name: str, recipe: object) -> Path:
    fingerprint = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    return cache_root() / "models" / f"{name}-{fingerprint}"


def _write(name: str, folder: Path, build: Callable[[Path], None], *, anew: bool) -> None:
    import filelock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_name(folder.name + ".lock")):
            if anew or not _is_whole(folder):
                if older := _others(name, folder):
                    note(f"{name} is built again for this version; no longer used: {', '.join(map(str, older))}")
                _build(folder, build)
    except OSError as error:
        raise ConfigError(
            f"the model {name} cannot be written to {folder.parent}: {error.strerror or error}",
            hint="set TOOLWEAVE_CACHE to a folder with 1 GB free",
        ) from error


def note(text: str) -> None:
    """One line for the person at the terminal; stdout stays for data."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def no_progress_bars() -> Generator[None]:
    """Without the bars transformers draws for work of a second."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a model folder; empty where it has none. Raises `ConfigError` where they cannot be read."""
    path = folder / FACTS
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}", hint="correct it or delete it") from error
    if not isinstance(facts, dict):
        raise ConfigError(f"{path} holds {type(facts).__name__}, not an object", hint="correct it or delete it")
    return facts  # pyright: ignore[reportUnknownVariableType]


def write_facts(folder: Path, **facts: Any) -> None:
    """Add to the facts of a model folder."""
    path = folder / FACTS
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps({**read_facts(folder), **facts}, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a fast tokenizer so that it loads unchanged elsewhere.

    The class is named `PreTrainedTokenizerFast`: transformers 4 knows no `TokenizersBackend`, and under a model's own
    class name transformers 5 rebuilds the pre-tokenizer in silence.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only", "backend"):
        settings.pop(key, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    return (folder / FACTS).is_file() and (folder / "config.json").is_file()


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    """Build beside `folder`, then rename, so that what was there stays where that fails. The caller holds the lock."""
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():  # a killed process left it
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        build(partial)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _others(name: str, folder: Path) -> list[Path]:
    """What other versions left under the same name."""
    return [found for found in sorted(folder.parent.glob(f"{name}-????????")) if found != folder and found.is_dir()]
