"""Calls that are cancelled, meet one another or find the session gone: a clear error, a sound session, nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from sandboxes import folders_of

from tools.errors import ConfigError
from tools.python.session import SessionDied, SessionLimits
from tools.python.usage import tree, usage
from tools.python.zygote import ZygoteSession

LIMITS = SessionLimits(timeout_s=300, grace_s=60, processes=32)


def new() -> ZygoteSession:
    return ZygoteSession(LIMITS, profile="bare")


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def settled(true: Callable[[], bool], seconds: float = 60) -> bool:
    """Does it become true?"""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


async def cut_short(work: Coroutine[Any, Any, object], turns: int, seconds: float) -> object:
    """Cancel `work` after so many turns of the loop and so many seconds; what it gave, if it was quicker."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    if seconds:
        await asyncio.sleep(seconds)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, SessionDied):
        return await task
    return None


OPERATIONS: dict[str, Callable[[ZygoteSession], Coroutine[Any, Any, object]]] = {
    "execute": lambda session: session.execute("import time; time.sleep(0.005)"),
    "put": lambda session: session.put({"data": bytes(3_000_000)}),
    "fork": lambda session: session.fork(),
    "restart": lambda session: session.restart(),
}


@pytest.mark.parametrize("name", [*OPERATIONS, "start"])
def test_a_call_cancelled_at_any_time_leaves_a_sound_session_or_a_dead_one_and_nothing_behind(name: str) -> None:
    dice = random.Random(name)

    async def one(turns: int, seconds: float) -> None:
        session = new()
        if name == "start":
            await cut_short(session.start(), turns, seconds)
        else:
            await session.start()
            await session.execute("x = 20")
            branch = await cut_short(OPERATIONS[name](session), turns, seconds)
            if isinstance(branch, ZygoteSession):
                assert (await branch.execute("x + 1")).result == "21"
                await branch.close()
            with contextlib.suppress(SessionDied):
                result = await session.execute("x + 2")
                assert result.result == "22" or (name == "restart" and "NameError" in (result.error or "")), result
        await session.close()

    async def play() -> None:
        for turns in (0, 1, 2, 3, 5, 8):
            await one(turns, 0)
        for _ in range(6):
            await one(1, dice.random() * 0.03)

    async def first() -> tuple[int, int]:
        session = new()
        await session.start()
        await session.close()
        return session.host.pid or 0, session.pid or 0

    zygote, ended = asyncio.run(first())
    assert settled(lambda: ended not in tree(zygote))
    idle, fds = len(tree(zygote)), descriptors()
    asyncio.run(play())
    assert settled(lambda: len(tree(zygote)) <= idle and descriptors() <= fds)
    assert not folders_of(os.getpid())


def test_a_session_does_one_thing_at_a_time_and_says_so() -> None:
    async def play() -> None:
        session = new()
        await session.start()
        running = asyncio.create_task(session.execute("import time; time.sleep(0.3); 'done'"))
        await asyncio.sleep(0)
        for second in (session.execute("1"), session.put({"x": 1}), session.fork()):
            with pytest.raises(RuntimeError, match="one thing at a time"):
                await second
        assert (await running).result == "'done'"
        assert (await session.execute("2")).result == "2"
        await session.close()

    asyncio.run(play())


def test_what_is_too_large_to_bind_is_refused_and_the_session_goes_on() -> None:
    async def play() -> None:
        session = new()
        await session.start()
        for values in ({"x": "y" * 5_000_000}, {"x": bytes(70_000_000)}):
            with pytest.raises(ConfigError, match="too large"):
                await session.put(values)
        assert (await session.execute("3")).result == "3"
        await session.close()

    asyncio.run(play())


@pytest.mark.parametrize("end", ["a kill", "its own end", "a close"])
def test_a_session_that_ends_while_it_is_used_says_that_it_is_gone(end: str) -> None:
    async def play() -> None:
        ends: dict[str, Callable[[ZygoteSession], Awaitable[object] | None]] = {
            "a kill": lambda session: session.kill(),
            "its own end": lambda session: os.kill(session.pid or 0, 9),
            "a close": lambda session: session.close(),
        }
        for name in ("fork", "put", "execute"):
            session = new()
            await session.start()
            using = asyncio.ensure_future(OPERATIONS[name](session))
            await asyncio.sleep(0)
            if (closing := ends[end](session)) is not None:
                await closing
            try:
                result = await using
                if isinstance(result, ZygoteSession):
                    await result.close()
            except SessionDied as error:
                assert str(error)
            await session.close()
            with pytest.raises(SessionDied):
                await session.execute("1")

    asyncio.run(play())
    assert settled(lambda: not folders_of(os.getpid()))


def test_processes_that_have_ended_and_are_not_waited_for_are_no_processes() -> None:
    async def play() -> None:
        session = new()
        await session.start()
        orphans = (
            "import os, time\nfor _ in range(10):\n    if os.fork() == 0:\n        if os.fork() == 0: os._exit(0)\n"
            "        os._exit(0)\n    os.wait()\ntime.sleep(0.1)"
        )
        assert (await session.execute(orphans)).ending == "ok"
        assert settled(lambda: usage(session.pid or 0).threads == 1)
        assert len(tree(session.pid or 0)) == 11
        await session.close()

    asyncio.run(play())


def test_a_zygote_with_nothing_to_load_says_so() -> None:
    async def play() -> dict[str, str]:
        session = new()
        await session.start()
        await session.close()
        return await asyncio.wait_for(asyncio.wrap_future(session.host.loaded), 120)

    assert asyncio.run(play()) == {}
