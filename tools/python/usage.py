"""What a session uses: memory, processor time, processes and files of all its processes, as the kernel tells them."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from tools.record import record

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """`pid` and its descendants."""
    found, at = [pid], 0
    while at < len(found):
        with contextlib.suppress(OSError):
            for task in entries(f"/proc/{found[at]}/task"):
                found += [int(child) for child in Path(task.path, "children").read_text().split()]
        at += 1
    return found


@record
class Usage:
    """What a process and its descendants use."""

    memory: int = 0
    """Bytes of private and of shared memory. Pages shared by fork count each time."""
    threads: int = 0
    """Of processes that have not ended."""
    cpu_s: float = 0.0
    """Processor time so far, seconds; of descendants that have ended too, where somebody waited for them."""


def usage(pid: int, given: int = 0) -> Usage:
    """What `pid` and its descendants use now; what has ended in between counts for nothing.

    `given`: so many bytes of each process are not counted, as they were there when the session began.
    """
    memory = threads = ticks = 0
    for member in tree(pid):
        with contextlib.suppress(OSError, IndexError, ValueError):
            memory += max(0, _memory(member) - given)
            with open(f"/proc/{member}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
            threads += int(fields[17]) if fields[0] != "Z" else 0
    return Usage(memory=memory, threads=threads, cpu_s=ticks / _TICKS)


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in `folder` now; the folder does not stay open, whatever happens to whoever looks through it."""
    with os.scandir(folder) as found:
        return list(found)


def _memory(pid: int) -> int:
    """Bytes of a process that no file holds. It is told under any of its threads that has not ended: the first may."""
    text = Path(f"/proc/{pid}/status").read_bytes()
    if b"\nRssAnon:" not in text:
        for task in entries(f"/proc/{pid}/task"):
            text = Path(task.path, "status").read_bytes()
            if b"\nRssAnon:" in text:
                break
    kinds = (line.split() for line in text.splitlines() if line.startswith((b"RssAnon:", b"RssShmem:")))
    return sum(int(words[1]) * 1024 for words in kinds)


def folder_size(root: str, most: int) -> int:
    """Bytes of the files beneath `root`; stops counting past `most`. Every file counts for a block at least, and a
    folder that was closed to the one who counts for more than `most`."""
    total = 0
    stack = [root]
    while stack and total <= most:
        if not os.access(stack[-1], os.R_OK | os.X_OK) and os.path.exists(stack[-1]):
            return most + 1
        with contextlib.suppress(OSError):
            for entry in entries(stack.pop()):
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                with contextlib.suppress(OSError):
                    total += max(entry.stat(follow_symlinks=False).st_blocks * 512, 4096)
                if total > most:
                    break
    return total


def unlinked_size(pid: int) -> int:
    """Bytes of the files that `pid` and its descendants hold open and that have no name any more."""
    found: dict[tuple[int, int], int] = {}
    for member in tree(pid):
        with contextlib.suppress(OSError):
            for entry in entries(f"/proc/{member}/fd"):
                with contextlib.suppress(OSError):
                    about = entry.stat()
                    if stat.S_ISREG(about.st_mode) and about.st_nlink == 0:
                        found[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(found.values())


def tasks_of_user() -> int:
    """How many threads this user has now, over the whole machine: what a session's process limit is counted from."""
    uid = os.getuid() or None
    if uid is None:
        return 0
    count = 0
    for entry in entries("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    count += len(os.listdir(f"{entry.path}/task"))
    return count


def named_by(claim: object, root: int) -> int | None:
    """The process beneath `root` that calls itself `claim` in its pid namespace; a false claim can name no other."""
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("NSpid:") and line.split()[-1] == str(claim) and pid != root:
                    return pid
    return None
