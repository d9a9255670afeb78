"""One task whose gold is eleven calls of four tools, each of which brings back another picture: twelve with its own."""

from __future__ import annotations

from typing import Any

import PIL.Image

from envs import Env, Rubric, Task, Taskset, ToolEnv, assistant, user
from envs.rewards import correct
from tools import BlobStore, ToolCall
from tools.image import Gallery, ImageBudget, image_tools

TOOLS = ("image_zoom_in_tool", "object_mapper", "path_tracer", "sketch")


def twelve_pictures(folder: str | None = None) -> Taskset:
    """`folder` is where the pictures are kept; in memory by default."""
    blobs = BlobStore(folder)
    photo = blobs.put_image(PIL.Image.radial_gradient("L").convert("RGB"))  # 256 x 256, shown as 64 x 64
    script = [
        assistant(tool_calls=[ToolCall(id=f"c{index}", name=name, raw="", arguments=arguments)])
        for index, (name, arguments) in enumerate(_calls())
    ]
    task = Task(id="t", prompt=(user(photo, "How many?"),), answer="12", gold=(*script, assistant("Answer: 12")))

    def env(task: Task) -> Env:
        gallery = Gallery(blobs, ImageBudget(max_side=64, max_pixels=64 * 64))
        return ToolEnv(task=task, tools=image_tools(gallery, *TOOLS), gallery=gallery)

    return Taskset(name="twelve", tasks=[task], env=env, rubric=Rubric(rewards={"ok": (correct(), 1.0)}), blobs=blobs)


def _calls() -> list[tuple[str, dict[str, Any]]]:
    made: list[tuple[str, dict[str, Any]]] = []
    for step in range(3):
        at = 4 * step
        made += [
            ("image_zoom_in_tool", {"bbox_2d": [at, at, at + 30, at + 20]}),
            ("object_mapper", {"items": [{"index": 1, "bbox_2d": [at, at, at + 20, at + 20], "label": str(step)}]}),
            (
                "path_tracer",
                {"items": [{"index": 1, "start_point_2d": [at, 5], "end_point_2d": [50, 40], "label": f"p{step}"}]},
            ),
            ("sketch", {"script": f"create_line l{step} 0.1 0.{step + 1} 0.9 0.5 red"}),
        ]
    return made[:11]
