"""Sessions on plain jupyter-client and ipykernel: no isolation, works everywhere; the base line and the fallback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import queue
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from tools.errors import ConfigError
from tools.python.background import from_background
from tools.python.host import Exit
from tools.python.report import left_out, refused, why_interrupted, why_lost
from tools.python.session import CellResult, Ending, Session, SessionDied, SessionLimits, Unsupported, check_name
from tools.python.text import Kept, picture_problem, plain
from tools.python.workdir import new_workdir, passed_environment

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.manager import AsyncKernelManager

_SETUP = """
def _toolweave_setup():
    import builtins, os, random, sys
    shell = get_ipython()
    shell.display_formatter.active_types = ["text/plain", "image/png", "image/jpeg"]
    cwd, environ, path, limit = os.getcwd(), dict(os.environ), list(sys.path), sys.getrecursionlimit()
    names = dict(vars(builtins))
    streams = sys.stdout, sys.stderr, sys.stdin
    def reset():
        sys.stdout, sys.stderr, sys.stdin = streams
        vars(builtins).update(names)
        for added in set(vars(builtins)) - set(names):
            del vars(builtins)[added]
        sys.path[:] = path; sys.setrecursionlimit(limit)
        os.environ.clear(); os.environ.update(environ)
        os.chdir(cwd)
        import shutil
        for entry in os.scandir(cwd):
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
        sys.modules["__main__"].__dict__.pop("__annotations__", None)
        shell.reset(new_session=True)
        random.seed(0)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(0)
    shell.toolweave_reset = reset
    random.seed(0)
_toolweave_setup(); del _toolweave_setup
"""

_RESET = "get_ipython().toolweave_reset()"


@final
class JupyterSession(Session):
    """One ipykernel process, spoken to over Unix sockets in a directory of its own.

    >>> async def example():
    ...     session = JupyterSession()
    ...     await session.start()
    ...     await session.execute("x = 20")
    ...     result = await session.execute("x + 1")
    ...     await session.close()
    ...     return result.result
    >>> asyncio.run(example())
    '21'
    """

    reusable = True

    def __init__(self, limits: SessionLimits | None = None) -> None:
        self.limits = limits or SessionLimits()
        self._manager: AsyncKernelManager | None = None
        self._client: AsyncKernelClient | None = None
        self._home: Path | None = None
        self._pid: int | None = None
        self._alive = False

    @property
    def alive(self) -> bool:
        """False once the kernel has ended, as far as was noticed."""
        return self._alive and self._running()

    async def start(self) -> None:
        """Start a kernel and wait until it answers: 1 to 3 seconds."""
        await from_background(self._start())

    async def execute(self, code: str, timeout_s: float | None = None) -> CellResult:
        """See `Session.execute`."""
        if not self.alive:
            raise SessionDied("the kernel is not running")
        if answer := refused(code, self.limits):
            return answer
        limit = self.limits.timeout_s if timeout_s is None else timeout_s
        return await from_background(self._execute(code, limit))

    async def interrupt(self) -> None:
        """Send SIGINT to the kernel."""
        if self._manager is not None and self.alive:
            await from_background(_interrupt(self._manager))

    async def restart(self) -> None:
        """Kill the kernel and start another in an empty directory."""
        await self.close()
        await self.start()

    async def reset(self) -> None:
        """Clear names, files, environment and settings. What code patched in modules stays: see `Pool(fresh=True)`."""
        result = await self.execute(_RESET, timeout_s=5.0)
        if result.ending != "ok":
            self.kill()
            raise SessionDied(f"the kernel could not be reset: {result.error or result.note}")

    async def put(self, values: Mapping[str, Any]) -> None:
        """Bind names to JSON values or bytes."""
        lines = ["import base64 as _b64, json as _json"]
        for name, value in values.items():
            check_name(name)
            if isinstance(value, bytes):
                lines.append(f"{name} = _b64.b64decode({base64.b64encode(value).decode()!r})")
            else:
                lines.append(f"{name} = _json.loads({json.dumps(value)!r})")
        await self._quietly("\n".join([*lines, "del _b64, _json"]))

    async def put_images(self, images: Mapping[str, bytes]) -> None:
        """Bind names to Pillow images."""
        for name, data in images.items():
            if problem := picture_problem(data):
                raise ConfigError(f"{name}: {problem}")
        await self.put(images)
        await self._quietly(
            "import io as _io, PIL.Image as _pil\n"
            + "\n".join(f"{name} = _pil.open(_io.BytesIO({name})); {name}.load()" for name in images)
            + "\ndel _io, _pil"
        )

    async def fork(self) -> Session:
        """Not possible here."""
        raise Unsupported("a Jupyter kernel cannot be forked", hint="the zygote backend can, on Linux")

    async def close(self) -> None:
        """Kill the kernel and remove its directory."""
        if self._manager is not None or self._home is not None:
            await from_background(self._close())

    def kill(self) -> None:
        """Kill the kernel's process group and remove its directory, without a loop."""
        self._alive = False
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)

    async def _start(self) -> None:
        from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager

        class ThisPython(KernelSpecManager):
            """ipykernel of the running interpreter, whatever kernels the user has installed."""

            def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
                argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
                return KernelSpec(argv=argv, display_name=kernel_name, language="python")

        self._home = new_workdir()
        work = self._home / "work"
        work.mkdir()
        self._manager = manager = AsyncKernelManager(
            kernel_spec_manager=ThisPython(), transport="ipc", connection_file=str(self._home / "k.json")
        )
        # jupyter-client tells the kernel our pid; the kernel polls its parent and ends itself when we are killed.
        await manager.start_kernel(  # pyright: ignore[reportUnknownMemberType]
            cwd=str(work),
            env=passed_environment(self._home, work),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            extra_arguments=[
                "--InteractiveShell.colors=nocolor",
                "--InteractiveShell.xmode=Plain",
                "--HistoryManager.enabled=False",
            ],
        )
        self._pid = getattr(manager.provisioner, "pid", None)
        self._client = client = manager.client()
        try:
            client.start_channels()
            await client.wait_for_ready(timeout=120)
        except RuntimeError as error:
            await self._close()
            raise ConfigError(
                f"a Python kernel did not start: {error}", hint=f"try: {sys.executable} -m ipykernel_launcher"
            ) from error
        except BaseException:
            self.kill()
            raise
        self._alive = True
        await self._execute(_SETUP, 30.0)

    def _running(self) -> bool:
        if self._manager is None or self._pid is None:
            return False
        process = getattr(self._manager.provisioner, "process", None)
        return process is not None and process.poll() is None

    async def _quietly(self, code: str) -> None:
        """Run code of ours: a picture makes it longer than a cell may be."""
        if not self.alive:
            raise SessionDied("the kernel is not running")
        result = await from_background(self._execute(code, 30.0))
        if result.ending == "error":  # a picture with a good header and broken pixels, say
            raise ConfigError(f"a value cannot be bound: {result.error}")
        if result.ending != "ok":
            raise SessionDied(f"a value could not be bound: {result.note}")

    async def _execute(self, code: str, timeout_s: float) -> CellResult:
        cell = _Cell(self.limits)
        started = time.monotonic()
        assert self._client is not None
        ending: Ending | None = None
        try:
            request = self._client.execute(code, allow_stdin=False, store_history=True)
            ending = await self._follow(request, cell, started + timeout_s)
            if ending in ("timeout", "output"):
                stopped = await self._stop_cell(request, cell)
                if stopped:
                    cell.note = why_interrupted(ending, self.limits, timeout_s)
                else:
                    cell.note = why_lost(ending, self.limits, timeout_s, Exit())
        finally:
            if ending is None:  # cancelled half-way: what the kernel is doing now is anybody's guess
                self.kill()
        if ending == "died":
            cell.note = why_lost(ending, self.limits, timeout_s, Exit())
            self.kill()
        return cell.done(ending or "ok", lost=not self._alive, seconds=time.monotonic() - started)

    async def _follow(self, request: str, cell: _Cell, deadline: float) -> Ending:
        """Read messages of this request until the kernel is idle, dead, late, or has written too much."""
        assert self._client is not None
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout"
            try:
                message = await self._client.get_iopub_msg(timeout=min(left, 0.2))
            except queue.Empty:
                if not self._running():
                    return "died"
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return "error" if cell.error is not None else "ok"
            cell.add(kind, content)
            if cell.written > self.limits.output_mb * 2**20:
                return "output"

    async def _stop_cell(self, request: str, cell: _Cell) -> bool:
        """Interrupt, then kill. True when the cell stopped and the state is intact."""
        assert self._manager is not None
        await _interrupt(self._manager)
        rest = _Cell(self.limits)  # the KeyboardInterrupt traceback says nothing that the note does not
        if await self._follow(request, rest, time.monotonic() + self.limits.grace_s) in ("ok", "error"):
            return True
        self.kill()
        return False

    async def _close(self) -> None:
        self.kill()
        if self._client is not None:
            self._client.stop_channels()
        if self._manager is not None:
            with contextlib.suppress(Exception):
                await self._manager.shutdown_kernel(now=True)  # pyright: ignore[reportUnknownMemberType]
        self._client = self._manager = self._pid = None


