"""The `python` tool and its pool, with real kernels."""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools import BlobStore, Image
from tools.python import JupyterSession, Pool, PythonTool, SessionLimits
from tools.python.text import without_fence

LIMITS = SessionLimits(timeout_s=20, grace_s=0.5)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    shared = Pool(lambda: JupyterSession(LIMITS), size=2)
    yield shared
    asyncio.run(shared.close())


def episode(pool: Pool, *cells: str, timeout_s: float = 20.0, **options: object) -> list[str]:
    """The observations of one episode."""

    async def play() -> list[str]:
        python = PythonTool(timeout_s, pool=pool, **options)  # type: ignore[arg-type]
        try:
            return [(await python.tool.fn(code=cell)).text for cell in cells]
        finally:
            await python.close()

    return asyncio.run(play())


def test_state_persists_within_an_episode_and_the_last_expression_is_shown(pool: Pool) -> None:
    assert episode(pool, "x = 20", "print('hm')\nx + 1") == ["(no output)", "hm\n21"]


def test_names_files_and_environment_do_not_leak_into_the_next_episode(pool: Pool) -> None:
    spill = (
        "import os, builtins\nsecret = 1\nbuiltins.leak = 2\nos.environ['LEAK'] = '3'\n"
        "open('leak.txt', 'w').close()\nos.chdir('/')"
    )
    episode(pool, spill)
    episode(pool, spill)
    look = "import os\n['secret' in globals(), hasattr(__builtins__, 'leak'), 'LEAK' in os.environ, os.listdir()]"
    for _ in range(2):
        assert episode(pool, look) == ["[False, False, False, []]"]


def test_an_error_in_the_code_is_a_short_traceback_and_the_session_goes_on(pool: Pool) -> None:
    async def play() -> None:
        python = PythonTool(pool=pool)
        failed = await python.tool.fn(code="x = 5\n1 / 0")
        assert failed.is_error
        assert "line 2" in failed.text
        assert failed.text.endswith("ZeroDivisionError: division by zero")
        assert "SyntaxError" in (await python.tool.fn(code="def f(:")).text
        assert (await python.tool.fn(code="x")).text == "5"
        await python.close()

    asyncio.run(play())


def test_a_markdown_fence_around_the_code_is_stripped(pool: Pool) -> None:
    assert episode(pool, "```python\n6 * 7\n```") == ["42"]


@pytest.mark.parametrize("code", ["```" + " " * 1_000_000 + "x", "```\n" + " " * 1_000_000])
def test_what_only_begins_like_a_fence_is_left_alone_however_long_it_is(code: str) -> None:
    assert without_fence(code) == code


def test_long_output_keeps_both_ends_and_says_how_much_was_cut(pool: Pool) -> None:
    [text] = episode(pool, "print('start' + 'x' * 200_000 + 'end')", max_chars=200)
    assert text.startswith("start")
    assert text.endswith("end")
    assert "characters cut" in text
    assert len(text) < 300


def test_a_flood_of_output_stops_the_cell_and_not_the_episode(pool: Pool) -> None:
    flood, after = episode(pool, "while True: print('x' * 100_000)", "1 + 1")
    assert "wrote more than 8 MB" in flood
    assert after.endswith("2")


def test_a_time_out_interrupts_the_cell_and_keeps_the_state(pool: Pool) -> None:
    first, second = episode(pool, "x = 1\nwhile True: pass", "x", timeout_s=0.5)
    assert first == "The code ran longer than 0.5 seconds and was interrupted. Variables set before are kept."
    assert second == "1"


def test_a_cell_that_cannot_be_interrupted_is_killed_and_the_model_is_told(pool: Pool) -> None:
    first, second = episode(pool, "x = 1\nsum(range(10**11))", "'x' in globals()", timeout_s=0.5)
    assert "The state was lost" in first
    assert second == "False"


def test_a_kernel_that_dies_in_a_call_is_noticed_at_once_and_replaced(pool: Pool) -> None:
    started = time.monotonic()
    first, second = episode(pool, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "1 + 1")
    assert "died" in first
    assert "The state was lost" in first
    assert second == "2"
    assert time.monotonic() - started < 15


def test_a_kernel_that_dies_between_calls_is_replaced_and_the_model_is_told(pool: Pool) -> None:
    async def play() -> None:
        python = PythonTool(pool=pool)
        pid = int((await python.tool.fn(code="import os; os.getpid()")).text)
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.1)
        again = await python.tool.fn(code="1 + 1")
        assert again.text.startswith("Note: the earlier Python process was lost")
        assert again.text.endswith("2")
        await python.close()

    asyncio.run(play())


