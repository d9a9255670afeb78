"""Rows made as a trainer asks for them: the gold of each task is played, drawn and rendered when its turn comes.

A hundred thousand pictures need no disk, and no example is seen twice.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import json
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
from tools.errors import ConfigError

TASK = "task"
"""The column that says which task a row is made of."""
KEPT = 4096
"""So many of the last pictures are kept, more than a batch holds; the others are gone, and can be drawn again."""


def fresh_rows(taskset: Taskset, renderer: Renderer) -> Dataset:
    """A row a task, in their order: what `training.sft.dataset_of` would hold, made when it is read.

    Raises `ConfigError` on reading a task whose gold does not make one row that can be trained on.
    """
    from training.sft import rows_of

    used: deque[PlacedImage] = deque()

    def made(asked: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        found = asyncio.run(_played(taskset, asked[TASK]))
        rows, _ = rows_of(found, renderer)
        if len(rows) != len(found):
            raise ConfigError(
                f"{len(found)} tasks of {taskset.name} made {len(rows)} rows", hint="gold must make one row a task"
            )
        used.extend(image for row in rows for image in row.pictures)
        while len(used) > KEPT and taskset.blobs is not None:
            taskset.blobs.discard(used.popleft().sha256)
        return {
            "input_ids": [list(row.input_ids) for row in rows],
            "labels": [list(row.labels) for row in rows],
            "pictures": [json.dumps([asdict(image) for image in row.pictures]) for row in rows],
        }

    return Dataset.from_dict({TASK: list(range(len(taskset.tasks)))}).with_transform(made)


async def _played(taskset: Taskset, asked: Sequence[int]) -> list[Trajectory]:
    """The gold of tasks, by index, through their real worlds. Raises `ConfigError` where one ends in an error."""
    plan = jobs([taskset.tasks[index] for index in asked])
    found = {one.task.id: one async for one in episodes(taskset, plan, ScriptedSampler(), concurrency=8)}
    played = [found[job.task.id] for job in plan]
    for one in played:
        if one.error is not None:
            raise ConfigError(f"the gold of {one.task.id} ended in an error: {one.error.strip().splitlines()[-1]}")
    return played
