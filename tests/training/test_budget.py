"""Stages that end before their last step: by tokens trained on, and by what is predicted right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import Limits, SamplingParams
from tools import ConfigError
from training.files import read_json, read_metrics
from training.recipe import GRPO, SFT, Recipe, Stage
from training.run import run
from training.sft import RowTrainer

TOY = {"model": "tiny", "taskset": "toy_arithmetic", "taskset_args": {"n": 64}}
PLAIN = {"bf16": False}


def played(stage: Stage, out: Path) -> list[dict[str, float]]:
    run(Recipe(name="r", stages=(stage,), **TOY), out)  # pyright: ignore[reportArgumentType]
    assert read_json(out / stage.name / "done.json") is not None
    return list(read_metrics(out / stage.name))


@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
@pytest.mark.parametrize("trl", [{}, {"label_smoothing_factor": 0.1}], ids=["our loss", "TRL's loss, as on a GPU"])
def test_sft_ends_with_the_step_that_uses_the_tokens_up(
    tmp_path: Path, trl: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stage = SFT(data="gold", steps=50, batch_size=4, max_tokens=700, trl={**PLAIN, **trl})
    counts = [row["num_tokens"] for row in played(stage, tmp_path)]
    assert counts[-1] >= 700 and all(count < 700 for count in counts[:-1]) and len(counts) < 50
    assert f"sft: {len(counts)}/{len(counts)} in" in capsys.readouterr().err, "not of 50 steps"


@pytest.mark.parametrize("falling", [400, 100])
def test_a_rate_that_falls_is_used_up_with_the_tokens_also_when_training_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, falling: int
) -> None:
    kwargs = {"num_decay_steps": falling, "decay_type": "linear"}
    schedule: dict[str, Any] = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": kwargs}
    trl = {**PLAIN, **(schedule if falling < 400 else {})}
    stage = SFT(data="gold", steps=403, batch_size=4, max_tokens=3000, lr=1e-2, warmup=3, checkpoint_every=4, trl=trl)
    rows = played(stage, tmp_path / "calm")
    seen = [0.0, *(row["num_tokens"] for row in rows)]
    for number, row in enumerate(rows):
        left = 403 - max(403 * min(1, seen[number] / 3000), number)
        part = number / 3 if number < 3 else min(1, left / falling)
        assert row["learning_rate"] == pytest.approx(1e-2 * part)
    assert rows[-1]["learning_rate"] < 3e-3 < rows[4]["learning_rate"]

    step: Any = getattr(RowTrainer, "training_step")  # noqa: B009  # its types are partly unknown

    def dies(self: RowTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(RowTrainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            played(stage, tmp_path / "stopped")
    assert [row["learning_rate"] for row in played(stage, tmp_path / "stopped")] == [
        row["learning_rate"] for row in rows
    ]


def test_grpo_ends_with_the_step_that_uses_the_tokens_up(tmp_path: Path) -> None:
    stage = GRPO(
        steps=50,
        max_tokens=900,
        tasks_per_step=2,
        group_size=2,
        params=SamplingParams(max_tokens=8),
        limits=Limits(max_turns=1),
        trl=PLAIN,
    )
    counts = [row["num_tokens"] for row in played(stage, tmp_path)]
    assert counts[-1] >= 900 and all(count < 900 for count in counts[:-1]) and len(counts) < 50


def test_sft_ends_once_it_predicts_well_enough(tmp_path: Path) -> None:
    stage = SFT(data="gold", steps=200, batch_size=8, lr=4e-3, until_accuracy=0.5, trl=PLAIN)
    right = [row["mean_token_accuracy"] for row in played(stage, tmp_path)]
    assert 20 <= len(right) < 200
    means = [sum(right[end - 20 : end]) / 20 for end in range(20, len(right) + 1)]
    assert means[-1] >= 0.5 and all(mean < 0.5 for mean in means[:-1])


def test_a_share_that_cannot_be_reached_is_refused() -> None:
    for share in (0.0, 1.5):
        with pytest.raises(ConfigError, match="until_accuracy"):
            SFT(until_accuracy=share)
    with pytest.raises(ConfigError, match="max_tokens is 0"):
        GRPO(max_tokens=0)
