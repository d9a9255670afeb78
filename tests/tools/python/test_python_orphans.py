"""A manager that is killed takes all of its sandboxes with it, and all that their code has started."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.python.isolation import Tier, obstacle_to
from tools.python.usage import tree

MANAGER = """
import asyncio, sys
from tools.python.session import SessionLimits
from tools.python.zygote import ZygoteSession

async def main():
    session = ZygoteSession(SessionLimits(timeout_s=600), tier=sys.argv[1], profile="bare")
    await session.start()
    print((await session.execute(sys.argv[2])).text, flush=True)
    await session.execute("while True: pass")

asyncio.run(main())
"""
STARTS_OTHERS = """
import os, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        os.fork()
        while True: time.sleep(0.01)
print('started')
"""


@pytest.mark.parametrize("tier", ["full", "landlock", "none"])
def test_a_killed_manager_leaves_no_process(tier: Tier) -> None:
    if obstacle := obstacle_to(tier):
        pytest.skip(f"tier {tier} was not tested: {obstacle.reason}; {obstacle.hint}")
    command = [sys.executable, "-c", MANAGER, tier, STARTS_OTHERS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as manager:
        try:
            assert manager.stdout is not None and manager.stdout.readline() == "started\n"
            beneath = [(pid, _begun(pid)) for pid in tree(manager.pid)[1:]]
        finally:
            manager.send_signal(signal.SIGKILL)
    assert len(beneath) >= 4, "the zygote, the session, and at least the two that it started"
    deadline = time.monotonic() + 120
    while left := [pid for pid, begun in beneath if begun is not None and _begun(pid) == begun]:
        assert time.monotonic() < deadline, f"{len(left)} of {len(beneath)} processes live on"
        time.sleep(0.05)


def _begun(pid: int) -> str | None:
    """When a process began; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return fields[19] if fields[0] != "Z" else None
