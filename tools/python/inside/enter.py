"""Run as root only: show the paths an unprivileged user needs, become that user for good, then execute a command.

Python may live where only root can go, in its home for instance. In a private mount namespace, an empty directory is
put over the first closed one on the way, and what is needed is bound back at its own path.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from pathlib import Path

from . import kernel_api as api


def main() -> None:
    """`argv`: JSON with `uid`, `needed` (paths) and `argv` (the command)."""
    request = json.loads(sys.argv[1])
    closed = _closed_parents([Path(path) for path in request["needed"]])
    if closed:
        _open_up(closed)
    uid = request["uid"]
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    api.no_new_privileges()
    os.chdir("/")
    os.execv(request["argv"][0], request["argv"])


def _closed_parents(needed: list[Path]) -> dict[Path, list[Path]]:
    """The outermost directories that others may not pass, with the needed paths beneath them."""
    closed: dict[Path, list[Path]] = {}
    for path in needed:
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & stat.S_IXOTH:
                closed.setdefault(parent, []).append(path)
                break
    return closed


def _open_up(closed: dict[Path, list[Path]]) -> None:
    api.unshare(api.CLONE_NEWNS)
    api.mount("none", "/", None, api.MS_REC | api.MS_PRIVATE)
    stage = Path(tempfile.mkdtemp(prefix="toolweave-stage-"))
    api.mount("tmpfs", str(stage), "tmpfs", api.MS_NOSUID | api.MS_NODEV, "mode=755,size=1m")
    for number, (parent, paths) in enumerate(closed.items()):
        kept: list[tuple[Path, Path]] = []
        for index, path in enumerate(paths):
            place = stage / f"{number}-{index}"
            place.mkdir()
            api.mount(str(path), str(place), None, api.MS_BIND | api.MS_REC)
            kept.append((place, path))
        api.mount("tmpfs", str(parent), "tmpfs", api.MS_NOSUID | api.MS_NODEV, "mode=755,size=1m")
        for place, path in kept:
            path.mkdir(parents=True, exist_ok=True)
            api.mount(str(place), str(path), None, api.MS_BIND | api.MS_REC)
    api.unmount(str(stage))
    stage.rmdir()
