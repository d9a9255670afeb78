"""A bounded set of live sessions, warm ones ahead of demand, shared by all episodes of the process."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import final

from tools.errors import ConfigError
from tools.python.background import in_background
from tools.python.session import Session

log = logging.getLogger(__name__)

_pools: list[Pool] = []


@final
class Pool:
    """At most `size` live sessions. `acquire` waits its turn, first come first served; `release` gives back.

    Safe to use from any event loop in any thread. A session that can be reset is used again, unless `fresh`; the others
    are closed, and `spare` new ones are kept started in the background once there has been demand. Sessions idle for
    longer than `idle_s` seconds are closed.
    """

    def __init__(
        self,
        make: Callable[[], Session],
        *,
        size: int,
        spare: int = 1,
        fresh: bool = False,
        idle_s: float = 300.0,
        otherwise: Sequence[tuple[str, Callable[[], Session], int]] = (),
    ) -> None:
        self.make = make
        self.otherwise = list(otherwise)
        """What to make instead, each with its name and how many at most, when the very first cannot be started."""
        self._proven = False
        self.size = size
        self.spare = min(spare, size)
        self.fresh = fresh
        self.idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: deque[tuple[Session, float]] = deque()
        self._live: set[Session] = set()
        self._starting = 0
        self._waiting: deque[Future[Session | None]] = deque()
        self._reaping = False
        self.closed = False
        self._owner = os.getpid()
        _pools.append(self)

    @property
    def live(self) -> int:
        """Sessions that exist now: leased, idle or starting."""
        with self._lock:
            return len(self._live) + self._starting

    async def acquire(self) -> Session:
        """A live, empty session. Raises `ConfigError` when none can be started at all."""
        while True:
            turn: Future[Session | None] | None = None
            with self._lock:
                session = self._pop_idle()
                if session is None:
                    if len(self._live) + self._starting < self.size:
                        self._starting += 1
                    else:
                        turn = Future()
                        self._waiting.append(turn)
            self._refill()
            if session is not None:
                return session
            if turn is None:
                return await self._started()
            try:
                session = await asyncio.wrap_future(turn)
            except asyncio.CancelledError:
                self._pass_on(turn)
                raise
            if session is None:
                continue  # room for one more: try again
            return session

    async def release(self, session: Session) -> None:
        """Give a session back. Never raises for the state it is in."""
        if session.alive and session.reusable and not self.fresh and not self.closed:
            try:
                await session.reset()
            except Exception as error:
                log.info("a session was not reused: %s", error)
            except BaseException:
                self._drop(session)
                raise
            else:
                self._offer(session)
                return
        try:
            await session.close()
        finally:
            self._drop(session)
            self._refill()

    async def close(self) -> None:
        """Close every session; those leased are killed."""
        with self._lock:
            self.closed = True
            live = list(self._live)
            self._idle.clear()
        for session in live:
            await session.close()
            self._drop(session)
        while self._starting:  # each ends its own session when it finds the pool closed
            await asyncio.sleep(0.01)
        if self in _pools:
            _pools.remove(self)

    def kill(self) -> None:
        """End every session at once, without an event loop."""
        self.closed = True
        if os.getpid() == self._owner:
            for session in list(self._live):
                session.kill()

    def prestart(self, n: int) -> Future[None]:
        """Start up to `n` idle sessions in the background, within the size."""

        async def start() -> None:
            await asyncio.gather(*(self._add_idle() for _ in range(n)))

        return in_background(start())

    async def _started(self) -> Session:
        """Start a session in a slot already counted in `_starting`."""
        try:
            session = await self._made()
        except BaseException:
            with self._lock:
                self._starting -= 1
            self._wake(None)
            raise
        with self._lock:
            self._starting -= 1
            self._live.add(session)
        if self.closed:
            session.kill()
            self._drop(session)
        return session

    async def _made(self) -> Session:
        """A started session, of the first kind that works here."""
        while True:
            make, session = self.make, self.make()
            try:
                await session.start()
            except ConfigError as error:
                session.kill()
                with self._lock:
                    if make is self.make and (self._proven or not self.otherwise):
                        raise
                    if make is self.make:  # else another start has fallen back already: try again with what it chose
                        name, self.make, most = self.otherwise.pop(0)
                        self.size = min(self.size, most)
                        log.warning("%s; falling back to %s", error, name)
            except BaseException:
                session.kill()
                raise
            else:
                self._proven = self._proven or make is self.make
                return session

    async def _add_idle(self) -> None:
        with self._lock:
            if self.closed or len(self._live) + self._starting >= self.size:
                return
            self._starting += 1
        self._offer(await self._started())

    def _pop_idle(self) -> Session | None:
        while self._idle:
            session, _ = self._idle.pop()  # the warmest; the oldest are left for the reaper
            if session.alive:
                return session
            session.kill()
            self._live.discard(session)
        return None

    def _offer(self, session: Session) -> None:
        if not self._wake(session):
            with self._lock:
                self._idle.append((session, time.monotonic()))
                begin, self._reaping = not self._reaping, True
            if begin:
                in_background(self._reap())

    def _drop(self, session: Session) -> None:
        with self._lock:
            self._live.discard(session)
        self._wake(None)

    def _wake(self, session: Session | None) -> bool:
        """Hand a session, or the room for one, to whoever waits longest. False when nobody does."""
        while True:
            with self._lock:
                if not self._waiting:
                    return False
                turn = self._waiting.popleft()
            if turn.set_running_or_notify_cancel():
                turn.set_result(session)
                return True

    def _pass_on(self, turn: Future[Session | None]) -> None:
        """The waiter was cancelled: what it was handed in the same moment goes to the next one."""
        if turn.done() and not turn.cancelled():
            session = turn.result()
            if session is not None:
                self._offer(session)
            else:
                self._wake(None)

    def _refill(self) -> None:
        with self._lock:
            missing = self.spare - len(self._idle) - self._starting
            room = self.size - len(self._live) - self._starting
            wanted = 0 if self.closed else min(missing, room)
        for _ in range(wanted):
            in_background(self._add_idle())

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(min(5.0, self.idle_s))
            now = time.monotonic()
            with self._lock:
                old = [session for session, since in self._idle if now - since > self.idle_s]
                self._idle = deque(pair for pair in self._idle if pair[0] not in old)
                if not self._idle and not old:
                    self._reaping = False
                    return
            for session in old:
                with contextlib.suppress(Exception):
                    await session.close()
                self._drop(session)


@atexit.register
def kill_all() -> None:
    """End every session of this process."""
    for pool in list(_pools):
        pool.kill()


def _forget() -> None:
    """After a fork: sessions belong to the parent."""
    _pools.clear()


os.register_at_fork(after_in_child=_forget)
