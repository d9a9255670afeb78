"""Rows made as a trainer asks for them: the gold of each task is played, drawn and rendered when its turn comes.

A million pictures need no disk and no example is seen twice: when the tasks of a taskset are used up, those of its
next seed follow. With `trl: {dataloader_num_workers: 1}` another process makes the rows while this one trains.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from datasets import Dataset

from agent.episodes import episodes, jobs
from agent.renderer import Renderer
from agent.sampler import ScriptedSampler
from envs.task import Taskset
from envs.trajectory import PlacedImage, Trajectory
from tools.content import BlobStore, Image
from tools.errors import ConfigError
from training.gold import GoldTasks

TASK = "task"
"""The column that says which task a row is made of."""
KEPT = 4096
"""So many of the last pictures are kept, more than a batch holds; the others are gone, and can be drawn again."""

_SOCKET_PATH = 107
"""Bytes that the name of a Unix socket may have (Linux, less the final zero)."""
_SOCKET_NAME = "/pymp-xxxxxxxx/listener-xxxxxxxx"
"""What multiprocessing adds to the folder of temporary files."""


def row_processes(asked: int) -> int:
    """How many processes may make rows: none where the folder of temporary files has so long a name that what they
    make cannot be handed over, on which they would be waited for in vain. The rows are the same.
    """
    folder = tempfile.gettempdir()
    if not asked or len(os.fsencode(folder + _SOCKET_NAME)) <= _SOCKET_PATH:
        return asked
    print(
        f"rows are made by this process: sockets have no room in {folder}; a shorter TMPDIR lets others make them",
        file=sys.stderr,
    )
    return 0


def fresh_rows(tasks: GoldTasks, rows: int, renderer: Renderer, blobs: BlobStore) -> Dataset:
    """A row a task, in their order: what `training.sft.dataset_of` would hold, made when it is read.

    `blobs` is where `renderer` looks for pictures. Raises `ConfigError` on reading a task whose gold does not make one
    row that can be trained on.
    """
    from training.sft import IGNORED, row_of

    used: deque[PlacedImage] = deque()

    def made(asked: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        found = [episode for part in _parts(tasks, asked[TASK]) for episode in _played(*part, blobs)]
        # Unlike a log's, these pictures were drawn a moment ago: whether they can be seen is left to the trainer.
        rows = [row_of(sequence) for episode in found for sequence in renderer.teach(episode)]
        if len(rows) != len(found) or any(set(row.labels) == {IGNORED} for row in rows):
            raise ConfigError(
                f"{len(found)} tasks of {tasks.name} made {len(rows)} rows", hint="gold must make one row a task"
            )
        used.extend(image for row in rows for image in row.pictures)
        while len(used) > KEPT:
            blobs.discard(used.popleft().sha256)
        return {
            "input_ids": [list(row.input_ids) for row in rows],
            "labels": [list(row.labels) for row in rows],
            "pictures": [json.dumps([asdict(image) for image in row.pictures]) for row in rows],
        }

    return Dataset.from_dict({TASK: list(range(rows))}).with_transform(made)


def _parts(tasks: GoldTasks, rows: Sequence[int]) -> list[tuple[Taskset, list[int]]]:
    """The rows asked for, in their order, by the taskset that holds their tasks: each with indices into it."""
    parts: list[tuple[int, list[int]]] = []
    for row in rows:
        number, index = tasks.of(row)
        if not parts or parts[-1][0] != number:
            parts.append((number, []))
        parts[-1][1].append(index)
    return [(tasks.taskset(number), indices) for number, indices in parts]


def _played(taskset: Taskset, asked: Sequence[int], blobs: BlobStore) -> list[Trajectory]:
    """The gold of tasks, by index, through their real worlds; what they show is put into `blobs`.

    Raises `ConfigError` where an episode ends in an error.
    """
    plan = jobs([taskset.tasks[index] for index in asked])

    async def play() -> dict[str, Trajectory]:
        return {one.task.id: one async for one in episodes(taskset, plan, ScriptedSampler(), concurrency=8)}

    found = asyncio.run(play())
    played = [found[job.task.id] for job in plan]
    for one in played:
        if one.error is not None:
            raise ConfigError(f"the gold of {one.task.id} ended in an error: {one.error.strip().splitlines()[-1]}")
    if taskset.blobs is not None:
        for message in (message for one in played for message in one.messages):
            for part in message.content:
                if isinstance(part, Image):
                    blobs.put(taskset.blobs.get(part))
        if taskset.blobs.passing:  # another may be the user's own
            taskset.blobs.clear()
    return played
