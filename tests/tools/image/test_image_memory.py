from __future__ import annotations

import asyncio
import threading

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import BlobStore, ConfigError
from tools.image import Gallery, ImageBudget, PixelMemory, image_tools
from tools.image.memory import MEMORY, Slot, off_loop, shared_memory


@settings(max_examples=50)
@given(st.lists(st.integers(1, 150), max_size=30))
def test_work_begins_in_order_and_never_holds_more_than_the_bound(sizes: list[int]):
    memory = PixelMemory(100)
    began: list[int] = []

    async def work(number: int, size: int) -> None:
        async with memory.room(size):
            began.append(number)
            assert memory.held <= 100
            for _ in range(size % 4):
                await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(work(number, size) for number, size in enumerate(sizes)))

    asyncio.run(all_of_them())
    assert began == list(range(len(sizes))) and memory.held == 0 and memory.peak <= 100


def test_a_wait_that_is_cancelled_gives_its_place_to_those_behind():
    async def main() -> None:
        memory = PixelMemory(100)
        entered = asyncio.Event()

        async def small() -> None:
            async with memory.room(10):
                entered.set()

        async with memory.room(60):
            large = asyncio.create_task(memory.room(90).__aenter__())
            await asyncio.sleep(0)
            behind = asyncio.create_task(small())
            await asyncio.sleep(0)
            assert not entered.is_set(), "nobody overtakes"
            large.cancel()
            await asyncio.gather(large, return_exceptions=True)
            await behind
        assert memory.held == 0

    asyncio.run(main())


def test_room_is_shared_by_the_loops_of_several_threads():
    memory, most = PixelMemory(100), []

    async def work() -> None:
        for _ in range(50):
            async with memory.room(60):
                most.append(memory.held)
                await asyncio.sleep(0)

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 200 and max(most) == 60 and memory.held == 0


def test_a_loop_that_closed_while_it_waited_gives_its_room_back():
    memory = PixelMemory(100)
    room = memory.room(100)
    holder = asyncio.new_event_loop()
    holder.run_until_complete(room.__aenter__())
    gone = asyncio.new_event_loop()
    waiting = gone.create_task(memory.room(50).__aenter__())
    gone.run_until_complete(asyncio.sleep(0))
    gone.close()
    holder.run_until_complete(room.__aexit__(None, None, None))
    holder.close()
    assert memory.held == 0
    waiting._log_destroy_pending = False  # pyright: ignore  # left undone on purpose


def test_a_slot_can_be_held_twice_and_gives_back_what_it_took():
    memory, sizes = PixelMemory(100), iter([30, 50])
    slot = Slot(memory, lambda: next(sizes))

    async def main() -> None:
        async with slot, slot:
            assert memory.held == 80
        assert memory.held == 0

    asyncio.run(main())


def test_cancelled_work_ends_before_its_memory_is_given_back():
    finish = threading.Event()
    done: list[bool] = []

    def work() -> None:
        finish.wait()
        done.append(True)

    async def main() -> None:
        task = asyncio.create_task(off_loop(work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        finish.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == [True]

    asyncio.run(main())


def test_many_episodes_at_once_stay_within_a_memory_of_one_picture():
    memory = PixelMemory(300 * 200 * 4 * 2)

    async def episode(blobs: BlobStore) -> int:
        gallery = Gallery(blobs, ImageBudget(max_pixels=5000), memory=memory)
        await gallery.enter(PIL.Image.radial_gradient("L").resize((300, 200)))
        (tool,) = image_tools(gallery, "image_zoom_in_tool")
        assert tool.slots is not None
        for _ in range(3):
            async with tool.slots:
                await tool.fn(bbox_2d=[0, 0, 40, 40])
        return len(gallery)

    async def main() -> list[int]:
        blobs = BlobStore()
        return await asyncio.gather(*(episode(blobs) for _ in range(8)))

    assert asyncio.run(main()) == [4] * 8
    assert memory.held == 0 < memory.peak <= memory.max_bytes


def test_the_environment_says_how_much(monkeypatch: pytest.MonkeyPatch):
    shared_memory.cache_clear()
    try:
        monkeypatch.setenv(MEMORY, "3")
        assert shared_memory().max_bytes == 3 * 2**20
        shared_memory.cache_clear()
        monkeypatch.setenv(MEMORY, "lots")
        with pytest.raises(ConfigError, match="must be a number of megabytes"):
            shared_memory()
    finally:
        shared_memory.cache_clear()
