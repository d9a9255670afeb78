"""A toy world of two pictures: the first tells which box to open, the tool shows what is in it.

Both are noisy patches of a colour. There is a box for each colour, with a patch of some colour in it, and no two alike.
Right is the colour in the box that has the first picture's colour, so nothing is learnt without both.
"""

from __future__ import annotations

import random
from typing import Any

from envs import Env, Rubric, Task, Taskset, ToolEnv, assistant, user
from tools import BlobStore, Image, Tool, ToolCall, ToolError, ToolResult, tool

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (230, 210, 50)}
EDGE = 32


def two_pictures(n: int = 200, seed: int = 0, careless: float = 0.0) -> Taskset:
    """`careless` is the share of gold episodes that open another box, and say what is in that one."""
    blobs = BlobStore()
    tasks = [_task(index, random.Random(f"{seed}-{index}"), careless, blobs) for index in range(n)]

    async def correct(env: Env, trajectory: Any) -> float:
        return float(trajectory.answer == env.task.answer)

    def env(task: Task) -> ToolEnv:
        return ToolEnv(task=task, tools=(_look(task, blobs),))

    rubric = Rubric(rewards={"correct": (correct, 1.0)})
    return Taskset(name="two_pictures", tasks=tasks, env=env, rubric=rubric, blobs=blobs)


def _task(index: int, rng: random.Random, careless: float, blobs: BlobStore) -> Task:
    boxes = sorted(COLOURS)
    shown = rng.choice(boxes)
    inside = dict(zip(boxes, rng.sample(boxes, len(boxes)), strict=True))
    opened = shown if rng.random() >= careless else rng.choice([box for box in boxes if box != shown])
    call = ToolCall(id="", name="look", raw="", arguments={"box": opened})
    return Task(
        id=f"two-{index}",
        prompt=(user(blobs.put_image(patch(shown, rng)), "Which color?"),),
        answer=inside[shown],
        gold=(assistant(tool_calls=[call]), assistant(inside[opened])),
        info={"inside": inside, "seed": rng.random()},
    )


def _look(task: Task, blobs: BlobStore) -> Tool:
    @tool
    async def look(box: str) -> ToolResult:
        """Open a box."""
        if box not in COLOURS:
            raise ToolError(f"There is a box for each of {', '.join(COLOURS)}.")
        rng = random.Random(f"{task.info['seed']}-{box}")
        seen: Image = blobs.put_image(patch(task.info["inside"][box], rng))
        return ToolResult(content=(seen,))

    return look


def patch(colour: str, rng: random.Random) -> Any:
    """A square of a colour, unlike any other square of it."""
    import PIL.Image

    tint = [max(0, min(255, channel + rng.randint(-25, 25))) for channel in COLOURS[colour]]
    picture = PIL.Image.new("RGB", (EDGE, EDGE), tuple(tint))
    picture.putpixel((rng.randrange(EDGE), rng.randrange(EDGE)), (0, 0, 0))
    return picture
