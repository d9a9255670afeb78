"""Bugs of other frameworks, each held against ours. The letters are those of the list in the project's notes on peers:

(a) a text-only prompt whose tool returns an image      (g) pre-expanded image ids drift or multiply
(b) the model samples image placeholders                (h) an unreadable image is replaced by a blank one
(c) an observation is cut inside an image               (i) a masked rollout moves the group's mean
(d) a tool server that is down trains as a wrong answer (j) an entry point does not import in a clean environment
(e) a tool that blocks for ever stops the run           (k) the agent rewrites its last turn
(f) one bad log-prob count switches correction off for the whole batch

and of TRL: a barrier per turn, a remainder of rows dropped in silence, cut episodes counted as finished, one bad image
that takes those of the whole batch with it. Its empty completions are in test_grpo.py, its split groups in
test_grpo_config.py, its tool tokens in the LM head in test_grpo_losses.py, forks that count double there too.
"""

from __future__ import annotations

import asyncio
import pkgutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.utils import split_tensor_dict

import training
from agent.rollout import Limits
from envs import Span, Step, StepTokens, Stop, Task, ToolEnv, Trajectory, assistant
from envs.log import read_log
from envs.trajectory import PlacedImage
from tools import tool
from training.audit import Sight, problem_with_episode
from training.batch import collate, rows_of, size_for

PAD = 9
"""The image placeholder; an image of 2 x 3 pixels is six of them."""

CAT, DOG = "c" * 64, "d" * 64
SIGHT = Sight(
    placeholder=PAD,
    block=lambda size: (PAD,) * (size[0] * size[1]),
    unreadable=lambda image: "it is torn" if image.sha256 == DOG else None,
)


def turn(added: tuple[int, ...], said: tuple[int, ...], *, first: bool = False, **fields: Any) -> Step:
    tokens: dict[str, Any] = {
        "added": added,
        "completion": said,
        "logprobs": (-1.0,) * len(said),
        "extends": not first,
        "spans": (Span(start=0, end=len(added), source="prompt" if first else "tool"),),
    }
    return Step(observation=(), action=assistant("x"), tokens=StepTokens(**{**tokens, **fields}))


def picture(at: int, sha256: str = CAT) -> tuple[PlacedImage, ...]:
    return (PlacedImage(sha256=sha256, shown_size=(2, 3), position=at),)


SHOWN = (3, *[PAD] * 6, 4)
"""What a tool's image adds: a start, six placeholders, an end."""


def problem(*steps: Step, sight: Sight | None = SIGHT) -> str | None:
    trajectory = Trajectory(task=Task(id="t", prompt=()), steps=list(steps))
    return problem_with_episode(trajectory, trajectory.sequences(), vocab_size=50, sight=sight)


def test_a_and_g_a_tools_image_after_a_text_prompt_stands_where_it_was_put_and_as_often() -> None:
    ids = (turn((1, 2), (5,), first=True), turn(SHOWN, (6,), images=picture(1)), turn(SHOWN, (7,), images=picture(1)))
    assert problem(*ids) is None
    (row,) = Trajectory(task=Task(id="t", prompt=()), steps=list(ids)).sequences()
    assert row.token_ids == (1, 2, 5, *SHOWN, 6, *SHOWN, 7)
    assert [image.position for image in row.images] == [4, 13]
    assert row.token_ids.count(PAD) == 12


def test_a_model_without_sight_is_never_trained_on_a_picture_as_if_it_were_text() -> None:
    found = problem(turn((1, *SHOWN), (5,), first=True, images=picture(2)), sight=None)
    assert found == "row 0: it holds 1 images, and these rows carry token ids only"


def test_b_placeholders_that_the_model_sampled_are_no_image() -> None:
    found = problem(turn((1, *SHOWN), (5, PAD, PAD), first=True, images=picture(2)))
    assert found == "row 0: 2 image placeholders belong to no image; model wrote the one at 10"


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_c_an_observation_cut_inside_an_image_is_found(kept: int) -> None:
    cut = (3, *[PAD] * kept)
    found = problem(turn((1, 2), (5,), first=True), turn(cut, (6,), images=picture(1)))
    assert found == f"row 0: image 0 has 6 features and {kept} placeholders at 4"


