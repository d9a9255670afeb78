"""Zygote sessions: IPython semantics, every limit and its words, time-outs, pictures; in each tier of this machine."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from typing import Any

import pytest
from sandboxes import needs

from tools.errors import ConfigError
from tools.python.isolation import Tier
from tools.python.jupyter import JupyterSession
from tools.python.replay import replay
from tools.python.session import LOST, CellResult, Session, SessionDied, SessionLimits
from tools.python.zygote import ZygoteSession

# Time limits that a busy machine does not meet by itself: a test that should meet one sets its own.
LIMITS = SessionLimits(timeout_s=300, grace_s=60, memory_mb=512, disk_mb=16, output_mb=2, processes=32)


def cells(tier: Tier, *codes: str, timeout_s: float | None = None, limits: SessionLimits = LIMITS) -> list[CellResult]:
    """The results of cells run one after another in a new session."""

    async def play() -> list[CellResult]:
        session = ZygoteSession(limits, tier=tier)
        await session.start()
        try:
            return [await session.execute(code, timeout_s) for code in codes if session.alive]
        finally:
            await session.close()

    return asyncio.run(play())


def run(tier: Tier, code: str, **options: Any) -> CellResult:
    return cells(tier, code, **options)[0]


def test_state_persists_and_the_last_expression_is_echoed(tier: Tier) -> None:
    first, second, third = cells(tier, "x = 20", "print('hm'); x + 1", "_ * 2")
    assert (first.text, first.result) == ("", None)
    assert (second.text, second.result) == ("hm\n", "21")
    assert third.result == "42"


def test_magics_shell_commands_and_top_level_await_work(tier: Tier) -> None:
    timed, shell, awaited, caught = cells(
        tier,
        "%timeit -n 2 -r 1 1 + 1",
        "print('before')\n!echo shell; echo error >&2",
        "import asyncio\nawait asyncio.sleep(0.01)\n5",
        "out = !echo caught\nout",
    )
    assert "per loop" in timed.text
    assert shell.text == "before\nshell\nerror\n"
    assert awaited.result == "5"
    assert caught.result == "['caught']"


def test_threads_subprocesses_temporary_files_and_libraries_work(tier: Tier) -> None:
    results = cells(
        tier,
        "import threading; t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()",
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'print(6 * 7)'], text=True, capture_output=True).stdout",
        "import tempfile; f = tempfile.NamedTemporaryFile('w+'); f.write('temp'); f.seek(0); f.read()",
        "import asyncio, threading\nasync def main(): return 7\nprint(asyncio.get_event_loop_policy() is not None)",
        "import numpy as np, sympy; int(np.arange(4).sum()), str(sympy.factor('x**2-1'))",
    )
    assert [result.error for result in results] == [None] * 5
    assert results[0].text == "thread\n"
    assert results[1].result == "'42\\n'"
    assert results[2].result == "'temp'"
    assert results[4].result == "(6, '(x - 1)*(x + 1)')"


def test_multiprocessing_works_in_the_full_tier() -> None:
    needs("full")
    code = "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: r = p.map(abs, [-1, 2])\nr"
    result = run("full", code)
    assert result.result == "[1, 2]", result


def test_errors_are_plain_tracebacks_of_the_models_own_code(tier: Tier) -> None:
    zero, syntax, missing, leave = cells(
        tier, "def f(): return 1 / 0\nf()", "def f(:", "open('missing')", "import sys; sys.exit(3)"
    )
    assert zero.error is not None
    assert zero.error.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "line 1, in f" in zero.error or "in f" in zero.error
    assert "SyntaxError" in (syntax.error or "")
    assert "interactiveshell" not in (missing.error or "interactiveshell")
    assert "SystemExit: 3" in (leave.error or "")
    assert leave.text == ""  # and not IPython's advice to press Ctrl-D
    assert not any(result.state_lost for result in (zero, syntax, missing, leave))


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("while True: pass", True),
        ("import time; time.sleep(60)", True),
        ("7 ** (10 ** 8)", True),
        ("import re; re.match(r'(a+)+$', 'a' * 40 + 'b')", True),
        ("import subprocess; subprocess.run(['sleep', '60'])", True),
        ("numpy.linalg.svd(grid, compute_uv=False)", False),
        ("sum(range(10 ** 11))", False),
        ("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", False),
        ("import time\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass", False),
    ],
)
def test_a_time_out_interrupts_and_kills_only_where_it_must(tier: Tier, code: str, kept: bool) -> None:
    async def play() -> None:
        session = ZygoteSession(LIMITS if kept else dataclasses.replace(LIMITS, grace_s=0.4), tier=tier)
        await session.start()
        await session.execute("import numpy; x, grid = 1, numpy.random.rand(3000, 3000)")
        late = await session.execute(code, 0.4)
        assert late.ending == "timeout"
        assert late.state_lost is not kept
        assert ("Variables set before are kept" if kept else LOST) in late.note
        assert session.alive is kept
        if kept:
            assert (await session.execute("x")).result == "1"
        await session.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os._exit(3)", "(exit code 3)"),
        ("import ctypes; ctypes.string_at(0)", "(SIGSEGV)"),
        ("import os; os.closerange(0, 1000)", ""),
    ],
)
def test_a_death_is_noticed_at_once_with_its_cause_and_what_was_printed(tier: Tier, code: str, cause: str) -> None:
    result = run(tier, f"print('last words')\n{code}")
    assert result.ending == "died"  # and not "timeout", as it would be if nobody had noticed
    assert cause in result.note
    assert LOST in result.note
    assert result.text.startswith("last words\n")


def test_each_limit_has_its_own_words(tier: Tier) -> None:
    limits = dataclasses.replace(LIMITS, memory_mb=300, disk_mb=8, output_mb=1, processes=16)
    one_process = run(tier, "x = bytearray(2**30)", limits=limits)
    assert "MemoryError" in (one_process.error or "")
    assert one_process.note == "The session may use 300 MB of memory."
    several = run(
        tier,
        "import os, time\nfor _ in range(6):\n    if os.fork() == 0:\n        x = bytearray(100 * 2**20)\n"
        "        x[::4096] = b'x' * len(x[::4096]); time.sleep(300); os._exit(0)\ntime.sleep(300)",
        limits=limits,
    )
    assert several.note == f"The code used more than 300 MB of memory and was killed. {LOST}"
    large = run(tier, "open('large', 'wb').write(bytes(2**24))", limits=limits)
    assert large.note == "The session may keep 8 MB of files."
    flood = run(tier, "while True: print('x' * 10_000)", limits=limits)
    assert flood.note.startswith("The code wrote more than 1 MB and was ")
    threads = run(
        tier,
        "import threading, time\nwait = dict(target=time.sleep, args=(300,), daemon=True)\n"
        "for _ in range(40): threading.Thread(**wait).start()\ntime.sleep(300)",
        limits=limits,
    )
    assert "16 processes" in threads.note


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        while True: pass\nos.wait()",
    ],
)
def test_spent_processor_time_is_named_and_nothing_else_is_called_so(tier: Tier, code: str) -> None:
    limits = dataclasses.replace(LIMITS, cpu_s=2)
    spent = run(tier, code, limits=limits)
    assert spent.note == f"The session used its 2 seconds of processor time and was killed. {LOST}"
    killed = run(
        tier,
        "import os, signal, time\nwhile time.process_time() < 1.2: pass\nos.kill(os.getpid(), signal.SIGKILL)\n"
        "os._exit(9)",  # the first process of a pid namespace is immune to its own signals
        limits=limits,
    )
    assert killed.ending == "died"


def test_pictures_are_shown_once_scaled_and_capped(tier: Tier) -> None:
    import PIL.Image

    limits = SessionLimits(timeout_s=30, images=2, image_side=64)
    pillow, figure, shown, many = cells(
        tier,
        "import PIL.Image; PIL.Image.new('RGB', (640, 320), 'red')",
        "import matplotlib.pyplot as plt; plt.figure(); plt.plot([1, 2]); plt.gcf()",
        "plt.plot([1, 2]); plt.show(); plt.plot([2, 1]); plt.show()",
        "for k in range(5): display(PIL.Image.new('L', (8, 8), k))",
        limits=limits,
    )
    assert [PIL.Image.open(io.BytesIO(data)).size for data in pillow.images] == [(64, 32)]
    assert len(figure.images) == 1
    assert len(shown.images) == 2
    assert len(many.images) == 2
    assert many.note == "(3 picture(s) beyond the limits were left out)"


def test_values_bytes_and_pictures_are_bound(tier: Tier) -> None:
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.new("RGB", (9, 4)).save(buffer, "PNG")

    async def play() -> None:
        session = ZygoteSession(LIMITS, tier=tier)
        await session.start()
        await session.put({"n": [1, {"a": None}], "raw": b"\0\xff"})
        await session.put_images({"image_1": buffer.getvalue()})
        assert (await session.execute("n, raw, image_1.size")).result == "([1, {'a': None}], b'\\x00\\xff', (9, 4))"
        with pytest.raises(ConfigError, match="not a PNG or JPEG"):
            await session.put_images({"image_2": b"GIF89a"})
        for name in ("not a name", "class"):
            with pytest.raises(ConfigError, match="not a name"):
                await session.put({name: 1})
        await session.close()

    asyncio.run(play())


def test_code_arrives_as_it_is_or_is_refused(tier: Tier) -> None:
    nul, colour, huge, wide, lone, empty, forked, closed = cells(
        tier,
        "1 + \0 1",
        "len('\x1b[31m')",
        "#" * 1_000_001,
        "'" + "\u4e2d" * 900_000 + "'[:2]",
        "'\ud800'",
        "",
        "import os\nif os.fork() == 0: print('child')\nelse: os.wait()",
        "import sys; sys.stdout.close()",
    )
    assert "null bytes" in (nul.error or "")
    assert colour.result == "5"
    assert huge.error == "The code has 1000001 characters; at most 1000000 are accepted."
    assert wide.result == "'\u4e2d\u4e2d'"
    assert lone.error == "Character 2 of the code is half of a surrogate pair ('\\ud800')."
    assert empty.ending == "ok"
    assert forked.text == "child\n"
    assert closed.ending == "ok"


def test_a_session_says_the_same_each_time(tier: Tier) -> None:
    code = "import random, numpy as np\n(random.random(), float(np.random.rand()), hash('a'), {1, 'b', (2,)})"
    assert len({run(tier, code).result for _ in range(3)}) == 1


def test_interrupt_restart_and_use_after_death(tier: Tier) -> None:
    async def play() -> None:
        session = ZygoteSession(LIMITS, tier=tier)
        await session.start()
        await session.interrupt()
        assert (await session.execute("1")).result == "1"
        cell = asyncio.create_task(session.execute("x = 1\nwhile True: pass"))
        while not cell.done():  # one that comes before the cell has begun does nothing
            await session.interrupt()
            await asyncio.sleep(0.1)
        assert "KeyboardInterrupt" in ((await cell).error or "")
        await session.restart()
        assert "NameError" in ((await session.execute("x")).error or "")
        session.kill()
        with pytest.raises(SessionDied):
            await session.execute("1")
        await session.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    "code",
    ["x = 3\nx * 2", "print(1)\nprint(2)\n'done'", "for k in range(3): print(k)", "1 / 0", "undefined", "[1,\n 2]"],
)
def test_both_backends_give_the_same_observation(code: str) -> None:
    async def say(session: Session) -> tuple[str, str | None, str, str]:
        await session.start()
        result = await session.execute(code)
        await session.close()
        return result.text, result.result, (result.error or "").strip().rsplit("\n", 1)[-1], result.ending

    async def both() -> None:
        assert await say(ZygoteSession(LIMITS)) == await say(JupyterSession(LIMITS))

    asyncio.run(both())


def test_an_unknown_profile_or_tier_names_the_known_ones() -> None:
    with pytest.raises(ConfigError) as error:
        ZygoteSession(profile="scince")
    assert "science" in (error.value.hint or "")
    with pytest.raises(ConfigError, match="no isolation tier 'Full'"):
        ZygoteSession(tier="Full")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "limit",
    [{"disk_mb": 0}, {"disk_mb": -1}, {"memory_mb": 0}, {"processes": 0}, {"images": -1}, {"timeout_s": float("nan")}],
)
def test_a_limit_that_would_limit_nothing_is_refused(limit: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(limit))):
        SessionLimits(**limit)


def test_a_branch_has_the_state_and_files_of_its_parent_and_goes_its_own_way(tier: Tier) -> None:
    async def play() -> None:
        root = ZygoteSession(LIMITS, tier=tier)
        await root.start()
        await root.execute("x = [1]\nopen('note.txt', 'w').write('root')\ndef f(): return len(x)")
        left, right = await root.fork(), await root.fork()
        await left.execute("x.append(2)\nopen('note.txt', 'w').write('left')")
        deeper = await left.fork()
        await deeper.execute("x.append(3)")
        said = [
            (await session.execute("f(), open('note.txt').read()")).result for session in (root, left, right, deeper)
        ]
        assert said == ["(1, 'root')", "(2, 'left')", "(1, 'root')", "(3, 'left')"]
        late = await right.execute("while True: pass", 0.3)
        assert (late.ending, late.state_lost) == ("timeout", False)
        assert (await left.execute("import os; os._exit(1)")).ending == "died"
        await root.close()
        assert not root.alive
        assert (await right.execute("f()")).result == "1"
        assert (await deeper.execute("f()")).result == "3"
        for session in (left, right, deeper):
            await session.close()
        assert not right.alive

    asyncio.run(play())


def test_a_jupyter_session_says_that_it_cannot_be_branched() -> None:
    with pytest.raises(ConfigError, match="cannot be forked"):
        asyncio.run(JupyterSession(LIMITS).fork())


def test_a_replayed_session_says_the_same_or_where_it_differs() -> None:
    codes = ["import random; x = random.random(); x", "print(x * 2)", "import time; time.time_ns()", "1 / 0"]

    async def play() -> None:
        session = ZygoteSession(LIMITS)
        await session.start()
        recorded = [(code, await session.execute(code)) for code in codes]
        await session.restart()
        differences = await replay(session, recorded)
        assert [(difference.index, difference.field) for difference in differences] == [(2, "result")]
        await session.close()

    asyncio.run(play())


def test_what_a_cell_leaves_running_is_held_to_the_limits_too(tier: Tier) -> None:
    hoard = (
        "import os, time\nfor _ in range(6):\n"
        "    if os.fork() == 0:\n        time.sleep(0.5); x = bytearray(200 * 2**20)\n"
        "        x[::4096] = b'x' * len(x[::4096]); time.sleep(300); os._exit(0)"
    )

    async def play() -> None:
        session = ZygoteSession(LIMITS, tier=tier, profile="bare")
        await session.start()
        assert (await session.execute(hoard)).ending == "ok"
        for _ in range(1000):
            await asyncio.sleep(0.1)
            if not session.alive:
                break
        assert not session.alive
        await session.close()

    asyncio.run(play())
