"""SFT trains on exactly what the policy wrote, in an order fixed by seed, and a killed run ends in the same weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.dialects import dialect_named
from agent.models import dialect_of, load_model
from agent.renderer import Renderer
from agent.rollout import rollout_sync
from agent.sampler import ScriptedSampler
from envs import Span, Step, StepTokens, Task, ToolEnv, Trajectory, assistant, system, user
from envs.log import append
from tools import ConfigError, tool
from tools.tool import ToolCall
from training.files import MODEL, read_metrics
from training.recipe import SFT, Recipe, StageRun
from training.sft import (
    IGNORED,
    RowTrainer,
    config,
    dataset_of,
    episodes_of,
    layout,
    packed,
    row_of,
    rows_of,
    sft,
    token_losses,
)


@tool
def python(code: str) -> str:
    """Run Python, as far as sums of two numbers go."""
    left, _, right = code.partition("+")
    return str(int(left) + int(right))


def gold_episode(i: int) -> Trajectory:
    call = ToolCall(id="call_0", name="python", raw="", arguments={"code": f"{i}+7"})
    gold = (assistant(tool_calls=(call,)), assistant(f"Answer: {i + 7}"))
    task = Task(id=f"t{i}", prompt=(system("Add."), user(f"{i} + 7?")), gold=gold)
    trajectory = rollout_sync(ToolEnv(task=task, tools=(python,)), ScriptedSampler())
    trajectory.reward = 1.0
    return trajectory


def recorded(*steps: tuple[tuple[int, ...], tuple[int, ...], bool]) -> Trajectory:
    """An episode of (added, completion, extends) steps with ids of their own."""
    made = [
        Step(
            observation=(),
            action=assistant("x"),
            tokens=StepTokens(
                added=added,
                completion=completion,
                logprobs=(-1.0,) * len(completion),
                extends=extends,
                spans=(Span(start=0, end=len(added), source="tool" if extends else "prompt"),),
            ),
        )
        for added, completion, extends in steps
    ]
    return Trajectory(task=Task(id="r", prompt=()), steps=made, reward=1.0)


def by_hand(model: Any, ids: tuple[int, ...], labels: tuple[int, ...]) -> list[float]:
    """-log p of each labelled token of one unpadded row, from the full logits."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    return [
        (logits[at - 1].logsumexp(-1) - logits[at - 1, label]).item()
        for at, label in enumerate(labels)
        if at and label != IGNORED
    ]


@pytest.mark.parametrize("dialect", ["hermes", "inline"])
def test_loss_falls_on_calls_answers_and_stops_and_on_nothing_the_world_said(tokenizer: Any, dialect: str) -> None:
    rows, dropped = rows_of([gold_episode(35)], Renderer(tokenizer, dialect_named(dialect)))
    (row,) = rows
    assert dropped == 0
    trained = tokenizer.decode([label for label in row.labels if label != IGNORED])
    untrained = tokenizer.decode([i for i, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED])
    assert "35+7" in trained
    assert trained.endswith("Answer: 42<|im_end|>")
    assert "35 + 7?" in untrained and "as far as sums" in untrained and "42" in untrained, "the result is untrained"
    assert trained.count("42") == 1
    assert all(label in (IGNORED, token) for token, label in zip(row.input_ids, row.labels, strict=True))


