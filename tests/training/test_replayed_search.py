"""Training on recorded searches: the same episodes, id by id, however often it is run, and nobody is asked."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from envs.log import read_log
from tools.search.documents import Document
from tools.search.local import build

RECIPE = '''
"""A tiny model learns a dozen searches by heart, then is trained by GRPO on the same tasks."""
from agent.rollout import Limits
from agent.sampler import SamplingParams
from training.recipe import GRPO, SFT, Collect, Recipe

LIMITS = Limits(max_turns=2, max_calls=2)


def replayed(replies: str, mode: str = "record") -> Recipe:
    return Recipe(
        name="replayed", model="tiny", dialect="search-r1", taskset="wiki_search", seed=0, threads=1,
        taskset_args={"kind": "one_hop", "n": 12, "form": "tags", "k": 1, "replies": replies, "mode": mode},
        stages=(
            Collect(n=8, limits=LIMITS),
            SFT(steps=80, batch_size=8, lr=3e-3, warmup=5, trl={"bf16": False}),
            GRPO(start="sft", steps=3, tasks_per_step=4, group_size=4, lr=1e-4,
                 params=SamplingParams(max_tokens=64, temperature=0.4), limits=LIMITS, trl={"bf16": False}),
        ),
    )
'''


def almanac(path: Path) -> None:
    """Six facts of each of 30 countries that do not exist, in the form of the World Factbook."""
    rng = random.Random(0)
    names = ["".join(parts).title() for parts in itertools.product(("ba", "den", "ka", "lor", "mi", "nau"), repeat=2)]
    documents: list[Document] = []
    for number, name in enumerate(names[:30]):
        facts = {
            "Geography/Coastline": f"{rng.randint(10, 9000):,} km",
            "Geography/Area": f"total: {rng.randint(10, 90_000):,} sq km",
            "People and Society/Population": f"{rng.randint(1000, 9_000_000):,}",
            "Transportation/Airports": f"{rng.randint(1, 900)} (2013)",
            "Transportation/Roadways": f"total: {rng.randint(10, 9000):,} km",
            "Government/Capital": f"name: {name[::-1].title()}",
        }
        documents += [
            Document(
                id=f"factbook/{number:02}/{place}",
                title=f"{name}: {place.split('/')[1]}",
                text=text,
                info={"country": name},
            )
            for place, text in facts.items()
        ]
    build(documents, path, source="test")


def episodes(folder: Path) -> list[Any]:
    return sorted(
        [
            trajectory.task.id,
            trajectory.sample,
            [sequence.token_ids for sequence in trajectory.sequences()],
            trajectory.reward,
            [(call.outcome, call.result.text) for call in trajectory.calls],
        ]
        for trajectory in read_log(folder / "grpo" / "trajectories.jsonl")
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_recorded_run_is_replayed_id_by_id_as_often_as_one_likes(tmp_path: Path) -> None:
    almanac(tmp_path / "countries.index")
    (tmp_path / "replayed.py").write_text(RECIPE)
    env = {**os.environ, "TOOLWEAVE_WORLD": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for name, mode in (("recorded", "record"), ("once", "replay"), ("twice", "replay")):
        words = ["replayed.py:replayed", "replies=replies.db", f"mode={mode}", "--out", name]
        done = subprocess.run(
            [sys.executable, "-m", "training", "run", *words], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
    recorded, once, twice = (episodes(tmp_path / name) for name in ("recorded", "once", "twice"))
    assert len(recorded) == 48 and json.dumps(once) == json.dumps(twice) == json.dumps(recorded)
    assert any(outcome == "ok" for *_, calls in once for outcome, _ in calls), "something was searched"