def test_figures_and_pillow_images_come_back_as_pictures(pool: Pool) -> None:
    blobs = BlobStore()

    async def play() -> None:
        python = PythonTool(pool=pool, blobs=blobs, timeout_s=60)
        shown = await python.tool.fn(code="import PIL.Image\nPIL.Image.new('RGB', (40, 20), 'red')")
        [image] = [part for part in shown.content if isinstance(part, Image)]
        assert (image.width, image.height) == (40, 20)
        assert blobs.open(image).convert("RGB").getpixel((3, 3)) == (255, 0, 0)
        figure = await python.tool.fn(code="import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")
        assert sum(isinstance(part, Image) for part in figure.content) == 1
        await python.close()

    asyncio.run(play())


def test_pictures_and_variables_are_bound_before_the_first_call(pool: Pool) -> None:
    blobs = BlobStore()
    import PIL.Image

    data = blobs.get(blobs.put_image(PIL.Image.new("RGB", (7, 5))))
    [seen] = episode(pool, "image_1.size, n", images={"image_1": data}, variables={"n": [1, None]})
    assert seen == "((7, 5), [1, None])"


def test_a_plain_kernel_takes_large_pictures_and_counts_those_that_are_too_many() -> None:
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.frombytes("RGB", (700, 700), random.Random(0).randbytes(700 * 700 * 3)).save(buffer, "PNG")
    assert len(buffer.getvalue()) > SessionLimits().code_chars

    async def play() -> None:
        session = JupyterSession(SessionLimits(timeout_s=120, images=1))
        await session.start()
        try:
            await session.put_images({"image_1": buffer.getvalue()})
            assert (await session.execute("image_1.size")).result == "(700, 700)"
            shown = await session.execute("small = image_1.resize((8, 8))\nfor _ in range(3): display(small)")
            assert (len(shown.images), shown.note) == (1, "(2 picture(s) beyond the limits were left out)")
        finally:
            await session.close()

    asyncio.run(play())


def test_thirty_two_episodes_at_once_share_two_kernels_without_mixing(pool: Pool) -> None:
    async def play(k: int) -> str:
        python = PythonTool(pool=pool)
        try:
            await python.tool.fn(code=f"mine = {k}")
            await asyncio.sleep(0.001 * (k % 5))
            return (await python.tool.fn(code="mine * 2")).text
        finally:
            await python.close()

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(play, range(32)))

    assert asyncio.run(all_of_them()) == [str(2 * k) for k in range(32)]
    assert pool.live <= 2


def test_a_pool_serves_several_event_loops_in_several_threads(pool: Pool) -> None:
    said: dict[int, list[str]] = {}

    def work(k: int) -> None:
        said[k] = [text for _ in range(3) for text in episode(pool, f"y = {k}", "y")]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {k: ["(no output)", str(k)] * 3 for k in range(4)}


def test_a_cancelled_wait_for_a_kernel_loses_no_kernel() -> None:
    async def play() -> None:
        pool = Pool(lambda: JupyterSession(LIMITS), size=1, spare=0)
        held = await pool.acquire()
        waiting = [asyncio.create_task(pool.acquire()) for _ in range(5)]
        await asyncio.sleep(0.05)
        for task in waiting[:4]:
            task.cancel()
        await pool.release(held)
        last = await asyncio.wait_for(waiting[4], 10)
        await pool.release(last)
        assert pool.live == 1
        await pool.close()

    asyncio.run(play())


def test_a_cancelled_call_does_not_hand_a_busy_kernel_to_the_next_episode(pool: Pool) -> None:
    async def play() -> None:
        python = PythonTool(pool=pool)
        call = asyncio.create_task(python.tool.fn(code="import time; time.sleep(30)"))
        await asyncio.sleep(1.5)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await python.close()

    asyncio.run(play())
    assert episode(pool, "2 + 2") == ["4"]


def test_a_fresh_pool_never_reuses_an_interpreter() -> None:
    pool = Pool(lambda: JupyterSession(LIMITS), size=2, fresh=True, spare=0)
    pids = [episode(pool, "import os; os.getpid()")[0] for _ in range(2)]
    asyncio.run(pool.close())
    assert len(set(pids)) == 2


def test_idle_sessions_are_reaped() -> None:
    async def play() -> int:
        pool = Pool(lambda: JupyterSession(LIMITS), size=2, spare=0, idle_s=0.2)
        await pool.release(await pool.acquire())
        for _ in range(100):
            await asyncio.sleep(0.05)
            if pool.live == 0:
                break
        return pool.live

    assert asyncio.run(play()) == 0


_OWNER = """
import asyncio, sys
from tools.python import JupyterSession
async def main():
    session = JupyterSession()
    await session.start()
    print((await session.execute("import os; os.getpid()")).result, flush=True)
    await session.execute("import time; time.sleep(600)", 600)
asyncio.run(main())
"""


def test_kernels_end_when_their_owner_is_killed() -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    ) as owner:
        assert owner.stdout is not None
        kernel = int(owner.stdout.readline())
        owner.kill()
    assert until(lambda: not running(kernel))


def until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
