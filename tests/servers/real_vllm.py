"""A real vLLM server for the tests that ask for one, started as `make serve` starts it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "serve_vllm.py"
START_S = 1500.0


@contextmanager
def real_vllm(log: Path, *options: str) -> Iterator[str]:
    """The address of a server of the tiny model in float32; skips the test, with the reason, where there is none.

    TOOLWEAVE_VLLM_URL names one that already runs: `make serve MODEL=tiny OPTIONS="--dtype float32"`.
    """
    running = os.environ.get("TOOLWEAVE_VLLM_URL")
    if running:
        yield running
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with own_vllm(log, port, *options):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def own_vllm(log: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server of one's own at `port`, which may be killed: its process, which leads a group of its own."""
    if not (os.environ.get("TOOLWEAVE_VLLM") or (SCRIPT.parents[1] / ".venv-vllm").exists()):
        pytest.skip("vLLM is not set up here: `make serve` does that, or TOOLWEAVE_VLLM names a Python that has it")
    command = [sys.executable, str(SCRIPT), "--model", "tiny", "--port", str(port), "--dtype", "float32", *options]
    with log.open("wb") as out:
        # A session of its own, so that its workers end with it.
        server = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        _wait_for(server, f"http://127.0.0.1:{port}/health", log)
        yield server
    finally:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):  # a test has killed it
                os.killpg(server.pid, ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(60)
                break


def _wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if server.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            pytest.skip(f"the vLLM server ended with code {server.returncode}: {' '.join(last)[:300]}")
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1.0)
    pytest.skip(f"the vLLM server was not ready within {START_S:.0f} seconds")