async def _interrupt(manager: AsyncKernelManager) -> None:
    await manager.interrupt_kernel()  # pyright: ignore[reportUnknownMemberType]


class _Cell:
    """What one cell has produced so far."""

    def __init__(self, limits: SessionLimits) -> None:
        self.limits = limits
        self.text = Kept(limits.keep_chars)
        self.result: str | None = None
        self.error: str | None = None
        self.note = ""
        self.written = 0
        self.images: list[bytes] = []
        self.left_out = 0

    def add(self, kind: str, content: Mapping[str, Any]) -> None:
        if kind == "stream":
            self.written += len(content["text"])
            self.text.add(content["text"])
        elif kind == "error":
            self.error = plain("\n".join(content["traceback"]))
        elif kind in ("execute_result", "display_data"):
            self._show(kind, content["data"])

    def _show(self, kind: str, data: Mapping[str, str]) -> None:
        encoded = data.get("image/png") or data.get("image/jpeg")
        self.written += sum(map(len, data.values()))
        picture = base64.b64decode(encoded) if encoded else b""
        if picture and picture_problem(picture) is None and len(self.images) < self.limits.images:
            self.images.append(picture)
        elif picture:
            self.left_out += 1
        elif kind == "execute_result":
            self.result = plain(data.get("text/plain", ""))
        else:
            self.text.add(data.get("text/plain", "") + "\n")

    def done(self, ending: Ending, *, lost: bool, seconds: float) -> CellResult:
        return CellResult(
            text=plain(str(self.text)),
            result=self.result,
            error=self.error,
            images=tuple(self.images),
            ending=ending,
            note="\n".join(part for part in (self.note, left_out(self.left_out)) if part),
            state_lost=lost,
            seconds=seconds,
        )
