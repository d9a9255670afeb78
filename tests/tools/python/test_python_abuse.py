"""The abuse list, in every isolation tier of this machine, as an unprivileged user and (where tests run so) as root."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from abuse_attempts import ATTEMPTS
from sandboxes import needs

from tools.python.isolation import Tier, as_unprivileged, python_paths

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

User = Literal["root", "unprivileged"]


@functools.cache
def results(tier: Tier, user: User) -> dict[str, bool]:
    """The whole list, once per tier and user, in a process of its own."""
    command = [sys.executable, str(HERE / "abuse.py"), tier]
    if user == "unprivileged" and os.getuid() == 0:
        command = as_unprivileged(command, [*python_paths(), str(Path(sys.executable).parent), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("attempt", [*ATTEMPTS, "disturb a sibling", "leave a folder behind"])
@pytest.mark.parametrize("user", ["unprivileged", "root"])
@pytest.mark.parametrize("tier", ["full", "landlock"])
def test_an_attempt_to_get_out_fails(tier: Tier, user: User, attempt: str) -> None:
    needs(tier)
    if user == "root" and os.getuid() != 0:
        pytest.skip("not running as root")
    assert results(tier, user)[attempt] is False


def test_the_attempts_are_real_most_of_them_work_without_isolation() -> None:
    needs("none")
    worked = results("none", "unprivileged")
    assert sum(worked.values()) >= 22, {name for name, value in worked.items() if not value}
