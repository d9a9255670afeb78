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
    watched and a deadline, for a tenth of the time that asyncio's own readers and timers take."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # It must not hold the loop, whose life ends its own.
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._looks: set[Callable[[], object]] = set()
        self._ticking = False
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback` while `fd` can be read from or has ended."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """No longer. Harmless for a descriptor that is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
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
            if callback is not None:
                callback()


def poller() -> Poller:
    """The running loop's."""
    loop = asyncio.get_running_loop()
    found = _pollers.get(loop)
    if found is None:
        found = _pollers[loop] = Poller(loop)
    return found
