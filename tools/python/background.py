"""One background event loop for the process, so that sessions and pools outlive the loops of their callers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _forget() -> None:
    """After a fork the thread is gone: the child starts its own when it needs one."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop, started on first use in a daemon thread."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, daemon=True, name="python-sessions").start()
        return _loop


def in_background(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start `work` on the background loop and return at once."""
    return asyncio.run_coroutine_threadsafe(work, background_loop())


async def from_background(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the background loop and await it from any other.

    Cancelling the one cancels the other, and waits until that has ended: what it holds is in order when this returns.
    """
    there = background_loop()
    if asyncio.get_running_loop() is there:
        return await work
    done: Future[T] = Future()
    tasks: list[asyncio.Task[T]] = []

    def begin() -> None:
        tasks.append(there.create_task(work))
        tasks[0].add_done_callback(finish)

    def finish(task: asyncio.Task[T]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(task.result())

    there.call_soon_threadsafe(begin)
    waiting = asyncio.wrap_future(done)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        there.call_soon_threadsafe(lambda: tasks[0].cancel())
        await asyncio.wait([waiting])
        if not waiting.cancelled():
            waiting.exception()  # whoever asked has gone
        raise
