"""One request to a session and its answer, on whichever event loop is running."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, TypeAlias, final

from tools.python.inside.frames import BadFrame, Frames
from tools.python.poller import TICK, Poller, poller
from tools.python.session import SessionLimits
from tools.python.text import Kept

Outcome: TypeAlias = Literal["done", "timeout", "output", "protocol", "died", "cpu", "memory", "processes", "disk"]

_PIECE = 1 << 16
"""Bytes read at once: what a pipe holds. A larger buffer is mapped and unmapped each time."""
_STRAYS = 100
_UTF8 = codecs.getincrementaldecoder("utf-8")


@final
class Exchange:
    """Sends one frame and gathers what comes: the answer with its id, the output, or the reason why there is none."""

    def __init__(self, wire: Wire, number: int, limits: SessionLimits, kept: Kept) -> None:
        self.wire = wire
        self.number = number
        self.limits = limits
        self.kept = kept
        self.answer: dict[str, Any] = {}
        self.blob = b""
        self.loop = asyncio.get_running_loop()
        self.poller = poller()
        self.settled: asyncio.Future[Outcome] = self.loop.create_future()
        self._unsent = memoryview(b"")
        self._waits_to_send = False
        self._strays = 0
        self._written = 0
        self._flooded = False
        self._decode = _UTF8("replace").decode
        self._began = self._deadline = self.loop.time()
        self._watch: Callable[[], Outcome | None] | None = None

    def __enter__(self) -> Exchange:
        self.wire.watched_by(self.poller)
        self.poller.add(self.wire.channel.fileno(), self._on_channel)
        self.poller.add(self.wire.output, self._read_output)
        self.poller.tick(self._look)
        return self

    def __exit__(self, *exception: object) -> None:
        channel = self.wire.channel.fileno()
        self.poller.untick(self._look)
        self.poller.park(channel)
        self.poller.park(self.wire.output)
        if self._waits_to_send:
            self.loop.remove_writer(channel)

    @property
    def half_sent(self) -> bool:
        """True while some of the frame is still to be sent."""
        return bool(self._unsent)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a frame, the rest of it as the other side reads; descriptors go with a first byte of it."""
        if fds:
            socket.send_fds(self.wire.channel, [data[:1]], list(fds))
            data = data[1:]
        self._unsent = memoryview(data)
        self._flush()
        if self._unsent:
            self._waits_to_send = True
            self.loop.add_writer(self.wire.channel.fileno(), self._flush)

    async def outcome(self, seconds: float, watch: Callable[[], Outcome | None] | None = None) -> Outcome:
        """Wait for the answer at most so long, looking at `watch` every 20 ms; may be called again after a time-out."""
        if self.settled.done() and self.settled.result() in ("timeout", "output"):
            self.settled = self.loop.create_future()
        self._deadline = self.loop.time() + seconds
        self._watch = watch
        return await self.settled

    def drain(self) -> None:
        """Take what is in the pipe now: all that the cell wrote before it answered."""
        for _ in range(64):
            if not self._read_output():
                break

    def _settle(self, outcome: Outcome) -> None:
        if not self.settled.done():
            self.settled.set_result(outcome)

    def _look(self) -> None:
        """Is it late, dead, or using too much? Not asked of what has only just begun."""
        now = self.loop.time()
        if self.settled.done() or now - self._began < TICK:
            return
        if self.wire.ended():
            self._on_channel()  # an answer may have come first
            self._settle("died")
        elif self._watch is not None and (found := self._watch()) is not None:
            self._settle(found)
        elif now >= self._deadline:
            self._settle("timeout")

    def _flush(self) -> None:
        try:
            sent = self.wire.channel.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if self._waits_to_send and not self._unsent:
            self._waits_to_send = False
            self.loop.remove_writer(self.wire.channel.fileno())

    def _on_channel(self) -> None:
        try:
            data = self.wire.channel.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.poller.remove(self.wire.channel.fileno())
            self._settle("died")
            return
        try:
            for message, blob in self.wire.frames.feed(data):
                if message.get("id") == self.number and not self.answer:
                    self.answer, self.blob = message, blob
                    self._settle("done")
                    continue
                self._strays += 1
                if self._strays > _STRAYS:
                    raise BadFrame("too many frames that answer nothing")
        except BadFrame:
            self.poller.remove(self.wire.channel.fileno())
            self._settle("protocol")

    def _read_output(self) -> bool:
        try:
            data = os.read(self.wire.output, _PIECE)
        except (BlockingIOError, InterruptedError):
            return False
        if not data:
            self.poller.remove(self.wire.output)
            return False
        self._written += len(data)
        self.kept.add(self._decode(data))
        if self._written > self.limits.output_mb * 2**20 and not self._flooded:
            self._flooded = True  # said once: what comes until the cell has stopped is dropped
            self._settle("output")
        return True


class Wire:
    """The descriptors of a session on the manager's side."""

    def __init__(self, channel: socket.socket, output: int, pidfd: int) -> None:
        self.channel = channel
        self.output = output
        self.pidfd = pidfd
        self.frames = Frames(max_blob=24 * 2**20)
        self.closed = False
        self._lock = threading.Lock()
        self._poller: Poller | None = None

    def watched_by(self, poller: Poller | None) -> None:
        """From now on `poller` watches the descriptors, and no other."""
        if self._poller is not None and self._poller is not poller:
            self._poller.remove(self.channel.fileno())
            self._poller.remove(self.output)
        self._poller = poller

    def signal(self, number: signal.Signals) -> None:
        """Signal the interpreter; nothing happens when it has ended. Safe from any thread."""
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if not self.closed:
                signal.pidfd_send_signal(self.pidfd, number)

    def ended(self) -> bool:
        """True once the interpreter has ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close all of them, once."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self.watched_by(None)
            self.channel.close()
            os.close(self.output)
            os.close(self.pidfd)


@contextlib.contextmanager
def new_lines() -> Generator[tuple[socket.socket, int, list[int]]]:
    """A channel and an output pipe: our ends, and the two that a session is to have, which are closed afterwards.

    So are ours, when what is done meanwhile fails.
    """
    ours, theirs = socket.socketpair()
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        ours.setblocking(False)
        os.set_blocking(read, False)
        yield ours, read, [theirs.fileno(), write]
    except BaseException:
        ours.close()
        os.close(read)
        raise
    finally:
        theirs.close()
        os.close(write)
