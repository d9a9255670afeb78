"""From scenes to a taskset: tasks that hold how to draw their picture, and a world that draws it when it is played.

Listing 10,000 tasks draws nothing. A scene is JSON values, so a log of episodes says what was drawn, and drawing it
again gives the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final, get_args

from envs.env import Context, Env, Reply, ToolEnv
from envs.message import Message, assistant, system, user
from envs.rubric import Rubric
from envs.seed import derive_seed
from envs.task import Task, Taskset
from tools.content import BlobStore, Text
from tools.errors import ConfigError
from tools.image import Gallery, ImageBudget
from tools.image.coordinates import Convention, Point, Size, from_pixels
from tools.image.gallery import CAPTION
from tools.image.intake import encoded
from tools.image.mapper import LabelledDrawings
from tools.image.memory import off_loop
from tools.record import record
from tools.tool import Tool, ToolCall, ToolResult

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Split: TypeAlias = Literal["train", "val", "test"]

Style: TypeAlias = Literal["full", "short"]
"""How a task is worded: in sentences, for a language model; or in a word or two, for a tiny one that learns them."""

Drawer: TypeAlias = Callable[[Mapping[str, Any]], "PILImage"]
"""Draws a scene."""

Asked: TypeAlias = tuple[str, Mapping[str, Any], str]
"""A gold call: the tool's name, its arguments, and the thought before it."""


@record
class Scene:
    """One task before it has a name."""

    drawing: Mapping[str, Any]
    """All that decides the picture, as JSON values; `size` is its width and height."""
    question: str
    answer: Any
    said: str
    """The gold answer, as a model would state it."""
    calls: tuple[Asked, ...] = ()
    aloud: str | None = None
    """The thought before the gold answer where thoughts are part of the task: written in the short style too, as
    plain text. None: only the full style has thoughts, in its own words."""
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])


@record
class View:
    """How a picture reaches the model."""

    budget: ImageBudget
    convention: Convention = "pixel"
    style: Style = "full"

    @property
    def caption(self) -> str:
        """The text around each picture."""
        return CAPTION if self.style == "full" else "<image>"


def view_of(shown: int, convention: Convention = "pixel", style: Style = "full") -> View:
    """The view of a model that sees pictures at most `shown` pixels wide and high."""
    if not 16 <= shown <= 8192:
        raise ConfigError(f"shown is {shown}; pictures are shown 16 to 8192 pixels wide or high")
    return View(budget=ImageBudget(max_pixels=shown * shown, max_side=shown), convention=convention, style=style)


def scenes(
    stem: str,
    split: Split,
    n: int,
    draw: Callable[[random.Random], Scene | None],
    *,
    apart: Callable[[Scene], Any] = lambda scene: [scene.drawing, scene.question],
) -> list[Scene]:
    """`n` scenes of a split, no two the same. Scene `i` depends on `stem` and `i`, never on `n`.

    Train, validation and test scenes are told apart by a hash of `apart`, JSON values, by default what is drawn and
    asked: 70, 10 and 20 percent. `draw` may give None for a draw that came to nothing.
    """
    if split not in get_args(Split):
        raise ConfigError(f"split is {split!r}; it must be one of {', '.join(get_args(Split))}")
    if n < 1:
        raise ConfigError(f"n is {n}; a taskset needs at least 1 task")
    seen: set[str] = set()
    found: list[Scene] = []
    for index in range(n):
        rng = random.Random(derive_seed(stem, split, index))
        for _ in range(1000):
            scene = draw(rng)
            if scene is None:
                continue
            key = json.dumps([scene.drawing, scene.question], sort_keys=True)
            if key not in seen and split_of(json.dumps(apart(scene), sort_keys=True)) == split:
                seen.add(key)
                found.append(scene)
                break
        else:
            raise ConfigError(
                f"{stem} finds no new scene after {index}", hint="ask for a smaller n, or for larger or fewer things"
            )
    return found


def split_of(key: str) -> Split:
    """The split a scene belongs to."""
    bucket = derive_seed("scene split", key) % 10
    return "test" if bucket < 2 else "val" if bucket == 2 else "train"


def drawn_taskset(
    name: str,
    stem: str,
    found: Sequence[Scene],
    *,
    draw: Drawer,
    tools: Callable[[Gallery], tuple[Tool, ...]],
    view: View,
    about: str,
    rubric: Rubric,
) -> Taskset:
    """The taskset of `found`. `about` is the system message where the style is full."""
    blobs = passing_store()

    def env(task: Task) -> Env:
        gallery = Gallery(blobs, view.budget, caption=view.caption)
        return DrawnEnv(ToolEnv(task=task, tools=tools(gallery), gallery=gallery), draw)

    tasks = [_task(f"{stem}-{index}", scene, view.style, about) for index, scene in enumerate(found)]
    return Taskset(name=name, tasks=tasks, env=env, rubric=rubric, blobs=blobs)