def test_h_an_unreadable_image_is_a_reason_and_never_another_picture() -> None:
    found = problem(turn((1, *SHOWN), (5,), first=True, images=picture(2, DOG)))
    assert found == f"row 0: image 0 ({DOG[:12]}) cannot be read: it is torn"


def prepared(trainer: Any) -> Any:
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))


def test_one_bad_image_takes_its_own_sample_out_and_no_other(trainer_for: Any, caplog: Any) -> None:
    """TRL removes every picture of the batch at the first mismatch."""

    def say(so_far: Trajectory) -> Any:
        fields = {"images": picture(0)} if so_far.sample == 1 else {}
        return "Answer: 1", fields

    batch = prepared(trainer_for(say))
    assert batch["tool_mask"].any(dim=1).sum() == 2 * 3
    assert caplog.text.count("sample 1 is left out: row 0: it holds 1 images") == 2


def with_tool(toys: Any, fn: Any, reward: Any = None) -> Any:
    """The toy taskset with another `add`."""
    taskset = toys.taskset(**({"reward": reward} if reward else {}))
    return replace(taskset, env=lambda task: ToolEnv(task=task, tools=(fn,)))


def calls_if_first(toys: Any) -> Any:
    def say(so_far: Trajectory) -> str:
        return toys.call_text(1, 1) if so_far.sample == 0 and not so_far.steps else "Answer: 1"

    return say


async def two_or_six(env: Any, trajectory: Trajectory) -> float:
    return {2: 2.0, 3: 6.0}.get(trajectory.sample, 4.0)


def test_d_a_tool_server_that_is_down_is_nobodys_wrong_answer(trainer_for: Any, toys: Any) -> None:
    @tool
    async def add(a: int, b: int) -> str:
        """Add."""
        raise ConnectionError("the server is down")

    taskset = with_tool(toys, add, two_or_six)
    batch = prepared(trainer_for(calls_if_first(toys), taskset=taskset, advantages="dr_grpo"))
    # The others got 4, 2 and 6: mean 4. A wrong answer's 0 would have made it 3.
    assert sorted(set(batch["advantages"].tolist())) == [-2.0, 2.0], "4 has none, and costs no pass"
    assert batch["tool_mask"].any(dim=1).sum() == 4


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_e_a_tool_that_blocks_for_ever_costs_one_call_and_not_the_run(
    trainer_for: Any, toys: Any, tmp_path: Path, kind: str
) -> None:
    released = threading.Event()

    @tool(name="add")
    async def waits(a: int, b: int) -> str:
        """Add."""
        await asyncio.Event().wait()
        return ""

    @tool(name="add")
    def blocks(a: int, b: int) -> str:
        """Add."""
        released.wait()
        return ""

    taskset = with_tool(toys, waits if kind == "async" else blocks)
    limits = Limits(max_turns=4, call_timeout_s=0.2)
    trainer = trainer_for(calls_if_first(toys), taskset=taskset, steps=1, limits=limits)
    try:
        trainer.train()
    finally:
        released.set()
    episodes = list(read_log(tmp_path / "trajectories.jsonl"))
    assert [call.outcome for t in episodes for call in t.calls] == ["timeout"] * 2
    assert {t.stop for t in episodes} == {Stop.DONE}, "the model was told, and went on"


def test_f_a_bad_log_prob_count_leaves_correction_on_for_the_others(trainer_for: Any) -> None:
    def say(so_far: Trajectory) -> Any:
        if so_far.sample == 1:
            return "Answer: 1", {"logprobs": (-0.5,)}
        return "Answer: 1"

    trainer = trainer_for(say, correction="token_truncate")
    batch = prepared(trainer)
    assert batch["tool_mask"].any(dim=1).sum() == 2 * 3
    mask = batch["tool_mask"].bool()
    assert batch["advantages"].dim() == 2
    assert len(set(batch["advantages"][mask].abs().tolist())) > 2, "each token has a ratio of its own"


def test_i_a_masked_rollout_moves_the_mean_only_if_asked(trainer_for: Any, toys: Any) -> None:
    """Sample 0 never ends and is worth 4; the others get 4, 2 and 6."""

    def say(so_far: Trajectory) -> str:
        return toys.call_text(1, 1) if so_far.sample == 0 else "Answer: 1"

    async def reward(env: Any, trajectory: Trajectory) -> float:
        return {0: 8.0, 1: 4.0, 2: 2.0, 3: 6.0}[trajectory.sample]

    found: dict[str, list[float]] = {}
    for policy in ("mask", "drop"):
        taskset = toys.taskset(reward=reward)
        settings = {"advantages": "dr_grpo", "limits": Limits(max_turns=2), "stops": {"limits": policy}}
        batch = prepared(trainer_for(say, taskset=taskset, **settings))
        found[policy] = sorted(set(batch["advantages"].tolist()))
    assert found == {"mask": [-3.0, -1.0, 1.0], "drop": [-2.0, 2.0]}


