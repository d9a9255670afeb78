"""A command on a disk that fills: no file of it may grow beyond a number of bytes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_on_small_disk(command: Sequence[str], most: int, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end where a file of more than `most` bytes cannot be written (EFBIG)."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # or compiled modules are cut short too
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, preexec_fn=limit, env=environment, timeout=540
    )