@final
class DrawnEnv(Env):
    """A world whose picture, `task.info["scene"]`, is drawn when the episode starts, and stands before the question."""

    def __init__(self, inner: ToolEnv, draw: Drawer) -> None:
        if inner.gallery is None:
            raise ConfigError("a drawn world needs a gallery to put its picture into")
        self.inner = inner
        self.task = inner.task
        self.tools = inner.tools
        self.gallery = inner.gallery
        self._draw = draw

    async def start(self) -> tuple[Message, ...]:
        scene = self.task.info["scene"]
        width, height = scene["size"]
        async with self.gallery.memory.room(width * height * 3 * _COPIES):
            data = await off_loop(lambda: encoded(self._draw(scene), lossy=scene.get("photo") is not None))
        shown = self.gallery.content(await self.gallery.enter(data))
        *before, question = await self.inner.start()
        return (*before, replace(question, content=(*shown, *question.content)))

    async def step(self, action: Message, ctx: Context) -> Reply:
        return await self.inner.step(action, ctx)

    async def close(self) -> None:
        await self.inner.close()


def pens(gallery: Gallery, view: View) -> tuple[Tool, Tool]:
    """`object_mapper` and `path_tracer` for pictures of this size: on small ones thin lines, and no words."""
    small = max(view.budget.max_side or 0, 1) < 256
    return LabelledDrawings(gallery, view.convention, width=2 if small else 4, words=not small).tools


def unseen(tool: Tool) -> Tool:
    """The tool with its pictures kept back: it says that it did what it was asked."""

    async def fn(**arguments: Any) -> ToolResult:
        result = await tool.fn(**arguments)
        return replace(result, content=(Text(text="Done."),))

    return replace(tool, fn=fn)


def passing_store() -> BlobStore:
    """Pictures in a folder of their own that is removed with the store: what is drawn can be drawn again."""
    folder = tempfile.mkdtemp(prefix="toolweave-pictures-")
    store = BlobStore(folder, passing=True)
    weakref.finalize(store, _remove, folder, os.getpid())
    return store


def box_for(box: tuple[float, float, float, float], convention: Convention, size: Size) -> list[float]:
    """A box in pixels shown as a model writes it, rounded outwards: whole pixels or thousandths.

    >>> box_for((10.2, 4, 20.1, 9), "pixel", (64, 64)), box_for((16, 0, 32, 32), "unit", (64, 64))
    ([10, 4, 21, 9], [0.25, 0.0, 0.5, 0.5])
    """
    step = 1 if convention in ("pixel", "per_mille") else 1000
    inside = max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1])
    low = from_pixels((inside[0], inside[1]), convention, size)
    high = from_pixels((inside[2], inside[3]), convention, size)
    rounded = [math.floor(at * step + _NEAR) for at in low] + [math.ceil(at * step - _NEAR) for at in high]
    return [at if step == 1 else at / step for at in rounded]


def point_for(point: Point, convention: Convention, size: Size) -> list[float]:
    """A point in pixels shown as a model writes it: whole pixels or thousandths.

    >>> point_for((32, 16), "per_mille", (64, 64)), point_for((32, 16), "unit", (64, 64))
    ([500, 250], [0.5, 0.25])
    """
    at = from_pixels(point, convention, size)
    return [round(value) for value in at] if convention in ("pixel", "per_mille") else [round(v, 3) for v in at]


def _task(id: str, scene: Scene, style: Style, about: str) -> Task:
    short = style == "short"
    gold = [_calling(number, asked, short, scene.aloud is not None) for number, asked in enumerate(scene.calls)]
    thought = None if short else scene.aloud or "I have what I need."
    before = f"{scene.aloud}\n" if short and scene.aloud else ""
    question = user(scene.question)
    return Task(
        id=id,
        prompt=(system(about), question) if style == "full" else (question,),
        answer=scene.answer,
        gold=(*gold, assistant(f"{before}<answer>{scene.said}</answer>", reasoning=thought)),
        info={**scene.info, "scene": dict(scene.drawing)},
    )


def _calling(number: int, asked: Asked, short: bool, aloud: bool) -> Message:
    name, arguments, thought = asked
    raw = json.dumps({"name": name, "arguments": arguments})
    call = ToolCall(id=f"call_{number}", name=name, raw=raw, arguments=arguments)
    return assistant(*([thought] if short and aloud else []), reasoning=None if short else thought, tool_calls=(call,))


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked process holds the same store, and must not take it away
        shutil.rmtree(folder, ignore_errors=True)


_COPIES = 3
"""A picture while it is drawn: itself, what it is scaled from, and its encoded form."""
_NEAR = 1e-6
