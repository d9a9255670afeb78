"""Many visual episodes at once, each on a large photograph: prints the megabytes the process grew by at its peak.

Run as a program of its own: arguments are the folder with the photograph, how many episodes, and megabytes of memory.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import PIL.Image

from agent import Limits, ScriptedSampler, rollout
from envs import Task, ToolEnv, assistant, user
from tools import BlobStore, Image, ToolCall
from tools.image import Gallery, ImageBudget, PixelMemory, image_tools


def megabytes(field: str) -> int:
    """VmHWM or VmRSS of this process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) // 1024


def photographs(folder: Path, count: int) -> tuple[BlobStore, list[Image]]:
    """One photograph, `count` times under different hashes: each file ends with a number of its own."""
    blobs, data = BlobStore(folder / "blobs"), (folder / "photo.jpg").read_bytes()
    return blobs, [blobs.put(data + number.to_bytes(2, "big")) for number in range(count)]


async def episode(blobs: BlobStore, photo: Image, memory: PixelMemory, turned: bool) -> int:
    """Two zooms, a drawing and, in some, a turn at full resolution; how many pictures there are in the end."""
    arguments = [
        ("image_zoom_in_tool", {"bbox_2d": [100, 100, 200, 160]}),
        ("image_zoom_in_tool", {"bbox_2d": [0, 0, 400, 300]}),
        ("object_mapper", {"items": [{"index": 1, "bbox_2d": [10, 10, 90, 90], "label": "a"}]}),
        *([("image_rotate_tool", {"angle": 180})] if turned else []),
    ]
    calls = [ToolCall(id=str(i), name=name, raw="", arguments=given) for i, (name, given) in enumerate(arguments)]
    gold = (*(assistant(tool_calls=[call]) for call in calls), assistant("done"))
    gallery = Gallery(blobs, ImageBudget(max_pixels=512 * 512), memory=memory)
    tools = image_tools(gallery, "image_zoom_in_tool", "object_mapper", "image_rotate_tool")
    env = ToolEnv(task=Task(id="t", prompt=(user(photo),), gold=gold), tools=tools, gallery=gallery)
    played = await rollout(env, ScriptedSampler(), limits=Limits(max_turns=None, call_timeout_s=None))
    assert played.stop == "done" and all(call.outcome == "ok" for call in played.calls), played.error
    return len(gallery)


async def main(folder: Path, count: int, most: int) -> None:
    blobs, photos = photographs(folder, count)
    memory = PixelMemory(most * 2**20)
    PIL.Image.init()
    before = megabytes("VmRSS")
    pictures = await asyncio.gather(*(episode(blobs, p, memory, i % 8 == 0) for i, p in enumerate(photos)))
    grown = megabytes("VmHWM") - before
    print(json.dumps({"pictures": sum(pictures), "grown": grown, "held": memory.peak // 2**20}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
