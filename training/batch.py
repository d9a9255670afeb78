"""Episodes become one batch of rows as TRL's loss reads them: prompts padded on the left, completions on the right.

An episode is one row, and one more for each fork its record holds. Shapes: `_B` rows, `_P` prompt tokens, `_C`
completion tokens.
"""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from envs.trajectory import PlacedImage, TokenSequence
from tools.record import record

Batch: TypeAlias = dict[str, Any]
"""What `GRPOTrainer._compute_loss` takes: tensors by name, first dimension rows (`num_items_in_batch` has none); a list
has one entry per row."""

Averaging: TypeAlias = Literal["tokens", "episodes", "rows"]
"""What a loss averages over: all trained tokens; each episode's tokens, then the episodes; or sums per episode."""

AVERAGING: dict[str, Averaging] = {
    "dapo": "tokens",
    "cispo": "tokens",
    "bnpo": "tokens",
    "grpo": "episodes",
    "sapo": "episodes",
    "dr_grpo": "rows",
}
"""By TRL's `loss_type`. The others weigh whole sequences, which a forked episode has several of."""


@record
class Row:
    """One training row, cut to what the loss can see."""

    episode: int
    """Which episode of the batch it belongs to."""
    advantage: float | tuple[float, ...]
    """Of every trained token, or one per completion token; 0 where untrained."""
    prompt: tuple[int, ...]
    """Everything before the first trained token."""
    completion: tuple[int, ...]
    """From the first trained token to the last; tool results between them are untrained context."""
    mask: tuple[int, ...]
    """1 on trained completion tokens."""
    logprobs: tuple[float, ...]
    """The sampler's, one per completion token; 0.0 where untrained."""
    pictures: tuple[PlacedImage, ...] = ()
    """Those among its tokens, with their positions in prompt and completion together."""

    @property
    def trained_ids(self) -> list[int]:
        """The sampled tokens, without what stands between them."""
        return [token for token, on in zip(self.completion, self.mask, strict=True) if on]

    @property
    def is_idle(self) -> bool:
        """True when no token of it has an advantage: its policy gradient is exactly 0."""
        return not any(self.advantage) if isinstance(self.advantage, tuple) else self.advantage == 0.0

    def advantages(self) -> tuple[float, ...]:
        """One per completion token."""
        if isinstance(self.advantage, tuple):
            return self.advantage
        return tuple(self.advantage * on for on in self.mask)


def rows_of(sequences: Sequence[TokenSequence], *, episode: int, advantage: float | Sequence[float]) -> list[Row]:
    """Rows of one episode; a sequence on which nothing was sampled has nothing to learn from, and makes none.

    P0 A0 E1 A1  ->  prompt P0, completion A0 E1 A1, mask 1..0..1

    `advantage` is one number, or one per sampled token of the episode, through all its sequences.
    """
    rows: list[Row] = []
    one = None if isinstance(advantage, Sequence) else advantage
    values = iter(advantage if isinstance(advantage, Sequence) else ())
    for sequence in sequences:
        trained = [index for index, on in enumerate(sequence.loss_mask) if on]
        if not trained:
            continue
        first, end = trained[0], trained[-1] + 1
        mask = sequence.loss_mask[first:end]
        rows.append(
            Row(
                episode=episode,
                advantage=one if one is not None else tuple(next(values) if on else 0.0 for on in mask),
                prompt=sequence.token_ids[:first],
                completion=sequence.token_ids[first:end],
                mask=mask,
                logprobs=sequence.logprobs[first:end],
                pictures=tuple(image for image in sequence.images if image.position < end),
            )
        )
    return rows


def collate(rows: Sequence[Row], *, size: int, pad_id: int) -> Batch:
    """Pad `rows` into tensors of `size` rows. Rows beyond those given are all padding, and nothing of them is trained.

    `completion_mask` is what attention sees, `tool_mask` what the loss sees. A padding row holds one prompt and one
    completion token that attention sees, as a row that attends to nothing is NaN in some attention kernels.

    Where any row has pictures, `pictures` lists those of each row: references, not pixels. They move with their row
    through every shuffle and split, and become features where the row meets the model (`training.pixels`).
    """
    if size < len(rows):
        raise ValueError(f"{len(rows)} rows do not fit a batch of {size}")
    filler = Row(episode=-1, advantage=0.0, prompt=(pad_id,), completion=(pad_id,), mask=(0,), logprobs=(0.0,))
    padded = [*rows, *[filler] * (size - len(rows))]
    width_P = max(len(row.prompt) for row in padded)
    width_C = max(len(row.completion) for row in padded)
    return {
        "prompt_ids": torch.tensor([_left(row.prompt, width_P, pad_id) for row in padded]),
        "prompt_mask": torch.tensor([_left((1,) * len(row.prompt), width_P, 0) for row in padded]),
        "completion_ids": torch.tensor([_right(row.completion, width_C, pad_id) for row in padded]),
        "completion_mask": torch.tensor([_right((1,) * len(row.completion), width_C, 0) for row in padded]),
        "tool_mask": torch.tensor([_right(row.mask, width_C, 0) for row in padded]),
        "sampling_per_token_logps": torch.tensor([_right(row.logprobs, width_C, 0.0) for row in padded]),
        "advantages": _advantages(padded, width_C),
        **({"pictures": [row.pictures for row in padded]} if any(row.pictures for row in rows) else {}),
    }


