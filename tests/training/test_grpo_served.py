"""GRPO whose episodes are sampled by servers: new weights reach them before every step, and they sample with those."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from real_vllm import real_vllm
from safetensors.torch import load_file
from vllm_server import VLLMServer

from agent.models import load_model
from agent.rollout import Limits
from agent.sampler import SamplingParams
from agent.vllm_weights import OUTPUT, shares_output
from envs.log import read_log
from tools.errors import ConfigError
from training.files import read_json, read_metrics
from training.recipe import GRPO, HeldOut, Recipe
from training.run import run

WORLD = """
from envs import Rubric, Task, Taskset, ToolEnv, user


def world(n: int = 12, split: str = "train") -> Taskset:
    async def even(env, trajectory):
        ids = [token for step in trajectory.steps for token in step.tokens.completion]
        return sum(token % 2 == 0 for token in ids) / len(ids)

    tasks = [Task(id=f"{split}{i}", prompt=(user(f"{i} + 1?"),)) for i in range(n)]
    rubric = Rubric(rewards={"even": (even, 1.0)})
    return Taskset(name="world", tasks=tasks, env=lambda task: ToolEnv(task=task), rubric=rubric)
"""


def trained(url: str, folder: Path, **settings: Any) -> Path:
    """A run of three steps that asks the server at `url`; returns the folder of its stage."""
    path = folder / "world.py"
    path.write_text(WORLD)
    defaults: dict[str, Any] = {
        "server": url,
        "steps": 3,
        "tasks_per_step": 2,
        "group_size": 3,
        "lr": 1e-2,
        "params": SamplingParams(max_tokens=6),
        "limits": Limits(max_turns=1),
        "held_out": HeldOut(every=2, n=2),
        "trl": {"bf16": False},
    }
    recipe = Recipe(
        name="served", model="tiny", taskset=f"{path}:world", threads=1, stages=(GRPO(**{**defaults, **settings}),)
    )
    return run(recipe, folder / "run") / "grpo"


def check(out: Path) -> None:
    """Each step's episodes were sampled with that step's weights, by the trainer's own account of their log-probs."""
    episodes = list(read_log(out / "trajectories.jsonl"))
    assert Counter(t.info["step"] for t in episodes) == {0: 6, 1: 6, 2: 6}
    assert {(t.info["step"], step.policy_version) for t in episodes for step in t.steps} == {(0, 0), (1, 1), (2, 2)}
    rows = [row for row in read_metrics(out) if "reward" in row]
    assert len(rows) == 3 and all(row["sampling/logp_gap_max"] < 1e-3 for row in rows)
    assert [row["step"] for row in read_json(out / "held_out.json")["scores"]] == [0, 2, 3]


def reloads(server: VLLMServer) -> list[str]:
    """Have `server` read the folders it is told to; the list fills with them."""
    told: list[str] = []

    def read(folder: str | None) -> None:
        assert folder is not None and not shares_output(folder), "vLLM on a CPU would keep its old output layer"
        weights = load_file(Path(folder) / "model.safetensors")
        assert weights.pop(OUTPUT).equal(weights["model.embed_tokens.weight"])
        server.engine.model.load_state_dict(weights, strict=False)
        told.append(folder)

    server.on_reload = read
    return told


def test_every_step_is_sampled_by_the_weights_it_trains(tmp_path: Path) -> None:
    with VLLMServer(*load_model("tiny")) as server:
        told = reloads(server)
        check(trained(server.url, tmp_path))
    assert len(told) == 4, "before the first step and after each"
    assert [path for path, _ in server.orders].count("/reset_prefix_cache") == 4


def test_a_server_that_keeps_its_old_weights_shows_in_the_gap(tmp_path: Path) -> None:
    """The control: where nothing is read again, the log-probs part at the second step."""
    with VLLMServer(*load_model("tiny")) as server:
        out = trained(server.url, tmp_path, held_out=HeldOut())
    gaps = [row["sampling/logp_gap_max"] for row in read_metrics(out) if "reward" in row]
    assert gaps[0] < 1e-3 and min(gaps[1:]) > 1e-2


def test_adapters_and_a_server_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with (
        VLLMServer(*load_model("tiny")) as server,
        pytest.raises(ConfigError, match="trains adapters and samples from"),
    ):
        trained(server.url, tmp_path, lora={})


@pytest.mark.vllm
@pytest.mark.timeout(3600)
def test_a_real_server_samples_with_the_weights_that_are_trained(tmp_path: Path) -> None:
    with real_vllm(tmp_path / "server.log") as url:
        check(trained(url, tmp_path))
