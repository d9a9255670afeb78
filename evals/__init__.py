"""How good a policy is: runs that resume, errors that are not hidden in scores, pages that show the episodes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evals.evaluation import evaluate
    from evals.result import EvalResult

__all__ = ["EvalResult", "evaluate"]

_HOMES = {"EvalResult": "evals.result", "evaluate": "evals.evaluation"}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: `evals list` and `evals --help` need neither."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
