"""Sixty-four visual episodes at once on photographs of 15 megapixels, within the memory declared for pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("skimage")

PLAY = """
import asyncio, json, sys, threading
from agent import ScriptedSampler, rollout
from envs.tasksets.visual_search import visual_search
from tools.image.memory import shared_memory

def resident():  # MB
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

async def play():
    small = visual_search(n=1, size="320x240", shown=64, length=1)
    await rollout(small.env(small.tasks[0]), ScriptedSampler())  # all is imported
    before = most = resident()
    over = threading.Event()

    def watch():
        nonlocal most
        while not over.wait(0.02):
            most = max(most, resident())

    watching = threading.Thread(target=watch)
    watching.start()
    taskset = visual_search(n=64, size="5000x3000")
    played = [rollout(taskset.env(task), ScriptedSampler(), rubric=taskset.rubric) for task in taskset.tasks]
    episodes = await asyncio.gather(*played)
    over.set()
    watching.join()
    right = sum(episode.scores.get("correct", 0) for episode in episodes)
    print(json.dumps({"right": right, "before": before, "most": most, "accounted": shared_memory().peak / 2**20}))

asyncio.run(play())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("budget_mb", [512, 256])
def test_64_episodes_on_photographs_of_15_megapixels_stay_within_the_declared_memory(budget_mb: int) -> None:
    environment = {**os.environ, "TOOLWEAVE_IMAGE_MEMORY_MB": str(budget_mb), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PLAY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=540)
    found = json.loads(done.stdout)
    print(found)
    assert found["right"] == 64
    assert found["accounted"] <= budget_mb
    assert found["most"] - found["before"] <= budget_mb * 1.1  # what the allocator keeps
