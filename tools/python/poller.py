"""What an event loop waits for on behalf of sessions: one descriptor and one timer, however many they have."""

from __future__ import annotations

import asyncio
import contextlib
import select
import weakref
from collections.abc import Callable
from typing import final

_pollers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = weakref.WeakKeyDictionary()

TICK = 0.02
"""Seconds between two looks at what is running."""


@final
class Poller:
    """An epoll that the loop watches, and a timer that runs while somebody wants it: each cell needs two descriptors
    watched and a deadline, for a tenth of the time that asyncio's own readers and timers take.

    A descriptor that is parked stays in the epoll until something happens to it, as the next cell will want it again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # It must not hold the loop, whose life ends its own.
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], object] | None] = {}
        self._looks: set[Callable[[], object]] = set()
        self._ticking = False
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback` while `fd` can be read from or has ended."""
        known = fd in self._callbacks
        self._callbacks[fd] = callback
        if not known:
            self._epoll.register(fd, select.EPOLLIN)

    def park(self, fd: int) -> None:
        """No longer, for now."""
        if fd in self._callbacks:
            self._callbacks[fd] = None

    def remove(self, fd: int) -> None:
        """No longer. Must come before `fd` is closed; harmless for one that is not watched, and from any thread."""
        with contextlib.suppress(KeyError, OSError, ValueError):
            del self._callbacks[fd]
            self._epoll.unregister(fd)

    def tick(self, look: Callable[[], object]) -> None:
        """Call `look` every `TICK` seconds."""
        self._looks.add(look)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK, self._tick)

    def untick(self, look: Callable[[], object]) -> None:
        """No longer."""
        self._looks.discard(look)

    def _tick(self) -> None:
        self._ticking = bool(self._looks)
        if self._ticking:
            asyncio.get_running_loop().call_later(TICK, self._tick)
        for look in list(self._looks):
            look()

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            if callback is None:
                self.remove(fd)
            else:
                callback()


def poller() -> Poller:
    """The running loop's."""
    loop = asyncio.get_running_loop()
    found = _pollers.get(loop)
    if found is None:
        found = _pollers[loop] = Poller(loop)
    return found
