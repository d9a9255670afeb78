"""What a Python session is, whichever backend runs it: a live interpreter that keeps its state from cell to cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from keyword import iskeyword
from typing import Any, Literal, Protocol, TypeAlias

from tools.errors import ConfigError
from tools.record import record

Ending: TypeAlias = Literal[
    "ok", "error", "timeout", "cpu", "memory", "processes", "disk", "output", "protocol", "died"
]
"""How a cell ended: normally, with an exception of its own, at a limit, or with the interpreter dead."""


LOST = "The state was lost: variables, imports and files are gone."


@record
class SessionLimits:
    """Bounds on one session, enforced from outside wherever the backend can: its code is not trusted."""

    timeout_s: float = 10.0
    """Wall time of one cell, seconds. Then the cell is interrupted; if that fails, the interpreter is killed."""
    grace_s: float = 1.0
    """How long an interrupted cell may take to stop, seconds."""
    cpu_s: float = 600.0
    """Processor time of the session over its life, all processes together, seconds."""
    memory_mb: int = 2048
    """Memory of all processes of the session together, MiB."""
    processes: int = 64
    """Processes and threads of the session."""
    disk_mb: int = 64
    """What the session may keep in its working directory, MiB."""
    output_mb: int = 8
    """What one cell may write; past it the cell is interrupted, and killed if that fails. MiB."""
    keep_chars: int = 65_536
    """How much of a cell's text is kept (head and tail) for the caller to cut further."""
    images: int = 10
    """Pictures kept from one cell."""
    image_side: int = 2048
    """Pictures are scaled down to this many pixels on the longer side, where the backend can do so inside."""
    code_chars: int = 1_000_000
    """Longest cell accepted."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: float = getattr(self, field.name)
            least = 0 if field.name in ("grace_s", "images") else 1 if isinstance(value, int) else 1e-3
            if not value >= least:  # for the system calls that keep a limit, 0 may mean that there is none
                raise ConfigError(f"the limit {field.name} is {value}, and must be {least} or more")


@record
class CellResult:
    """What one cell did."""

    text: str = ""
    """What it wrote to stdout and stderr, in order."""
    result: str | None = None
    """The text form of the value of its last expression."""
    error: str | None = None
    """The traceback, without colours, when the code raised."""
    images: tuple[bytes, ...] = ()
    """Encoded pictures (PNG or JPEG), checked by magic number and header, in the order shown."""
    ending: Ending = "ok"
    note: str = ""
    """For the model, when a limit was met or the interpreter died: what happened, and what became of the state."""
    state_lost: bool = False
    """True when variables, imports and files of the session are gone."""
    seconds: float = 0.0


class SessionDied(RuntimeError):
    """The interpreter ended between cells; `restart` brings up an empty one."""


class Unsupported(ConfigError):
    """The backend cannot do this: what it was asked, and which backend can."""


def check_name(name: str) -> None:
    """Raises `ConfigError` for what cannot be the name of a variable."""
    if not name.isidentifier() or iskeyword(name):
        raise ConfigError(f"{name!r} is not a name that a Python variable can have")


class Session(Protocol):
    """One interpreter. Used by one task at a time, from any event loop.

    `execute` never raises for anything the code does: that is what `CellResult` says. It raises `SessionDied` when
    there was no live interpreter to begin with.
    """

    reusable: bool
    """True when `reset` makes the session good for another episode; otherwise a new one is cheap."""

    @property
    def alive(self) -> bool:
        """False once the interpreter has ended."""
        ...

    async def start(self) -> None:
        """Bring up the interpreter. Raises `ConfigError` when this machine cannot."""
        ...

    async def execute(self, code: str, timeout_s: float | None = None) -> CellResult:
        """Run one cell; `timeout_s` overrides the session's own limit."""
        ...

    async def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the running cell, if there is one."""
        ...

    async def restart(self) -> None:
        """Kill the interpreter and bring up an empty one."""
        ...

    async def reset(self) -> None:
        """Forget names, files and settings, keeping the process. Raises `SessionDied` when that fails."""
        ...

    async def put(self, values: Mapping[str, Any]) -> None:
        """Bind names: JSON values as they are, `bytes` as bytes."""
        ...

    async def put_images(self, images: Mapping[str, bytes]) -> None:
        """Bind names (`image_1`, ...) to Pillow images decoded inside the session from PNG or JPEG bytes."""
        ...

    async def fork(self) -> Session:
        """A second session with a copy of this one's state. Raises `Unsupported` where the backend cannot."""
        ...

    async def close(self) -> None:
        """End the interpreter and remove its files. Safe to call twice."""
        ...

    def kill(self) -> None:
        """The same, at once and without an event loop: for the end of the process."""
        ...