def test_the_loss_is_that_of_a_hand_computation_though_padding_looks_like_a_stop(toy_model: Any) -> None:
    """Rows of unlike length, padded with the very id that ends a turn: token by token, and in the trainer's sum."""
    model = toy_model().eval()
    stop = 2
    ids = [(5, 6, 7, stop, 9, 10, stop), (5, 8, stop)]
    labels = [(IGNORED, IGNORED, 7, stop, IGNORED, 10, stop), (IGNORED, 8, stop)]
    width = max(map(len, ids))
    padded = torch.tensor([[*row, *[stop] * (width - len(row))] for row in ids])
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    targets = torch.tensor([[*row, *[IGNORED] * (width - len(row))] for row in labels])
    losses, _ = token_losses(model, padded, targets, attention_mask=attention)
    expected = [loss for row, wanted in zip(ids, labels, strict=True) for loss in by_hand(model, row, wanted)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert len(expected) == 6


def trainer_of(model: Any, tokenizer: Any, rows: Any, out: Path, stage: SFT) -> RowTrainer:
    return RowTrainer(
        model=model, args=config(stage, out, seed=3), train_dataset=dataset_of(rows), processing_class=tokenizer
    )


def test_what_the_trainer_minimises_is_the_mean_over_trained_tokens(
    toy_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """TRL's own collator and batching, our head on trained tokens: the number found by hand, and by TRL's own loss."""
    tokenizer.pad_token = "<|im_end|>"  # as in SmolLM2
    try:
        rows, _ = rows_of([gold_episode(i) for i in (3, 1234)], Renderer(tokenizer, dialect_named("hermes")))
        model = toy_model().eval()
        stage = SFT(data="log.jsonl", steps=1, batch_size=2, trl={"bf16": False})
        trainer = trainer_of(model, tokenizer, rows, tmp_path, stage)
        batch = next(iter(trainer.get_train_dataloader()))
        assert batch["attention_mask"].sum(dim=1).tolist() == [len(row.input_ids) for row in rows]
        expected = [loss for row in rows for loss in by_hand(model, row.input_ids, row.labels)]
        ours = trainer.compute_loss(model, dict(batch)).item()
        trls = super(RowTrainer, trainer).compute_loss(model, dict(batch)).item()
        assert ours == pytest.approx(sum(expected) / len(expected), rel=1e-5)
        assert ours == pytest.approx(trls, rel=1e-5)
        halves = trainer.compute_loss(model, dict(batch), num_items_in_batch=2 * len(expected)).item()
        assert halves == pytest.approx(ours / 2, rel=1e-6), "accumulated micro-batches divide by the step's tokens"
    finally:
        tokenizer.pad_token = "<|endoftext|>"


def test_micro_batches_of_unlike_trained_tokens_give_the_gradient_of_the_whole_batch(
    toy_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    rows, _ = rows_of([gold_episode(i) for i in (1, 22, 333, 4444)], Renderer(tokenizer, dialect_named("hermes")))
    rows[0] = replace(rows[0], labels=(*[IGNORED] * (len(rows[0].labels) - 1), rows[0].labels[-1]))
    weights: list[Any] = []
    for micro in (4, 1):
        stage = SFT(data="log.jsonl", steps=1, batch_size=4, micro_batch_size=micro, warmup=0, trl={"bf16": False})
        model = toy_model()
        trainer_of(model, tokenizer, rows, tmp_path / str(micro), stage).train()
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=2e-6)


def test_recorded_ids_are_used_as_they_are_and_a_fork_is_a_row_of_its_own(tokenizer: Any) -> None:
    """P0 A0 E1 A1, then the history was rewritten: P2 A2. Ids that no text is encoded to pass through untouched."""
    fork = recorded(((1, 9, 9), (4, 2), False), ((7,), (5, 2), True), ((1, 8), (6, 2), False))
    rows, _ = rows_of([fork], Renderer(tokenizer, dialect_named("hermes")))
    assert [row.input_ids for row in rows] == [(1, 9, 9, 4, 2, 7, 5, 2), (1, 8, 6, 2)]
    assert [row.labels for row in rows] == [
        (IGNORED, IGNORED, IGNORED, 4, 2, IGNORED, 5, 2), (IGNORED, IGNORED, 6, 2),
    ]  # fmt: skip


def test_rows_that_are_too_long_are_left_out_and_counted(tokenizer: Any) -> None:
    episodes = [recorded(((1,) * n, (4, 2), False)) for n in (3, 10)]
    rows, dropped = rows_of(episodes, Renderer(tokenizer, dialect_named("hermes")), max_length=8)
    assert (len(rows), dropped) == (1, 1)


@given(
    mask=st.lists(st.booleans(), min_size=1, max_size=30),
    seed=st.integers(min_value=0, max_value=2**31),
)
def test_labels_are_the_ids_where_the_mask_is_one(mask: list[bool], seed: int) -> None:
    ids = tuple((seed + index) % 500 for index in range(len(mask)))
    source = tuple("model" if on else "tool" for on in mask)
    from envs import TokenSequence

    sequence = TokenSequence(
        token_ids=ids,
        loss_mask=tuple(map(int, mask)),
        sources=source,
        logprobs=(0.0,) * len(ids),  # type: ignore[arg-type]
    )
    row = row_of(sequence)
    assert row.input_ids == ids
    assert row.labels == tuple(token if on else IGNORED for token, on in zip(ids, mask, strict=True))


@given(
    lengths=st.lists(st.integers(min_value=1, max_value=99), min_size=1, max_size=40),
    steps=st.integers(min_value=1, max_value=12),
    batch=st.integers(min_value=1, max_value=9),
    seed=st.integers(min_value=0, max_value=99),
)
def test_the_layout_is_fixed_by_seed_and_uses_every_row_about_as_often(
    lengths: list[int], steps: int, batch: int, seed: int
) -> None:
    order = layout(lengths, steps, batch, seed)
    assert order == layout(lengths, steps, batch, seed)
    assert len(order) == steps * batch
    counts = [order.count(index) for index in range(len(lengths))]
    most = math.ceil(steps * batch / len(lengths))
    assert max(counts) <= most and min(counts) >= most - 1
    for at in range(0, len(order), batch):
        here = [lengths[index] for index in order[at : at + batch]]
        assert here == sorted(here), "a batch is sorted, so that micro-batches pad little"


def stage_run(folder: Path, **fields: Any) -> StageRun:
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(name="r", model="tiny", stages=(SFT(data="log.jsonl"),))
    return StageRun(**{"recipe": recipe, "folder": folder, "start": "tiny", "dialect": "hermes", "seed": 5, **fields})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    for i in range(10):
        append(tmp_path / "log.jsonl", gold_episode(i * 13))
    return tmp_path / "log.jsonl"


def stage_of(log: Path, **fields: Any) -> SFT:
    defaults: dict[str, Any] = {"steps": 6, "batch_size": 4, "lr": 1e-3, "warmup": 1, "checkpoint_every": 2}
    return SFT(**{"data": str(log), "trl": {"bf16": False}, **defaults, **fields})


def test_it_learns_and_leaves_a_model_that_loads_and_knows_its_dialect(tmp_path: Path, log: Path) -> None:
    folder = tmp_path / "sft"
    found = sft(stage_of(log, steps=12), stage_run(folder, dialect="inline"), log)
    assert found["rows"] == 10 and found["trained_tokens"] > 50
    losses = [row["loss"] for row in read_metrics(folder)]
    assert len(losses) == 12 and losses[-1] < 0.8 * losses[0]
    assert dialect_of(str(folder / MODEL)) == "inline"
    model, tokenizer = load_model(str(folder / MODEL))
    assert tokenizer.chat_template
    assert model.config.use_cache and model.dtype == torch.float32
    assert not list(folder.glob("checkpoint-*")), "checkpoints are for resuming, and the stage is done"


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_stopped_after_any_step_it_ends_in_the_weights_of_an_undisturbed_run(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, stopped = tmp_path / "calm", tmp_path / "stopped"
    sft(stage_of(log), stage_run(calm), log)
    step = RowTrainer.training_step

    for dying in (3, 5):

        def dies(self: RowTrainer, *args: Any, at: int = dying, **kwargs: Any) -> Any:
            if self.state.global_step >= at:
                raise Killed
            return step(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(RowTrainer, "training_step", dies)
            with pytest.raises(Killed):
                sft(stage_of(log), stage_run(stopped), log)
    half = max(stopped.glob("checkpoint-*"))
    broken = stopped / "checkpoint-99"
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_step": 9')  # a kill while a checkpoint was being written
    sft(stage_of(log), stage_run(stopped), log)
    assert half.name == "checkpoint-4"
    ours, _ = load_model(str(stopped / MODEL))
    theirs, _ = load_model(str(calm / MODEL))
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
    steps = [[(row["step"], row["loss"]) for row in read_metrics(folder)] for folder in (calm, stopped)]
    assert steps[0] == steps[1], "no step is missing from the metrics, or there twice"


def test_a_folder_with_another_models_checkpoint_is_refused_and_left_as_it_is(tmp_path: Path, log: Path) -> None:
    checkpoint = tmp_path / "sft" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 2}')
    (checkpoint / "config.json").write_text('{"model_type": "llama", "hidden_size": 7}')
    with pytest.raises(ConfigError, match=r"checkpoint-2 is of another model: its hidden_size is 7, this one's is \d+"):
        sft(stage_of(log), stage_run(tmp_path / "sft"), log)
    assert len(list(checkpoint.iterdir())) == 2


@pytest.mark.parametrize(
    ("trl", "says"), [({"learning_rat": 1}, "learning_rat"), ({"lr_scheduler_type": "up"}, "does not fit")]
)
def test_options_that_trl_does_not_know_are_refused_by_name(tmp_path: Path, log: Path, trl: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sft(stage_of(log, trl=trl), stage_run(tmp_path / "sft"), log)


def test_a_log_without_a_row_to_train_on_is_refused(tmp_path: Path) -> None:
    append(tmp_path / "log.jsonl", recorded(((1,) * 50, (4, 2), False)))
    with pytest.raises(ConfigError, match="no row to train on"):
        sft(stage_of(tmp_path / "log.jsonl", max_length=10), stage_run(tmp_path / "sft"), tmp_path / "log.jsonl")


def test_packed_rows_have_the_loss_of_rows_on_their_own(toy_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Four rows in two: no row sees another, the labels are the same, and so is the mean over trained tokens."""
    rows, _ = rows_of([gold_episode(i) for i in (3, 1234, 77, 8)], Renderer(tokenizer, dialect_named("hermes")))
    model = toy_model(max_position_embeddings=1024).eval()
    length = 2 * max(len(row.input_ids) for row in rows)
    stage = SFT(data="log.jsonl", steps=1, batch_size=2, max_length=length, packing=True, trl={"bf16": False})
    dataset = packed(rows, length)
    assert len(dataset) == 2 and sorted(map(len, dataset["seq_lengths"])) == [2, 2]
    trainer = RowTrainer(
        model=model, args=config(stage, tmp_path, seed=3), train_dataset=dataset, processing_class=tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert "attention_mask" not in batch
    expected = [loss for row in rows for loss in by_hand(model, row.input_ids, row.labels)]
    assert trainer.compute_loss(model, dict(batch)).item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_messages_train_like_a_log(tmp_path: Path, tokenizer: Any) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    (tmp_path / "talk.jsonl").write_text(json.dumps(row) + "\n")
    renderer = Renderer(tokenizer, dialect_named("hermes"))
    rows, _ = rows_of(episodes_of(tmp_path / "talk.jsonl", renderer), renderer)
    assert tokenizer.decode([label for label in rows[0].labels if label != IGNORED]) == "Hello<|im_end|>"
    with pytest.raises(ConfigError, match="there is no data"):
        episodes_of(tmp_path / "none.jsonl", renderer)
