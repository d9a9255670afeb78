"""Machines that lack something: no bubblewrap, no Landlock, no CadQuery; what is used instead, and what is said."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sandboxes import needs

from tools.errors import ConfigError
from tools.python.command import run_command
from tools.python.isolation import bubblewrap
from tools.python.jupyter import JupyterSession
from tools.python.pool import Pool
from tools.python.session import SessionLimits
from tools.python.tool import SESSIONS, PythonTool, sessions_per_process, shared_pool
from tools.python.zygote import ZygoteSession

ROOT = Path(__file__).parents[3]
LIMITS = SessionLimits(timeout_s=300)

# The system call that asks for Landlock answers as on a kernel that does not know it.
NO_LANDLOCK = """
import struct
from tools.python.inside import kernel_api
kernel_api.no_new_privileges()
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7FFF0000)]
kernel_api.seccomp(b"".join(struct.pack("<HBBI", *step) for step in steps))
"""

ASK = """
import asyncio, json, logging, sys
said = []
class Keep(logging.Handler):
    def emit(self, record): said.append(record.getMessage())
logging.getLogger("tools").addHandler(Keep())
from tools.errors import ConfigError
from tools.python import PythonTool, shared_pool
async def main():
    python = PythonTool(timeout_s=300)
    text = (await python.tool.fn(code="6 * 7")).text
    kind = type(python._session).__name__, getattr(python._session, "tier", None)
    await python.close()
    try:
        shared_pool(minimum="full"); refused = None
    except ConfigError as error:
        refused = f"{error} ({error.hint})"
    print(json.dumps({"text": text, "kind": kind, "said": said, "refused": refused}))
asyncio.run(main())
"""


def ask(before: str = "", **environment: str) -> dict[str, Any]:
    """What `PythonTool` does in a process of its own on such a machine."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    settings.pop("TOOLWEAVE_PYTHON_MINIMUM", None)
    command = [sys.executable, "-c", before + ASK]
    run = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_without_bubblewrap_sessions_run_in_landlock_and_the_package_is_named(tmp_path: Path) -> None:
    needs("landlock")
    if Path(sys.executable).with_name("bwrap").exists():
        pytest.skip("bubblewrap is installed beside this Python, so it cannot be hidden")
    seen = ask(PATH=str(tmp_path))
    assert (seen["text"], seen["kind"]) == ("42", ["ZygoteSession", "landlock"])
    assert "tier landlock, not full: bubblewrap is not installed (apt-get install bubblewrap" in seen["said"][0]
    assert "apt-get install bubblewrap" in seen["refused"]


@pytest.mark.skipif(sys.platform != "linux", reason="the fallback of Linux")
def test_without_landlock_plain_jupyter_is_used_with_a_warning_unless_a_tier_is_asked_for() -> None:
    seen = ask(NO_LANDLOCK)
    assert (seen["text"], seen["kind"]) == ("42", ["JupyterSession", None])
    assert "falling back to plain Jupyter kernels, which isolate nothing" in seen["said"][0]
    assert "this kernel has no Landlock" in seen["refused"]


def test_where_bubblewrap_runs_but_no_session_in_it_landlock_is_next_and_not_plain_jupyter() -> None:
    needs("full")
    needs("landlock")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        broken = Path(folder, "bwrap")  # as where a profile of AppArmor forbids namespaces within namespaces
        broken.write_text(f'#!/bin/sh\ncase "$*" in *true) exec {bubblewrap()} "$@";; esac\necho no >&2; exit 1\n')
        for path in (folder, broken):
            os.chmod(path, 0o755)
        seen = ask(PATH=f"{folder}:{os.environ['PATH']}")
    assert (seen["text"], seen["kind"]) == ("42", ["ZygoteSession", "landlock"])
    assert any("falling back to tier landlock" in line for line in seen["said"])


def test_the_minimum_of_the_environment_holds_for_programs_and_single_sessions_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOLWEAVE_PYTHON_MINIMUM", "landlock")
    with pytest.raises(ConfigError, match="must run in tier landlock or above, and this is none"):
        asyncio.run(run_command(["true"], tier="none"))
    with pytest.raises(ConfigError, match="must run in tier landlock"):
        ZygoteSession(tier="container")
    monkeypatch.setenv("TOOLWEAVE_PYTHON_MINIMUM", "ful")
    with pytest.raises(ConfigError, match="no isolation tier 'ful'"):
        ZygoteSession()


def test_a_tier_that_jupyter_cannot_give_is_refused() -> None:
    with pytest.raises(ConfigError, match="jupyter backend isolates nothing, and tier full is asked for"):
        shared_pool("jupyter", isolation="full")


@pytest.mark.parametrize("wrong", [{"cut": "end"}, {"max_chars": 0}, {"timeout_s": 0.0}, {"timeout_s": float("nan")}])
def test_a_setting_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PythonTool(**wrong)


def test_a_first_session_that_cannot_start_sends_the_pool_to_what_comes_next() -> None:
    def broken() -> ZygoteSession:
        return ZygoteSession(LIMITS, profile="bare", shown=("/no/such/folder",))

    async def play() -> list[str]:
        pool = Pool(broken, size=2, spare=0, otherwise=[("kernels", lambda: JupyterSession(LIMITS), 1)])
        session = await pool.acquire()
        said = [type(session).__name__, str((await session.execute("6 * 7")).result), str(pool.size)]
        await pool.release(session)
        await pool.close()
        return said

    assert asyncio.run(play()) == ["JupyterSession", "42", "1"]


def test_idle_forked_sessions_are_reaped_and_leave_nothing() -> None:
    async def play() -> None:
        pool = Pool(lambda: ZygoteSession(LIMITS, profile="bare"), size=4, spare=3, idle_s=0.2)
        session = await pool.acquire()
        await pool.release(session)
        await asyncio.wrap_future(pool.prestart(3))
        pids = [one.pid for one, _ in list(pool._idle) if isinstance(one, ZygoteSession)]  # pyright: ignore[reportPrivateUsage]
        while pool.live:
            await asyncio.sleep(0.05)
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await asyncio.sleep(0.05)
        await pool.close()

    asyncio.run(asyncio.wait_for(play(), 300))


def test_the_sessions_of_a_node_are_shared_out_among_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sessions_per_process(256) == 256
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert sessions_per_process(256) == 32
    monkeypatch.setenv(SESSIONS, "20")
    assert sessions_per_process(256) == 2
    monkeypatch.setenv(SESSIONS, "many")
    with pytest.raises(ConfigError, match="'many'"):
        sessions_per_process(256)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("cadquery") is None, reason="cadquery is not installed: pip install 'toolweave[cad]'")
def test_the_cad_profile_makes_solids() -> None:
    async def play() -> str | None:
        session = ZygoteSession(SessionLimits(timeout_s=300, memory_mb=4096), profile="cad")
        await session.start()
        await asyncio.wrap_future(session.host.loaded)
        await session.restart()
        result = await session.execute(
            "import cadquery\nbox, ball = cadquery.Workplane().box(2, 3, 4), cadquery.Workplane().sphere(1)\n"
            "round(box.val().Volume(), 6), round(box.intersect(ball).val().Volume(), 4)"
        )
        await session.close()
        assert result.error is None, result
        return result.result

    assert asyncio.run(play()) == "(24.0, 4.1888)"
