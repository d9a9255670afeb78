"""The code interpreter against plain jupyter-client + ipykernel, a process per call, smolagents and pydantic-monty.

Everything runs the same cells on the same machine, the two sides of a row one right after the other; each time is the
median of its rounds, and of a warm cell also the shortest of as many rounds on both sides: other work on the machine
can only add to it. "start" is from nothing asked to the first result in hand; the zygote itself is up, as it is once
per process. Ours is in the best isolation tier of this machine; of the others only monty isolates. smolagents and monty
interpret a subset of Python: smolagents in this very process, monty without numpy or most of the standard library. A
process per call keeps no state. monty's interpreter is written in Rust and faster than ours on every row.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from _common import Row, arguments, installed, report, row

from tools.python import Pool, ZygoteSession
from tools.python.isolation import choose_tier
from tools.python.usage import tree

CELL = "sum([i * i for i in range(100)])"
IMPORT = "import numpy, sympy, PIL.Image, matplotlib.pyplot"

Execute = Callable[[str], Awaitable[object]]
Side = Callable[[], contextlib.AbstractAsyncContextManager[Execute]]


@asynccontextmanager
async def ours() -> AsyncIterator[Execute]:
    """A forked session."""
    session = ZygoteSession()
    await session.start()
    try:
        yield session.execute
    finally:
        await session.close()


@asynccontextmanager
async def jupyter() -> AsyncIterator[Execute]:
    """A kernel as jupyter-client starts it."""
    from jupyter_client.manager import start_new_async_kernel

    manager, client = await start_new_async_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)

    async def execute(code: str) -> object:
        return await client.execute_interactive(code, store_history=False, output_hook=lambda message: None, timeout=60)

    execute.pid = manager.provisioner.pid  # type: ignore[attr-defined]
    try:
        yield execute
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


@asynccontextmanager
async def process() -> AsyncIterator[Execute]:
    """`python -c`, once per call."""

    async def execute(code: str) -> object:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", f"print({code})", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return await child.communicate()

    yield execute


@asynccontextmanager
async def smolagents() -> AsyncIterator[Execute]:
    """smolagents' interpreter, in a thread, as it blocks."""
    from smolagents.local_python_executor import LocalPythonExecutor

    executor = LocalPythonExecutor(additional_authorized_imports=[])
    executor.send_tools({})
    yield lambda code: asyncio.to_thread(executor, code)


_monty: list[Any] = []


@asynccontextmanager
async def monty() -> AsyncIterator[Execute]:
    """A session of a warm pool of monty workers."""
    import pydantic_monty

    if not _monty:
        pool = pydantic_monty.AsyncMonty(min_processes=2, max_processes=40)
        await pool.__aenter__()
        _monty.append(pool)
    async with _monty[0].checkout() as session:
        yield session.feed_run


SIDES: dict[str, tuple[Side, str | None]] = {
    "jupyter_client + ipykernel": (jupyter, None),
    "process per call": (process, None),
    "smolagents": (smolagents, "smolagents"),
    "pydantic-monty": (monty, "pydantic-monty"),
}


