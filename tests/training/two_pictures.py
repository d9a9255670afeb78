"""A toy world of two pictures: the first tells which box to open, the tool shows what is in it.

A dot stands in the left or the right half of the first picture. `look` opens a box and returns a noisy patch of its
colour; the two boxes differ. Right is the colour in the box on the dot's side, so nothing is learnt without both.
"""

from __future__ import annotations

import random
from typing import Any

from envs import Env, Rubric, Task, Taskset, ToolEnv, assistant, user
from tools import BlobStore, Image, Tool, ToolCall, ToolError, ToolResult, tool

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (230, 210, 50)}
SIDES = ("left", "right")
EDGE = 32


def two_pictures(n: int = 200, seed: int = 0, careless: float = 0.0) -> Taskset:
    """`careless` is the share of gold episodes that open the other box, and say what is in that one."""
    blobs = BlobStore()
    tasks = [_task(index, random.Random(f"{seed}-{index}"), careless, blobs) for index in range(n)]

    async def correct(env: Env, trajectory: Any) -> float:
        return float(trajectory.answer == env.task.answer)

    def env(task: Task) -> ToolEnv:
        return ToolEnv(task=task, tools=(_look(task, blobs),))

    rubric = Rubric(rewards={"correct": (correct, 1.0)})
    return Taskset(name="two_pictures", tasks=tasks, env=env, rubric=rubric, blobs=blobs)


def _task(index: int, rng: random.Random, careless: float, blobs: BlobStore) -> Task:
    side = rng.choice(SIDES)
    inside = dict(zip(SIDES, rng.sample(sorted(COLOURS), 2), strict=True))
    opened = side if rng.random() >= careless else SIDES[side == "left"]
    call = ToolCall(id="", name="look", raw="", arguments={"box": opened})
    return Task(
        id=f"two-{index}",
        prompt=(user(blobs.put_image(dot(side, rng)), "Which color?"),),
        answer=inside[side],
        gold=(assistant(tool_calls=[call]), assistant(inside[opened])),
        info={"inside": inside, "seed": rng.random()},
    )


def _look(task: Task, blobs: BlobStore) -> Tool:
    @tool
    async def look(box: str) -> ToolResult:
        """Open a box."""
        if box not in SIDES:
            raise ToolError("There are a left and a right box.")
        rng = random.Random(f"{task.info['seed']}-{box}")
        shown: Image = blobs.put_image(patch(task.info["inside"][box], rng))
        return ToolResult(content=(shown,))

    return look


def dot(side: str, rng: random.Random) -> Any:
    """A gray square with a white dot in one half."""
    import PIL.Image
    import PIL.ImageDraw

    picture = PIL.Image.new("RGB", (EDGE, EDGE), (90, 90, 90))
    x, y = rng.randint(7, 9) + (EDGE // 2 if side == "right" else 0), rng.randint(8, 24)
    PIL.ImageDraw.Draw(picture).ellipse((x - 7, y - 7, x + 7, y + 7), fill="white")
    return picture


def patch(colour: str, rng: random.Random) -> Any:
    """A square of a colour, unlike any other square of it."""
    import PIL.Image

    tint = [max(0, min(255, channel + rng.randint(-25, 25))) for channel in COLOURS[colour]]
    picture = PIL.Image.new("RGB", (EDGE, EDGE), tuple(tint))
    picture.putpixel((rng.randrange(EDGE), rng.randrange(EDGE)), (0, 0, 0))
    return picture
