"""A manager that is killed takes all of its sandboxes with it, and what their code has started; folders are swept."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sandboxes import folders_of, needs

from tools.python.isolation import Tier
from tools.python.usage import tree
from tools.python.workdir import sweep

ROOT = Path(__file__).parents[3]
MANAGER = """
import asyncio, sys
from tools.python.session import SessionLimits
from tools.python.zygote import ZygoteSession

async def main():
    session = ZygoteSession(SessionLimits(timeout_s=600), tier=sys.argv[1], profile="bare")
    await session.start()
    print((await session.execute(sys.argv[2])).text, flush=True)
    await session.execute("sum(range(10**12))")

asyncio.run(main())
"""
STARTS_OTHERS = """
import os, time
up, say = os.pipe()
for _ in range(2):
    if os.fork() == 0:
        try: os.setsid()
        except PermissionError: pass  # as tier landlock has it
        os.fork()
        os.write(say, b'.')
        while True: time.sleep(0.01)
for _ in range(4): os.read(up, 1)
print('started')
"""


@pytest.mark.parametrize("tier", ["full", "landlock", "none"])
def test_a_killed_manager_leaves_no_process_and_its_folders_are_swept(tier: Tier) -> None:
    needs(tier)
    command = [sys.executable, "-c", MANAGER, tier, STARTS_OTHERS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as manager:
        try:
            assert manager.stdout is not None and manager.stdout.readline() == "started\n"
            beneath = {pid: begun for pid in tree(manager.pid)[1:] if (begun := _begun(pid))}
            folders = folders_of(manager.pid)
        finally:
            manager.kill()
    assert len(beneath) >= 6, "the zygote, the session, and the four that it started"
    deadline = time.monotonic() + 120
    while left := [pid for pid, begun in beneath.items() if _begun(pid) == begun]:
        assert time.monotonic() < deadline, f"{len(left)} of {len(beneath)} processes live on"
        time.sleep(0.05)
    assert bool(folders) is (tier != "full"), "in tier full a session works in memory that ends with it"
    sweep()
    assert not folders_of(manager.pid)


def _begun(pid: int) -> str | None:
    """When a process began; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return fields[19] if fields[0] != "Z" else None
