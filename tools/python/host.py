"""The manager's side of a zygote: starts it, asks it for sessions, hears of their deaths, replaces it when it dies."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import json
import logging
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import IO, Any, final

from tools.errors import ConfigError
from tools.python.background import background_loop
from tools.python.isolation import Tier, session_uid, zygote_command
from tools.python.workdir import remove_folder
from tools.record import record

log = logging.getLogger(__name__)

_hosts: dict[tuple[Tier, tuple[str, ...], tuple[str, ...]], ZygoteHost] = {}
_lock = threading.Lock()


@record
class Exit:
    """How a process ended; `status` as `os.waitstatus_to_exitcode` has it, None when the zygote died first."""

    status: int | None = None
    cpu_s: float = 0.0


@record
class Child:
    """A forked session."""

    pidfd: int
    pid: int
    """In this process's pid namespace."""
    ended: Future[Exit]


def host_for(tier: Tier, modules: tuple[str, ...], shown: tuple[str, ...] = ()) -> ZygoteHost:
    """The process-wide zygote for a tier, a set of preloaded modules and the folders shown beside the usual ones."""
    with _lock:
        if (tier, modules, shown) not in _hosts:
            _hosts[tier, modules, shown] = ZygoteHost(tier, modules, shown)
        return _hosts[tier, modules, shown]


@final
class ZygoteHost:
    """One zygote, restarted when it dies. Its methods run on the background loop."""

    def __init__(self, tier: Tier, modules: tuple[str, ...], shown: tuple[str, ...] = ()) -> None:
        self.tier: Tier = tier
        self.modules = modules
        self.shown = shown
        self.loaded: Future[dict[str, str]] = Future()
        """Set once the profile is loaded: what could not be imported, and why."""
        self.uid = session_uid()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._errors: IO[bytes] | None = None
        self._up: asyncio.Future[None] | None = None
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._living: dict[int, tuple[Future[Exit], Callable[[], None]]] = {}
        self._ids = itertools.count(1)
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process started for the zygote (bubblewrap's, in tier full), for tests and reports."""
        return self._process.pid if self._process else None

    async def fork(self, request: dict[str, Any], fds: Sequence[int], kill: Callable[[], None]) -> Child:
        """A new session holding `fds`. `kill` is called if the zygote dies while the session lives."""
        losses = 0
        give_up = time.monotonic() + 60
        while losses < 20 and time.monotonic() < give_up:
            await self._ready()
            number = next(self._ids)
            answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._asked[number] = answer
            ended: Future[Exit] = Future()
            self._living[number] = (ended, kill)
            try:
                if self._control is None:
                    raise ConnectionError("the zygote ended")
                message = json.dumps({"op": "fork", "id": number, **request}).encode()
                socket.send_fds(self._control, [message], list(fds))
                pidfd = await asyncio.wait_for(answer, 60)
                return Child(pidfd=pidfd, pid=_pid_of(pidfd), ended=ended)
            except BlockingIOError:  # it lives and is behind with earlier requests
                self._living.pop(number, None)
                await asyncio.sleep(0.05)
            except TimeoutError:
                break
            except ConnectionError as error:
                self._living.pop(number, None)
                losses += 1
                log.info("a session could not be forked, trying again: %s", error)
                await asyncio.sleep(0.02)
            finally:
                self._asked.pop(number, None)
        what = "died again and again" if losses else "took no request for 60 seconds"
        raise ConfigError(f"the Python zygote {what} while starting a session", hint=self._said() or None)

    def kill(self) -> None:
        """End the zygote, and so every session of it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._control is not None:
            self._control.close()
        if self._errors is not None:
            self._errors.close()
        self._process = self._control = self._errors = None

    async def _ready(self) -> None:
        async with self._starting:
            for attempt in range(3):
                if self._control is not None:
                    return
                try:
                    await self._start()
                except ConnectionError as error:
                    said = self._said()
                    log.warning("the Python zygote (tier %s) did not start: %s", self.tier, said or error)
                    if attempt == 2:
                        raise ConfigError(
                            f"the Python sandbox (tier {self.tier}) did not start: {said or error}"
                        ) from error

    async def _start(self) -> None:
        if self._errors is not None:
            self._errors.close()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the zygote
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with contextlib.ExitStack() as stack:
            stack.enter_context(theirs)
            stack.callback(ours.close)
            command, environment = zygote_command(self.tier, theirs.fileno(), self.modules, self.shown)
            self._process = subprocess.Popen(
                command,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                cwd="/",
                start_new_session=True,
            )
            stack.pop_all()
            theirs.close()
        self._control = ours
        loop = asyncio.get_running_loop()
        self._up = loop.create_future()
        loop.add_reader(ours.fileno(), self._on_message, ours)
        try:
            await asyncio.wait_for(asyncio.shield(self._up), 60)
        except TimeoutError as error:
            self._lost(ours)
            raise ConnectionError("it was not ready within 60 seconds") from error

    def _said(self) -> str:
        """The last line the zygote wrote to stderr."""
        if self._errors is None:
            return ""
        # The zygote shares this file's position, so it must not be moved by reading.
        size = os.fstat(self._errors.fileno()).st_size
        written = os.pread(self._errors.fileno(), 4000, max(0, size - 4000))
        lines = written.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _on_message(self, control: socket.socket) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(control, 65536, 4, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._lost(control)
                return
            self._heard(json.loads(data), fds)

    def _heard(self, message: dict[str, Any], fds: list[int]) -> None:
        op, number = message["op"], message.get("id", 0)
        answer = self._asked.get(number)
        if op == "up" and self._up is not None and not self._up.done():
            self._up.set_result(None)
        elif op == "loaded":
            if not self.loaded.done():
                self.loaded.set_result(message["missing"])
        elif op == "forked" and answer is not None and not answer.done() and fds:
            answer.set_result(fds.pop(0))
        elif op == "failed" and answer is not None and not answer.done():
            self._living.pop(number, None)
            answer.set_exception(ConfigError(f"a Python session could not be forked: {message['error']}"))
        elif op == "exit" and number in self._living:
            ended, _ = self._living.pop(number)
            if not ended.done():  # whoever waited may have given up
                ended.set_result(Exit(status=message["status"], cpu_s=message["cpu"]))
        for fd in fds:
            os.close(fd)

    def _lost(self, control: socket.socket) -> None:
        """The zygote is gone: so are its sessions, or they soon will be."""
        if control.fileno() < 0:  # known already
            return
        background_loop().remove_reader(control.fileno())
        control.close()
        if self._control is control:
            self._control = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        for ended, kill in list(self._living.values()):
            kill()
            if not ended.done():
                ended.set_result(Exit())
        self._living.clear()
        lost = ConnectionError("the zygote ended")
        for waiting in [*self._asked.values(), *([self._up] if self._up else [])]:
            if not waiting.done():
                waiting.set_exception(lost)
                waiting.exception()  # whoever still waits hears of it; whoever was cancelled need not


def _pid_of(pidfd: int) -> int:
    """The pid a pidfd stands for, as this process sees it; -1 when it has ended."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return -1


async def remove_after(child: Child, work: str) -> None:
    """Remove a directory that its dying owner may still have been writing to."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.wrap_future(child.ended), 5)
    remove_folder(work)


@atexit.register
def kill_all() -> None:
    """End every zygote of this process."""
    for host in list(_hosts.values()):
        host.kill()


def _forget() -> None:
    """After a fork: the zygotes belong to the parent."""
    _hosts.clear()


os.register_at_fork(after_in_child=_forget)