@pytest.mark.slow
def test_j_every_module_imports_alone_in_a_clean_environment(tmp_path: Path) -> None:
    names = [name.name for name in pkgutil.walk_packages(training.__path__, "training.")]
    names = [name for name in names if not name.endswith("__main__")]
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *reversed(names)], capture_output=True, text=True, cwd=tmp_path, env={}
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_k_a_rewritten_turn_is_a_new_row_and_trains_what_was_sampled_once() -> None:
    """Turn 0 said 5 6; the agent's next prompt has 5 8 in its place. What it quotes is context; 7 alone is new."""
    first = turn((1, 2), (5, 6), first=True)
    quoted = (
        Span(start=0, end=2, source="prompt"),
        Span(start=2, end=4, source="model"),
        Span(start=4, end=5, source="env"),
    )
    second = turn((1, 2, 5, 8, 3), (7,), extends=False, spans=quoted)
    trajectory = Trajectory(task=Task(id="t", prompt=()), steps=[first, second])
    assert problem(first, second) is None
    rows = rows_of(trajectory.sequences(), episode=0, advantage=1.0)
    assert [row.trained_ids for row in rows] == [[5, 6], [7]]
    assert rows[1].prompt == (1, 2, 5, 8, 3)


def test_no_barrier_an_episode_at_its_second_turn_does_not_wait_for_anothers_first(
    trainer_for: Any, toys: Any, tokenizer: Any
) -> None:
    """Sample 0's call returns only after every other episode is over: with a barrier per turn, none ever would be."""
    over = asyncio.Event()
    left = 2 * 4 - 2

    @tool
    async def add(a: int, b: int) -> str:
        """Add."""
        if a == 0:
            await asyncio.wait_for(over.wait(), timeout=300)
        return str(a + b)

    class Counting(toys.SaysSo):
        async def sample(self, so_far: Any, *args: Any) -> Any:
            nonlocal left
            step = await super().sample(so_far, *args)
            if so_far.sample and so_far.steps:
                left -= 1
                if left == 0:
                    over.set()
            return step

    def say(so_far: Trajectory) -> str:
        return "Answer: 1" if so_far.steps else toys.call_text(so_far.sample, 1)

    limits = Limits(max_turns=4, call_timeout_s=600)
    trainer = trainer_for(
        make_sampler=lambda _: Counting(tokenizer, say), taskset=with_tool(toys, add), limits=limits, steps=1
    )
    trainer.train()
    assert left == 0


def test_no_row_is_lost_when_rows_do_not_divide_over_micro_batches() -> None:
    """Nine rows in four micro-batches: TRL's split alone drops the ninth."""
    row = rows_of(
        Trajectory(task=Task(id="t", prompt=()), steps=[turn((1, 2), (5,), first=True)]).sequences(),
        episode=0,
        advantage=1.0,
    )
    rows = [replace(row[0], completion=(10 + index,)) for index in range(9)]
    batch = collate(rows, size=size_for(9, chunks=4), pad_id=0)
    parts = split_tensor_dict(batch, 4)
    trained = torch.cat([part["completion_ids"][part["tool_mask"].bool()] for part in parts])
    assert sorted(trained.tolist()) == list(range(10, 19))
    dropped = split_tensor_dict(collate(rows, size=9, pad_id=0), 4)
    assert sum(len(part["completion_ids"]) for part in dropped) == 8, "the trap is still there"


def test_an_episode_that_a_limit_cut_is_never_counted_as_finished(trainer_for: Any, toys: Any) -> None:
    trainer = trainer_for(lambda _: toys.call_text(1, 1), limits=Limits(max_turns=2), steps=1)
    trainer.train()
    found = next(row for row in trainer.state.log_history if "reward" in row)
    assert found["completions/clipped_ratio"] == found["stop/max_turns"] == 1.0 and found["stop/done"] == 0.0
