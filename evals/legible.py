"""What an OCR reader makes of pictures: where the model first sees them, and after the gold calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent.rollout import rollout
from agent.sampler import ScriptedSampler
from envs.message import assistant
from envs.task import Task, Taskset
from envs.trajectory import Trajectory
from tools.content import BlobStore, Image
from tools.errors import ConfigError
from tools.image.ocr import Reader, shared_reader
from tools.record import record

MOST = 20
"""Tasks that are read: each takes seconds."""


@record
class Legible:
    """How many of the tasks that say so in `info["written"]` were read."""

    tasks: int
    at_first: int
    """From the picture of the prompt, as the model is shown it."""
    after_gold: int
    """From the last picture that the gold calls bring back."""
    needing: int
    """Tasks that are meant to need the tool."""
    at_first_needing: int
    """How many of these were read at first all the same."""

    @property
    def line(self) -> str:
        """What `evals check` prints."""
        first = f"{self.at_first} of {self.tasks} where the model first sees the picture"
        needing = f"{self.at_first_needing} of the {self.needing} that are meant to need the tool"
        return f"an OCR reader reads {self.after_gold} of {self.tasks} after the gold calls, and {first} ({needing})"


def legibility(taskset: Taskset, reader: Reader | None = None) -> Legible | None:
    """Read the first tasks whose answer is written in their picture; None where no task says that it is.

    Raises `ConfigError` where the reader is not installed.
    """
    written = [task for task in taskset.tasks if task.info.get("written")][:MOST]
    if not written or taskset.blobs is None:
        return None
    return asyncio.run(_legibility(taskset, written, taskset.blobs, reader or shared_reader()))


def note_on(taskset: Taskset, reader: Reader | None = None) -> str | None:
    """The line for `evals check`, or why there is none; None for a taskset in whose pictures nothing is to be read."""
    try:
        found = legibility(taskset, reader)
    except ConfigError as error:
        return f"what can be read without the tool was not looked at: {error}"
    return None if found is None else found.line


async def _legibility(taskset: Taskset, tasks: Sequence[Task], blobs: BlobStore, reader: Reader) -> Legible:
    first: list[bool] = []
    last: list[bool] = []
    for task in tasks:
        played = await rollout(taskset.env(task), ScriptedSampler([*task.gold[:-1], assistant()]))
        seen = _pictures(played)
        if not seen:
            why = (played.error or "").strip().splitlines()[-1:] or ["it has none"]
            raise ConfigError(f"task {task.id} shows no picture: {why[0]}")
        first.append(await asyncio.to_thread(_reads, reader, blobs, seen[0], str(task.answer)))
        last.append(
            first[-1]
            if seen[-1] == seen[0]
            else await asyncio.to_thread(_reads, reader, blobs, seen[-1], str(task.answer))
        )
    needing = [bool(task.info.get("needs_tool")) for task in tasks]
    return Legible(
        tasks=len(tasks),
        at_first=sum(first),
        after_gold=sum(last),
        needing=sum(needing),
        at_first_needing=sum(read and needs for read, needs in zip(first, needing, strict=True)),
    )


def _pictures(episode: Trajectory) -> list[Image]:
    """What the model saw, in order."""
    return [part for message in episode.messages for part in message.content if isinstance(part, Image)]


def _reads(reader: Reader, blobs: BlobStore, image: Image, answer: str) -> bool:
    """Whether any line that is read is the answer, but for case, spaces and punctuation."""
    return any(_plain(words.text) == _plain(answer) for words in reader.read(blobs.open(image)))


def _plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
