"""What tests of sandboxes share: a tier that is not to be had is reported as not tested; what folders sessions left."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tools.python.isolation import Tier, obstacle_to


def needs(tier: Tier) -> None:
    """Skip the test, with the reason, where this machine has no such tier."""
    if obstacle := obstacle_to(tier):
        pytest.skip(f"tier {tier} was not tested: {obstacle.reason}; {obstacle.hint}")


def folders_of(pid: int) -> list[Path]:
    """The working directories of the sessions that process `pid` started."""
    return list(Path(tempfile.gettempdir()).glob(f"toolweave-py-*-{pid}-*"))