def _advantages(rows: Sequence[Row], width_C: int) -> Tensor:
    """Shape (B,), or (B, C) where any row has a value per token."""
    if not any(isinstance(row.advantage, tuple) for row in rows):
        return torch.tensor([row.advantage for row in rows], dtype=torch.float32)
    return torch.tensor([_right(row.advantages(), width_C, 0.0) for row in rows], dtype=torch.float32)


def bucketed(micro_batches: Sequence[Batch], window: int) -> list[Batch]:
    """The same rows with those of like length together: a micro-batch is as wide as its longest row.

    Rows move only between the `window` micro-batches of one optimiser step, whose gradients are summed.
    """
    found: list[Batch] = []
    for start in range(0, len(micro_batches), window):
        parts = micro_batches[start : start + window]
        size = len(parts[0]["prompt_ids"])
        whole = {name: _joined([part[name] for part in parts]) for name in parts[0]}
        order = (whole["prompt_mask"].sum(dim=1) + whole["completion_mask"].sum(dim=1)).argsort(stable=True)
        for chunk in order.split(size):
            found.append({name: _picked(value, chunk) for name, value in whole.items()})
    return found


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _picked(value: Any, rows: Tensor) -> Any:
    if isinstance(value, list):
        return [value[index] for index in rows.tolist()]  # pyright: ignore[reportUnknownVariableType]
    return value[rows] if _has_rows(value) else value


def _joined(values: Sequence[Any]) -> Any:
    if isinstance(values[0], list):
        return [row for value in values for row in value]
    return torch.cat(list(values)) if _has_rows(values[0]) else values[0]


def row_weights(rows: Sequence[Row], *, size: int, all_rows: int, all_episodes: int, averaging: Averaging) -> Tensor:
    """Weights_B that make a loss which averages over rows average over episodes. Float, shape (size,); 0 for padding.

    A forked episode counts once, its tokens alike, and padding and dropped episodes count nothing. `all_rows` (padding
    included) and `all_episodes` (trained ones) are totals over all ranks.

    Worked: episode 0 has rows of 6 and 2 trained tokens, episode 1 one row of 4, and a padding row makes 4 rows.
    "episodes" needs 1/2 x (6/8, 2/8, 1) where TRL gives each row 1/4, so the weights are 4/2 x (6/8, 2/8, 1).
    """
    weights = torch.zeros(size)
    if averaging == "tokens":
        weights[: len(rows)] = 1.0
        return weights
    tokens: dict[int, int] = {}
    for row in rows:
        tokens[row.episode] = tokens.get(row.episode, 0) + sum(row.mask)
    for index, row in enumerate(rows):
        share = sum(row.mask) / tokens[row.episode] if averaging == "episodes" else 1.0
        weights[index] = all_rows / all_episodes * share
    return weights


def size_for(rows: int, *, chunks: int) -> int:
    """The least multiple of `chunks` that holds `rows`, and at least one row per chunk: TRL's split drops a remainder.

    >>> size_for(9, chunks=4), size_for(0, chunks=4)
    (12, 4)
    """
    return max(1, -(-rows // chunks)) * chunks


def trimmed(batch: Batch) -> Batch:
    """The batch without columns that are padding in every row: a micro-batch need not be as wide as its whole step."""
    skip_P = int(batch["prompt_mask"].any(dim=0).int().argmax())
    keep_C = int(batch["completion_mask"].sum(dim=1).max())
    cut = dict(batch)
    for name in ("prompt_ids", "prompt_mask"):
        cut[name] = batch[name][:, skip_P:]
    for name in _COMPLETION:
        if batch.get(name) is not None:
            cut[name] = batch[name][:, :keep_C]
    if batch["advantages"].dim() == 2:
        cut["advantages"] = batch["advantages"][:, :keep_C]
    return cut


_COMPLETION = (
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "sampling_per_token_logps",
    "old_per_token_logps",
    "ref_per_token_logps",
)


def _left(values: Sequence[int], width: int, filler: int) -> list[int]:
    return [filler] * (width - len(values)) + list(values)


def _right(values: Sequence[Any], width: int, filler: Any) -> list[Any]:
    return list(values) + [filler] * (width - len(values))
