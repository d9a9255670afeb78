"""Trackers that a stage reports to: TRL's own setting, looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tools.errors import ConfigError, nearest


def check_trackers(named: str | Sequence[str] | None, stage: str) -> None:
    """Raise `ConfigError` for a tracker in `trl.report_to` that transformers does not know or that is not installed."""
    if named in (None, "none", "all"):
        return
    from transformers.integrations import integration_utils

    trackers: Any = integration_utils
    known, installed = trackers.INTEGRATION_TO_CALLBACK, trackers.get_available_reporting_integrations()
    for name in [named] if isinstance(named, str) else named:
        if name not in known:
            raise ConfigError(f"{stage}.trl.report_to has {name!r}, which is no tracker", hint=nearest(name, known))
        if name not in installed and name != "flyte":  # which transformers does not look for
            raise ConfigError(f"{stage}.trl.report_to is {name}, which is not installed", hint="install its package")
