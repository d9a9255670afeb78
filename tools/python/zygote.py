"""Sessions forked from a preloaded, sandboxed zygote: quick to start, a few MiB each, nothing of the host in reach."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, final

from tools.errors import ConfigError
from tools.python.background import from_background, in_background
from tools.python.exchange import Exchange, Outcome, Wire, new_lines
from tools.python.host import Child, Exit, host_for, remove_after
from tools.python.inside.frames import BadFrame, pack
from tools.python.isolation import Tier, choose_tier
from tools.python.profiles import modules_of
from tools.python.report import (
    limit_hint,
    pictures,
    ran_out_of_cpu,
    refused,
    text_or_none,
    why_interrupted,
    why_lost,
)
from tools.python.session import CellResult, Ending, Session, SessionDied, SessionLimits, check_name
from tools.python.text import Kept, picture_problem, plain
from tools.python.usage import folder_size, named_by, tasks_of_user, unlinked_size, usage
from tools.python.workdir import new_workdir, remove_folder

_GONE = "the interpreter is not running"


@final
class ZygoteSession(Session):
    """One forked interpreter.

    `tier` as in `isolation`; `profile` names the libraries that are loaded beforehand; `shown` are further folders of
    this machine that the code may read, and run programs of.

    >>> async def example():
    ...     session = ZygoteSession()
    ...     await session.start()
    ...     await session.execute("x = 20")
    ...     result = await session.execute("x + 1")
    ...     await session.close()
    ...     return result.result
    >>> asyncio.run(example())
    '21'
    """

    reusable = False

    def __init__(
        self,
        limits: SessionLimits | None = None,
        *,
        tier: Tier | None = None,
        profile: str = "science",
        seed: int = 0,
        shown: tuple[str, ...] = (),
    ) -> None:
        self.limits = limits or SessionLimits()
        self.tier: Tier = choose_tier(tier or "auto")
        self.seed = seed
        self.profile = profile
        self.shown = shown
        self.host = host_for(self.tier, modules_of(profile), shown)
        self._wire: Wire | None = None
        self._child: Child | None = None
        self._work: str | None = None
        self._baseline = 0
        self._dead = True
        self._killed = False
        self._busy = False
        self._family: _Family | None = None

    @property
    def alive(self) -> bool:
        """False once the process has ended or was told to."""
        return not self._dead and self._wire is not None and not self._wire.ended()

    @property
    def pid(self) -> int | None:
        """The interpreter's process, in the caller's pid namespace."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Fork an interpreter: 5 to 25 ms, and a second or two for the first of the process."""
        await from_background(self._start())

    async def execute(self, code: str, timeout_s: float | None = None) -> CellResult:
        """See `Session.execute`."""
        if not self.alive:
            raise SessionDied(_GONE)
        if answer := refused(code, self.limits):
            return answer
        limit = self.limits.timeout_s if timeout_s is None else timeout_s
        return (await self.request({"op": "execute"}, code.encode(), limit))[0]

    async def request(
        self, message: Mapping[str, Any], blob: bytes, timeout_s: float
    ) -> tuple[CellResult, Mapping[str, Any], bytes]:
        """Have `message` done under the limits of a cell. Also the raw answer, which is not to be trusted."""
        self._take()
        try:
            return await self._run(message, blob, timeout_s)
        except BaseException:
            self._dead = True  # cancelled half-way: what it is doing now is anybody's guess
            raise
        finally:
            self._busy = False
            if self._dead:
                self.kill()

    def _take(self) -> None:
        if self._busy:
            raise RuntimeError("this session is in use: it does one thing at a time")
        self._busy = True

    async def interrupt(self) -> None:
        """Send SIGINT, which raises KeyboardInterrupt within a cell and does nothing between cells."""
        if self.alive and self._wire is not None:
            self._wire.signal(signal.SIGINT)

    async def restart(self) -> None:
        """Kill the interpreter and fork another."""
        await self.close()
        self._family = None
        await self.start()

    reset = restart
    """A fork is cheaper than tidying up, and forgets everything."""

    async def put(self, values: Mapping[str, Any]) -> None:
        """Bind names to JSON values or bytes."""
        plain_values = {name: value for name, value in values.items() if not isinstance(value, bytes)}
        blobs = {name: value for name, value in values.items() if isinstance(value, bytes)}
        await self._put(plain_values, blobs, "bytes")

    async def put_images(self, images: Mapping[str, bytes]) -> None:
        """Bind names to Pillow images."""
        for name, data in images.items():
            if problem := picture_problem(data):
                raise ConfigError(f"{name}: {problem}")
        await self._put({}, images, "image")

    async def fork(self) -> ZygoteSession:
        """A branch: a copy of all names and of the working directory, in the same sandbox and under the same limits.

        It can be branched again. Threads are not copied, and the copied directory has a path of its own. When the first
        session of the tree has to be killed, all its branches end; closing it leaves them alive.
        """
        if not self.alive or self._child is None:
            raise SessionDied(_GONE)
        branch = ZygoteSession(self.limits, tier=self.tier, profile=self.profile, seed=self.seed, shown=self.shown)
        number = random.getrandbits(48)
        try:
            with new_lines() as (ours, read, theirs):
                exchange, outcome = await self._ask(number, pack({"op": "fork", "id": number}), theirs)
                pid = named_by(exchange.answer.get("pid"), self._child.pid)
                if outcome != "done" or pid is None:
                    raise SessionDied(f"the session could not be branched: {exchange.answer.get('error') or outcome}")
                branch._wire = Wire(ours, read, os.pidfd_open(pid))
        except OSError as error:  # it, or the branch, ended in between
            raise SessionDied(f"the session could not be branched: {error}") from error
        branch._child = Child(pidfd=branch._wire.pidfd, pid=pid, ended=Future())
        branch._family = self._family = self._family or _Family(self)
        self._family.living |= {self, branch}
        try:
            if problem := await branch._settled_in():
                raise SessionDied(f"the session could not be branched: {problem}")
        except BaseException:
            self._family.leave(branch)
            raise
        return branch

    async def close(self) -> None:
        """Kill the interpreter and all it started. Its directory goes in the background."""
        if self._family is None:
            self.kill()
        else:
            self._family.leave(self)

    def kill(self) -> None:
        """End the session at once. What a running cell still reads from is closed when it has noticed."""
        self._dead = self._killed = True
        self._signal_all()
        if not self._busy:
            self._clear()

    def _is_branch(self) -> bool:
        return self._family is not None and self._family.root is not self

    def retire(self) -> None:
        """Take no more cells, though the process stays for its branches."""
        self._dead = True

    def _clear(self) -> None:
        """Give back descriptors and directory."""
        wire, self._wire = self._wire, None
        work, self._work = self._work, None
        if wire is not None:
            wire.close()
        if work is not None:
            remove_folder(work)
            if self._child is not None and not self._child.ended.done():
                in_background(remove_after(self._child, work))

    def _signal_all(self) -> None:
        """SIGKILL to all of the session. Also called by the host, from its thread, when the zygote is gone."""
        child, wire = self._child, self._wire
        if child is None or wire is None:
            return
        wire.signal(signal.SIGKILL)
        if not self._is_branch() and self.tier != "full" and child.pid > 1 and not child.ended.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)  # the zygote keeps the number taken until it reports the end

    async def _start(self) -> None:
        said: str | None = ""
        try:
            for _ in range(6):
                said = await self._try_start()
                if said is None:
                    return
                if not said.startswith("died"):  # as it does when the zygote is killed in between
                    break
        except BaseException:
            self.kill()
            raise
        raise ConfigError(f"a Python session could not be confined (tier {self.tier}): {said}")

    async def _try_start(self) -> str | None:
        """Fork and wait until the child is confined; what went wrong, or None."""
        if self.tier != "full":
            self._work = str(new_workdir())
            if self.host.uid is not None:
                os.chown(self._work, self.host.uid, self.host.uid)
        users = tasks_of_user() if self.tier != "full" else 0
        request = {**asdict(self.limits), "work": self._work, "seed": self.seed, "user_processes": users}
        with new_lines() as (ours, read, theirs):
            child = await self.host.fork(request, theirs, self._signal_all)
        self._child, self._wire, self._killed = child, Wire(ours, read, child.pidfd), False
        return await self._settled_in()

    async def _settled_in(self) -> str | None:
        """Wait for the new process to say that it is ready; what went wrong, or None."""
        assert self._child is not None
        exchange, outcome = await self._ask(0, b"")
        if outcome != "done" or exchange.answer.get("op") != "ready":
            self.kill()
            return str(exchange.answer.get("error") or f"{outcome} {exchange.kept}".strip())
        self._baseline = usage(self._child.pid).memory
        self._dead = False
        in_background(self._patrol())
        return None

    async def _patrol(self) -> None:
        """Between cells, what threads and processes left behind use is looked at once a second."""
        wire = self._wire
        while wire is not None and not wire.closed:
            await asyncio.sleep(1.0)
            if not self._busy and self.alive and self._watch() is not None:
                self._signal_all()  # the owner finds it dead

    async def _ask(self, number: int, frame: bytes, fds: Sequence[int] = ()) -> tuple[Exchange, Outcome]:
        """One exchange that is no cell."""
        assert self._wire is not None
        self._take()
        try:
            with Exchange(self._wire, number, self.limits, Kept(2000)) as exchange:
                try:
                    if frame:
                        exchange.send(frame, fds)
                    outcome = await exchange.outcome(60)
                finally:
                    self._dead |= exchange.half_sent  # nothing that is sent after half a frame would be understood
                exchange.drain()
                return exchange, outcome
        finally:
            self._busy = False
            if self._killed:
                self._clear()

    async def _run(
        self, message: Mapping[str, Any], blob: bytes, timeout_s: float
    ) -> tuple[CellResult, Mapping[str, Any], bytes]:
        assert self._wire is not None
        started, number, kept = time.monotonic(), random.getrandbits(48), Kept(self.limits.keep_chars)
        with Exchange(self._wire, number, self.limits, kept) as exchange:
            exchange.send(pack({**message, "id": number}, blob))
            outcome = await exchange.outcome(timeout_s, self._watch)
            ending: Outcome = outcome
            if outcome in ("timeout", "output"):
                self._wire.signal(signal.SIGINT)
                grace = self.limits.grace_s if outcome == "timeout" else 0.2
                outcome = await exchange.outcome(grace, self._watch)
            exchange.drain()
            if outcome == "done":
                return self._finished(exchange, ending, timeout_s, started), exchange.answer, exchange.blob
        return await self._lost(ending, kept, timeout_s, started), {}, b""

    def _finished(self, exchange: Exchange, outcome: Outcome, timeout_s: float, started: float) -> CellResult:
        """The report of a cell that ended by itself or at the first SIGINT."""
        answer = exchange.answer
        error, name = text_or_none(answer.get("error")), text_or_none(answer.get("error_name")) or ""
        ending: Ending = "error" if error is not None else "ok"
        note = limit_hint(name, error or "", self.limits)
        if outcome in ("timeout", "output"):
            ending = outcome
            note = why_interrupted(outcome, self.limits, timeout_s)
            error = None
        images, problem = pictures(answer, exchange.blob, self.limits.images)
        return CellResult(
            text=plain(str(exchange.kept)),
            result=plain(result) if (result := text_or_none(answer.get("result"))) is not None else None,
            error=plain(error) if error is not None else None,
            images=images,
            ending=ending,
            note="\n".join(part for part in (note, problem) if part),
            seconds=time.monotonic() - started,
        )

    async def _lost(self, outcome: Outcome, kept: Kept, timeout_s: float, started: float) -> CellResult:
        """The report of a cell that took the interpreter with it."""
        assert self._child is not None
        child, limits = self._child, self.limits
        self.kill()
        exited = Exit()
        with contextlib.suppress(TimeoutError):
            exited = await asyncio.wait_for(asyncio.wrap_future(child.ended), 0.2 if self._is_branch() else 5)
        ending: Ending = "died" if outcome == "done" else outcome
        if ending == "died" and ran_out_of_cpu(exited, limits.cpu_s):
            ending = "cpu"
        return CellResult(
            text=plain(str(kept)),
            ending=ending,
            note=why_lost(ending, limits, timeout_s, exited),
            state_lost=True,
            seconds=time.monotonic() - started,
        )

    def _watch(self) -> Outcome | None:
        """What the session uses too much of, if anything."""
        if self._child is None or self._child.pid < 1:
            return None
        used = usage(self._child.pid, self._baseline)
        if used.memory > self.limits.memory_mb * 2**20:
            return "memory"
        if used.threads > self.limits.processes:
            return "processes"
        if used.cpu_s >= self.limits.cpu_s:
            return "cpu"
        most = self.limits.disk_mb * 2**20
        if self._work is not None and folder_size(self._work, most) + unlinked_size(self._child.pid) > most:
            return "disk"
        return None

    async def _put(self, values: Mapping[str, Any], blobs: Mapping[str, bytes], kind: str) -> None:
        for name in [*values, *blobs]:
            check_name(name)
        if not self.alive or self._wire is None:
            raise SessionDied(_GONE)
        number = random.getrandbits(48)
        sizes = [(name, kind, len(data)) for name, data in blobs.items()]
        try:
            frame = pack({"op": "put", "id": number, "values": dict(values), "blobs": sizes}, b"".join(blobs.values()))
        except BadFrame as error:
            raise ConfigError(f"the values are too large: {error}", hint="bind fewer at a time") from error
        exchange, outcome = await self._ask(number, frame)
        if outcome != "done":
            self.kill()
            raise SessionDied(f"a value could not be bound: {outcome}")
        if problem := exchange.answer.get("error"):  # a picture with a good header and broken pixels, say
            raise ConfigError(f"{', '.join([*values, *blobs])} cannot be bound: {problem}")


class _Family:
    """A session and its branches: they share a sandbox, which lasts until the last of them is closed."""

    def __init__(self, root: ZygoteSession) -> None:
        self.root = root
        self.living: set[ZygoteSession] = set()

    def leave(self, member: ZygoteSession) -> None:
        """`member` is closed; the root's process stays while others live in its sandbox."""
        self.living.discard(member)
        if member is not self.root:
            member.kill()
        elif self.living:
            member.retire()
        if not self.living:
            self.root.kill()