async def timed(work: Awaitable[object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def first_result(side: Side) -> object:
    """A session from nothing to its first result, then its end (not counted by the callers that matter)."""
    started = time.perf_counter()
    async with side() as execute:
        await execute(CELL)
        return time.perf_counter() - started


async def median_start(side: Side, rounds: int) -> float:
    """Median seconds to the first result."""
    return statistics.median([float(str(await first_result(side))) for _ in range(rounds)])


async def warm_cells(side: Side, rounds: int) -> list[float]:
    """Seconds of each of so many cells in one session, after a first one."""
    async with side() as execute:
        await execute(CELL)
        return [await timed(execute(CELL)) for _ in range(rounds)]


async def throughput(side: Side, sessions: int, cells: int) -> float:
    """Cells per second over so many live sessions."""
    async with contextlib.AsyncExitStack() as stack:
        live = [await stack.enter_async_context(side()) for _ in range(sessions)]
        await asyncio.gather(*(execute(CELL) for execute in live))

        async def many(execute: Execute) -> None:
            for _ in range(cells // sessions):
                await execute(CELL)

        return cells / await timed(asyncio.gather(*map(many, live)))


async def starts_per_second(side: Side, sessions: int, at_once: int) -> float:
    """Sessions per second, each with one cell, so many at once."""
    gate = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with gate:
            await first_result(side)

    return sessions / await timed(asyncio.gather(*(one() for _ in range(sessions))))


def private_mb(pid: int) -> float:
    """Proportional set size of a process and its children, MiB."""
    total = 0
    for member in tree(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


async def memory(count: int, kernels: int) -> tuple[float, float]:
    """Memory of an idle session with the scientific libraries loaded: ours, of `count` live ones, and of `kernels`.

    Proportional set size: pages that several processes share are divided among them, on both sides.
    """
    started = time.perf_counter()
    sessions = [ZygoteSession() for _ in range(count)]
    await asyncio.gather(*(session.start() for session in sessions))
    up = time.perf_counter()
    await asyncio.gather(*(session.execute(f"{IMPORT}\n{CELL}") for session in sessions))
    ran = time.perf_counter()
    sizes = [private_mb(session.pid or 0) for session in sessions]
    print(
        f"{count} sessions live at once: started in {up - started:.2f} s, a cell in each in {ran - up:.2f} s, "
        f"{sum(sizes):.0f} MiB together"
    )
    for session in sessions:
        await session.close()
    async with contextlib.AsyncExitStack() as stack:
        others = [await stack.enter_async_context(jupyter()) for _ in range(kernels)]
        for execute in others:
            await execute(f"{IMPORT}\n{CELL}")
        theirs = [private_mb(execute.pid) for execute in others]  # type: ignore[attr-defined]
    return statistics.median(sizes), statistics.median(theirs)


async def recovery(rounds: int) -> tuple[float, float]:
    """Seconds from a SIGKILL to the next result: a replaced session, and jupyter-client's `restart_kernel`."""
    from jupyter_client.manager import start_new_async_kernel

    session = ZygoteSession()
    await session.start()
    mine: list[float] = []
    theirs: list[float] = []
    manager, client = await start_new_async_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
    for _ in range(rounds):
        started = time.perf_counter()
        await session.restart()
        await session.execute(CELL)
        mine.append(time.perf_counter() - started)
        started = time.perf_counter()
        await manager.restart_kernel(now=True)
        await client.wait_for_ready(timeout=60)
        await client.execute_interactive(CELL, output_hook=lambda message: None)
        theirs.append(time.perf_counter() - started)
    client.stop_channels()
    await manager.shutdown_kernel(now=True)
    await session.close()
    return statistics.median(mine), statistics.median(theirs)


async def pooled_start(rounds: int) -> float:
    """Median seconds from asking a warm pool to the first result."""
    pool = Pool(ZygoteSession, size=rounds + 8, spare=4)
    await pool.release(await pool.acquire())
    times: list[float] = []
    for _ in range(rounds):
        await asyncio.sleep(0.15)
        started = time.perf_counter()
        session = await pool.acquire()
        await session.execute(CELL)
        times.append(time.perf_counter() - started)
        await pool.release(session)
    await pool.close()
    return statistics.median(times)


async def compare(quick: bool) -> list[Row]:
    """All rows."""
    rounds = 2 if quick else 7
    rows: list[Row] = []
    warm = ZygoteSession()
    await warm.start()
    await asyncio.wait_for(asyncio.wrap_future(warm.host.loaded), 120)
    await warm.close()
    for peer, (side, package) in SIDES.items():
        if package is not None and installed(package) is None:
            print(f"{peer}: not installed, not compared", file=sys.stderr)
            continue
        kernel = side is jupyter
        few = rounds if kernel else 3 * rounds
        start = await median_start(ours, 3 * rounds), await median_start(side, few)
        rows.append(row("start to first result", peer, start[0] * 1e3, start[1] * 1e3, "ms"))
        mine, theirs = list[float](), list[float]()
        for _ in range(3):
            mine += await warm_cells(ours, 20 if quick else 60)
            theirs += await warm_cells(side, 20 if quick else 60)
        for what, of in (("warm cell", statistics.median), ("warm cell, shortest", min)):
            rows.append(row(what, peer, of(mine) * 1e3, of(theirs) * 1e3, "ms"))
        for sessions in (1, 8) if quick else (1, 8, 32):
            count = 64 if quick else 640
            rate = await throughput(ours, sessions, 4 * count), await throughput(side, sessions, count)
            rows.append(row(f"cells/s, {sessions} sessions", peer, *rate, "1/s", better="higher"))
        rate = (
            await starts_per_second(ours, 24 if quick else 80, 8),
            await starts_per_second(side, 8 if kernel else 24, 8),
        )
        rows.append(row("sessions/s, 8 at once", peer, *rate, "1/s", better="higher"))
        if kernel:
            rows.append(row("start from a warm pool", peer, await pooled_start(3 * rounds) * 1e3, start[1] * 1e3, "ms"))
            idle = await memory(200, 2 if quick else 8)
            rows.append(row("memory of an idle session, libraries loaded", peer, *idle, "MiB PSS"))
            again = await recovery(rounds)
            rows.append(row("kill to next result", peer, again[0] * 1e3, again[1] * 1e3, "ms"))
    for pool in _monty:
        await pool.__aexit__(None, None, None)
    return rows


def main() -> None:
    """Run and report."""
    args = arguments(__doc__)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(f"isolation tier: {choose_tier()}")
    rows = asyncio.run(compare(args.quick))
    report("interpreter", rows, ["jupyter-client", "ipykernel", "ipython", "smolagents", "pydantic-monty", "numpy"])


if __name__ == "__main__":
    main()
