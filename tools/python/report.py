"""What a session is told and tells, in words; every field it reported was written by untrusted code, and is checked."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from typing import Any

from tools.python.host import Exit
from tools.python.session import LOST, CellResult, Ending, SessionLimits
from tools.python.text import picture_problem


def refused(code: str, limits: SessionLimits) -> CellResult | None:
    """The answer to code that cannot be run as it is, and so is not run at all; None for any other."""
    if len(code) > limits.code_chars:
        text = f"The code has {len(code)} characters; at most {limits.code_chars} are accepted."
        return CellResult(error=text, ending="error")
    try:
        code.encode()
    except UnicodeEncodeError as error:
        text = f"Character {error.start + 1} of the code is half of a surrogate pair ({code[error.start]!a})."
        return CellResult(error=text, ending="error")
    return None


def text_or_none(value: object) -> str | None:
    """A string of a hostile frame, or None for anything else."""
    return value if isinstance(value, str) else None


def pictures(answer: Mapping[str, Any], blob: bytes, most: int) -> tuple[tuple[bytes, ...], str]:
    """The pictures of a report, each checked, and a note on those that were refused or dropped."""
    sizes: object = answer.get("sizes")
    images: list[bytes] = []
    refused, at = 0, 0
    for size in sizes[:most] if isinstance(sizes, list) else []:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(size, int) or size <= 0 or at + size > len(blob):
            refused += 1
            break
        data = blob[at : at + size]
        at += size
        if picture_problem(data) is None:
            images.append(data)
        else:
            refused += 1
    dropped = answer.get("dropped")
    count = refused + (dropped if isinstance(dropped, int) and 0 < dropped < 10**6 else 0)
    return tuple(images), left_out(count)


def left_out(count: int) -> str:
    """A word on pictures that were refused or dropped."""
    return f"({count} picture(s) beyond the limits were left out)" if count else ""


def limit_hint(name: str, error: str, limits: SessionLimits) -> str:
    """A word on a limit that showed itself as an ordinary exception."""
    if name == "MemoryError" or "Unable to allocate" in error:
        return f"The session may use {limits.memory_mb} MB of memory."
    if "No space left on device" in error or "File too large" in error:
        return f"The session may keep {limits.disk_mb} MB of files."
    if "can't start new thread" in error or "Resource temporarily unavailable" in error:
        return f"The session may have {limits.processes} processes and threads."
    return ""


def cause_of(exited: Exit) -> str:
    """How a process died, in brackets; empty when nobody knows."""
    if exited.status is None:
        return ""
    if exited.status < 0:
        with contextlib.suppress(ValueError):
            return f" ({signal.Signals(-exited.status).name})"
    return f" (exit code {exited.status})"


def why_interrupted(ending: Ending, limits: SessionLimits, timeout_s: float) -> str:
    """Why a cell was stopped by a limit that leaves the state as it is, for the model."""
    return f"{_passed(ending, limits, timeout_s)} and was interrupted. Variables set before are kept."


def why_lost(ending: Ending, limits: SessionLimits, timeout_s: float, exited: Exit) -> str:
    """Why the interpreter is gone, for the model."""
    if ending == "died":
        return f"The Python process died while running this code{cause_of(exited)}. {LOST}"
    stubborn = ", could not be interrupted" if ending == "timeout" else ""
    return f"{_passed(ending, limits, timeout_s)}{stubborn} and was killed. {LOST}"


def _passed(ending: Ending, limits: SessionLimits, timeout_s: float) -> str:
    return {
        "timeout": f"The code ran longer than {timeout_s:g} seconds",
        "output": f"The code wrote more than {limits.output_mb} MB",
        "memory": f"The code used more than {limits.memory_mb} MB of memory",
        "processes": f"The code started more than {limits.processes} processes",
        "disk": f"The code wrote more than {limits.disk_mb} MB of files",
        "cpu": f"The session used its {limits.cpu_s:g} seconds of processor time",
        "protocol": "The Python process sent what it must not",
    }[ending]


def ran_out_of_cpu(exited: Exit, limit_s: float) -> bool:
    """Was it the kernel that ended a process for its processor time, before the manager had measured it?

    The kernel counts clock ticks, which can run ahead of the time it reports by a good part of a second. It sends
    SIGXCPU first; it kills only a process that ignored this for 9 more seconds, so the reported time is past the limit.

    >>> ran_out_of_cpu(Exit(status=-signal.SIGXCPU, cpu_s=1.4), 2.0), ran_out_of_cpu(Exit(status=-9, cpu_s=1.4), 2.0)
    (True, False)
    """
    return exited.status == -signal.SIGXCPU or (exited.status == -signal.SIGKILL and exited.cpu_s >= limit_s)
