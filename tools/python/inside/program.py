"""Runs one program for a session: files in, what it prints as it prints it, its exit status, files out."""

from __future__ import annotations

import glob
import os
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

MOST_BYTES = 20 * 2**20
"""Of the files that are handed back."""


def run_program(request: Mapping[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    """The report, and the files' bytes one after another.

    `request`: `argv`, `environment`, `files` (name and size of each piece of `blob`; the last piece is the standard
    input) and `keep` (patterns of the files to hand back). What the program writes goes where this process's output
    goes. A KeyboardInterrupt ends the program, not what is done with its files.
    """
    report: dict[str, Any] = {"error": None, "status": None, "files": [], "left_out": 0}
    at = 0
    for name, size in request["files"]:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(blob[at : at + size])
        at += size
    with tempfile.TemporaryFile() as given:
        given.write(blob[at:])
        given.seek(0)
        try:
            process = subprocess.Popen(request["argv"], stdin=given, env={**os.environ, **request["environment"]})
        except OSError as error:
            return report | {"error": f"{type(error).__name__}: {error}", "error_name": type(error).__name__}, b""
        try:
            report["status"] = process.wait()
        except KeyboardInterrupt:
            process.kill()
            process.wait()
    pieces: list[bytes] = []
    room = MOST_BYTES
    for name in sorted({found for pattern in request["keep"] for found in glob.glob(pattern, recursive=True)}):
        data = _content(name, room)
        if data is not None:
            report["files"].append((name, len(data)))
            pieces.append(data)
            room -= len(data)
        elif os.path.isfile(name) and not os.path.islink(name):
            report["left_out"] += 1
    return report, b"".join(pieces)


def _content(name: str, room: int) -> bytes | None:
    """The bytes of a regular file, if there is room for them."""
    try:
        about = os.lstat(name)
        if not stat.S_ISREG(about.st_mode) or about.st_size > room:
            return None
        with open(name, "rb") as file:
            data = file.read(room + 1)
            return data if len(data) <= room else None
    except OSError:
        return None
