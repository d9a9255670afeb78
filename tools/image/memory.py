"""A bound on the memory of pictures being worked on, over all episodes and threads of a process."""

from __future__ import annotations

import asyncio
import collections
import functools
import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar, final

from tools.errors import ConfigError
from tools.tool import in_thread

T = TypeVar("T")

MEMORY = "TOOLWEAVE_IMAGE_MEMORY_MB"
"""Environment variable: megabytes of decoded pixels that one process works on at once."""


@final
class PixelMemory:
    """Lets work on pictures begin in the order it was asked for, while its bytes fit.

    Work that alone is larger than the bound waits until nothing else runs, and then runs.
    """

    def __init__(self, max_bytes: int = 512 * 2**20) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self.peak = 0
        """The most that was ever held at once."""
        self._lock = threading.Lock()
        self._waiting: collections.deque[tuple[int, Callable[[], None]]] = collections.deque()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncGenerator[None]:
        """Hold `size` bytes; waits for them without holding up the event loop."""
        size = min(size, self.max_bytes)
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[None] = loop.create_future()

        def grant() -> None:
            loop.call_soon_threadsafe(_settle, granted)

        entry = (size, grant)
        with self._lock:
            self._waiting.append(entry)
        self._serve()
        try:
            await granted
        except asyncio.CancelledError:
            with self._lock:
                waits = any(entry is other for other in self._waiting)
                if waits:
                    self._waiting.remove(entry)
            if not waits:
                self._give(size)
            else:
                self._serve()  # those behind may fit now
            raise

    def _give(self, size: int) -> None:
        with self._lock:
            self.held -= size
        self._serve()

    def _serve(self) -> None:
        """Let in those at the head that fit. One whose loop has closed gives its room back at once."""
        while True:
            with self._lock:
                if not self._waiting or self.held + self._waiting[0][0] > self.max_bytes:
                    return
                size, grant = self._waiting.popleft()
                self.held += size
                self.peak = max(self.peak, self.held)
            try:
                grant()
            except RuntimeError:  # the waiter's loop is closed
                with self._lock:
                    self.held -= size


@final
class Slot(AbstractAsyncContextManager[None]):
    """Room for one call of a tool, taken before its deadline begins: `Tool.slots`."""

    def __init__(self, memory: PixelMemory, size: Callable[[], int]) -> None:
        self._memory = memory
        self._size = size
        self._held: list[AbstractAsyncContextManager[None]] = []

    async def __aenter__(self) -> None:
        room = self._memory.room(self._size())
        await room.__aenter__()
        self._held.append(room)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._held.pop().__aexit__(None, None, None)


@functools.cache
def shared_memory() -> PixelMemory:
    """The process's own, as large as the environment variable says, or 512 MB."""
    said = os.environ.get(MEMORY) or "512"
    if not said.isdecimal() or int(said) < 1:
        raise ConfigError(f"{MEMORY} is {said!r}, and must be a number of megabytes, 1 or more")
    return PixelMemory(int(said) * 2**20)


async def off_loop(work: Callable[[], T]) -> T:
    """`work()` in a thread. A cancelled wait lasts until the thread is done, so that its memory is still accounted for.

    Work on pictures within limits takes seconds at most.
    """
    running: asyncio.Future[Any] = asyncio.ensure_future(in_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # seen: nobody else will ask
        raise


def _settle(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)
