"""Many sessions at once, kernels and the zygote killed at random: no result lost or mixed up, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import time
from pathlib import Path

import pytest
from sandboxes import folders_of, needs

from tools.python import Pool, PythonTool, SessionLimits
from tools.python.isolation import Tier
from tools.python.usage import tree
from tools.python.zygote import ZygoteSession

LIMITS = SessionLimits(timeout_s=30, grace_s=0.3, memory_mb=512, processes=32)


# Known to this run alone: part of the names, and all of the key, of what cells try to share with the machine.
MARK = random.SystemRandom().getrandbits(30) + 1
SHARE = """
import ctypes
try: open('/dev/shm/toolweave-{mark}-{value}', 'w').write('x')
except OSError: pass
ctypes.CDLL(None).shmget({mark}, 4096, 0o1666)
{value}
"""


def shared_memory() -> list[str]:
    """What the machine holds under the mark: files of memory, and segments of System V."""
    segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return [
        *map(str, Path("/dev/shm").glob(f"toolweave-{MARK}-*")),
        *(line for line in segments if line.split()[0] == str(MARK)),
    ]


class Worker:
    """One episode after another; each checks what it is told against what it knows."""

    def __init__(self, number: int, pool: Pool, tally: dict[str, int]) -> None:
        self.number = number
        self.pool = pool
        self.tally = tally
        self.random = random.Random(number)

    async def run(self, cells: int) -> None:
        done = 0
        while done < cells:
            python = PythonTool(pool=self.pool, timeout_s=30)
            known: int | None = None
            for _ in range(min(self.random.randint(1, 12), cells - done)):
                known = await self.cell(python, known)
                done += 1
            await python.close()

    async def cell(self, python: PythonTool, known: int | None) -> int | None:
        """Run one cell and check the answer; returns the value that the session now holds."""
        value = self.random.getrandbits(40)
        kind = self.random.choice(["set", "get", "print", "raise", "wait", "share"])
        code, right = {
            "set": (f"held = {value}\nheld", str(value)),
            "get": ("held", str(known)),
            "print": (f"for k in range(50): print({value} + k)", "\n".join(str(value + k) for k in range(50))),
            "raise": (f"raise ValueError({value})", f"ValueError: {value}"),
            "wait": (f"import time; time.sleep(0.005); {value}", str(value)),
            "share": (SHARE.format(mark=MARK, value=value), str(value)),
        }[kind]
        result = await python.tool.fn(code=code)
        self.tally["cells"] += 1
        if result.data["state_lost"]:
            self.tally["lost"] += 1
            assert "The state was lost" in result.text
            return None
        fresh = "Note: the earlier Python process was lost" in result.text
        said = result.text.split("\n", 1)[1] if fresh else result.text
        if fresh:
            self.tally["replaced"] += 1
            known = None
        if kind == "get" and known is None:
            assert "NameError" in said, said
        else:
            assert said.endswith(right), (kind, said, right)
        return value if kind == "set" else known


async def killer(pool: Pool, seed: int, stop: asyncio.Event, tally: dict[str, int]) -> None:
    """Kill a random live session now and then, and sometimes the zygote under all of them."""
    dice = random.Random(seed)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.05 + dice.random() * 0.1)
        victims = [session for session in list(pool._live) if isinstance(session, ZygoteSession) and session.alive]
        if not victims:
            continue
        victim = dice.choice(victims)
        zygote = tally["zygotes killed"] < 3 and dice.random() < 0.1
        pid = victim.host.pid if zygote else victim.pid
        if pid and pid > 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            tally["zygotes killed" if zygote else "sessions killed"] += 1


@pytest.mark.parametrize("tier", ["full", pytest.param("landlock", marks=pytest.mark.slow)])
def test_no_result_is_lost_or_mixed_up_and_nothing_is_left_behind(tier: Tier) -> None:
    needs(tier)
    tally = dict.fromkeys(("cells", "lost", "replaced", "sessions killed", "zygotes killed"), 0)

    async def storm() -> None:
        pool = Pool(lambda: ZygoteSession(LIMITS, tier=tier, profile="bare"), size=40, spare=4)
        stop = asyncio.Event()
        killing = asyncio.create_task(killer(pool, 7, stop, tally))
        async with asyncio.TaskGroup() as group:
            for number in range(32):
                group.create_task(Worker(number, pool, tally).run(63))
        stop.set()
        await killing
        await pool.close()
        host = ZygoteSession(LIMITS, tier=tier, profile="bare").host
        host.kill()

    before, fds = set(tree(os.getpid())), len(os.listdir("/proc/self/fd"))
    asyncio.run(storm())
    assert tally["cells"] == 32 * 63
    assert tally["sessions killed"] >= 5
    assert tally["zygotes killed"] >= 1
    deadline = time.monotonic() + 60
    while left_behind(before, fds) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left_behind(before, fds)


def left_behind(before: set[int], fds: int) -> list[object]:
    """Processes, folders, shared memory and descriptors that are new; four of these are the background loop's own."""
    gc.collect()
    found: list[object] = [*(set(tree(os.getpid())) - before), *folders_of(os.getpid()), *shared_memory()]
    now = os.listdir("/proc/self/fd")
    return found if len(now) <= fds + 4 else [*found, *now]
