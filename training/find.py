"""From a name on a command line to a function that makes a recipe or an experiment: built in, or in a file of yours."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.errors import ConfigError, in_one_line, nearest

if TYPE_CHECKING:
    from training.experiment import Experiment
    from training.recipe import Recipe


def find_recipe(name: str) -> Callable[..., Recipe]:
    """The recipe function called `name`: a file in training/recipes, or `path/file.py:function` (`file` if left out).

    Raises `ConfigError` with the nearest names.
    """
    return _function(name, "recipe")


def known_recipes() -> dict[str, str]:
    """Name and first line of every built-in recipe; none is imported."""
    return _known("recipe")


def find_experiment(name: str) -> Experiment:
    """What the function called `name` returns: a file in training/experiments, or `path/file.py:function`.

    Raises `ConfigError` with the nearest names, and for a function that fails or returns something else.
    """
    from training.experiment import Experiment

    try:
        found = _function(name, "experiment")()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"experiment {name} failed: {in_one_line(error)}") from error
    if not isinstance(found, Experiment):
        raise ConfigError(f"experiment {name} returned {type(found).__name__}, not an Experiment")
    return found


def known_experiments() -> dict[str, str]:
    """Name and first line of every built-in experiment; none is imported."""
    return _known("experiment")


def _function(name: str, kind: str) -> Callable[..., Any]:
    where, colon, attribute = name.rpartition(":")
    path = Path(where if colon else name)
    if path.suffix == ".py":
        from envs.find import module_of_file

        module, wanted = module_of_file(path), attribute if colon else path.stem
    elif name in (known := _known(kind)):
        module, wanted = importlib.import_module(f"training.{kind}s.{name}"), name
    elif path.is_dir():
        raise ConfigError(f"{name} is a folder without a readable recipe.json", hint="a run is continued by its folder")
    else:
        raise ConfigError(f"there is no {kind} {name!r}", hint=f"{nearest(name, known)}; or path/file.py:function")
    function = getattr(module, wanted, None)
    if not inspect.isfunction(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigError(f"{name}: there is no function {wanted!r} in it", hint=nearest(wanted, functions))
    return function


def _known(kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted((Path(__file__).parent / f"{kind}s").glob("*.py")):
        if path.stem != "__init__":
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[path.stem] = doc.partition("\n")[0]
    return found
