"""Programs other than Python in the same sandbox: compilers, simulators and provers that run what a model wrote."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, cast

from tools.errors import ConfigError
from tools.python.inside.frames import BadFrame
from tools.python.inside.program import MOST_BYTES
from tools.python.isolation import Tier
from tools.python.session import CellResult, Ending, SessionLimits
from tools.python.zygote import ZygoteSession
from tools.record import record


@record
class CommandResult:
    """What a program did. It never raises for what the program does."""

    text: str = ""
    """What it wrote to its standard output and error, in the order written."""
    status: int | None = None
    """Its exit status, minus the number of the signal that ended it, or None when it was stopped at a limit."""
    files: Mapping[str, bytes]
    """The files asked for, by their name in the working directory."""
    ending: Ending = "ok"
    """`ok` whatever the status, `error` when its files could not be written, else the limit that stopped it."""
    note: str = ""
    """For the model, when it was stopped: why; or how many of the files asked for were too large to be handed back."""
    seconds: float = 0.0


async def run_command(
    argv: Sequence[str],
    *,
    files: Mapping[str, str | bytes] | None = None,
    stdin: str | bytes = b"",
    keep: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    limits: SessionLimits | None = None,
    tier: Tier | None = None,
    programs: Sequence[str] = (),
) -> CommandResult:
    """Run `argv` once, without a shell, in a sandbox and an empty directory of its own, which are gone afterwards.

    `files` are put into that directory first; `keep` are names or patterns (`**/*.vcd`) of what is handed back, at most
    20 MiB. `limits`: as for a session; wall time is `timeout_s`. `programs`: folders outside /usr that hold the program
    and what it needs. Raises `ConfigError` when the program is not there or the tier cannot be had.

    >>> import asyncio
    >>> async def example():
    ...     return await run_command(["sort", "-n", "numbers"], files={"numbers": "10\\n9\\n"})
    >>> asyncio.run(example()).text
    '9\\n10\\n'
    """
    limits = limits or SessionLimits()
    given = {_inside(name): _bytes(content) for name, content in (files or {}).items()}
    for pattern in keep:
        _inside(pattern)
    _startable(argv, environment or {})
    request: dict[str, Any] = {
        "op": "run",
        "argv": list(argv),
        "environment": dict(environment or {}),
        "files": [(name, len(content)) for name, content in given.items()],
        "keep": list(keep),
    }
    session = ZygoteSession(limits, tier=tier, profile="bare", shown=tuple(programs))
    await session.start()
    try:
        result, answer, blob = await session.request(
            request, b"".join((*given.values(), _bytes(stdin))), limits.timeout_s
        )
    except BadFrame as error:
        raise ConfigError(f"the files, input and arguments are too large: {error}") from error
    finally:
        await session.close()
    if answer.get("error_name") in ("FileNotFoundError", "PermissionError", "NotADirectoryError"):
        raise ConfigError(
            f"the program {argv[0]!r} cannot be started in the sandbox: {result.error}",
            hint="install it; if it lives outside /usr, name its folder in `programs`",
        )
    return _told(result, answer, blob, limits)


def _told(result: CellResult, answer: Mapping[str, Any], blob: bytes, limits: SessionLimits) -> CommandResult:
    """The report of the other side, every field of which a program may have forged: of the right type, or dropped."""
    status, ending = answer.get("status"), result.ending
    if status == -signal.SIGXCPU:  # the kernel was quicker than the manager
        ending = "cpu"
    return CommandResult(
        text=result.text if result.error is None else f"{result.text}{result.error}\n",
        status=status if isinstance(status, int) and ending == "ok" else None,
        files=_files(answer.get("files"), blob),
        ending=ending,
        note=_note(ending, limits) or _left_out(answer.get("left_out")),
        seconds=result.seconds,
    )


def _files(listed: object, blob: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    at = 0
    for entry in cast("list[object]", listed) if isinstance(listed, list) else []:
        match entry:
            case [str(name), int(size)] if 0 <= size <= len(blob) - at:
                if _is_inside(name):
                    found[name] = blob[at : at + size]
                at += size
            case _:
                break
    return found


def _note(ending: Ending, limits: SessionLimits) -> str:
    return {
        "timeout": f"The program ran longer than {limits.timeout_s:g} seconds and was stopped.",
        "cpu": f"The program used its {limits.cpu_s:g} seconds of processor time and was stopped.",
        "memory": f"The program used more than {limits.memory_mb} MB of memory and was stopped.",
        "processes": f"The program started more than {limits.processes} processes and was stopped.",
        "disk": f"The program wrote more than {limits.disk_mb} MB of files and was stopped.",
        "output": f"The program wrote more than {limits.output_mb} MB and was stopped.",
        "protocol": "The program meddled with what ran it and was stopped.",
        "died": "The program ended what ran it.",
    }.get(ending, "")


def _left_out(count: object) -> str:
    known = isinstance(count, int) and 0 < count < 10**6
    return f"({count} file(s) beyond {MOST_BYTES // 2**20} MiB were left out)" if known else ""


def _startable(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raises `ConfigError` for what no program can be given."""
    if not argv or not argv[0]:
        raise ConfigError("argv names no program")
    for text in (*argv, *environment, *environment.values()):
        try:
            bad = b"\0" in os.fsencode(text)
        except UnicodeEncodeError:
            bad = True
        if bad:
            raise ConfigError(f"{text[:80]!a} holds a NUL or half of a surrogate pair, which no program can be given")
    for name in environment:
        if not name or "=" in name:
            raise ConfigError(f"{name!r} cannot be the name of an environment variable")


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _inside(name: str) -> str:
    if not _is_inside(name):
        raise ConfigError(f"{name!r} is not the name of a file within the working directory")
    return name


def _is_inside(name: str) -> bool:
    """A relative path that climbs nowhere.

    >>> [_is_inside(name) for name in ("a.v", "out/b.vcd", "/etc/passwd", "../x", "a/../../x", "", "a\\0b")]
    [True, True, False, False, False, False, False]
    """
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name
