"""The check every episode passes before it is trained on: the loss sees what was sampled, all of it, and nothing else.

It compares two records that were made apart: the steps, as the episode ran, and the training rows built from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from envs.trajectory import PlacedImage, TokenSequence, Trajectory
from tools.record import record
from training.batch import Row


@record
class Sight:
    """What a model makes of images, as far as the audit needs it."""

    placeholder: int
    """The id that stands for one image feature."""
    block: Callable[[tuple[int, int]], Sequence[int]]
    """Size shown, (width, height) in pixels -> what stands in a row for the image, from its first placeholder to its
    last: as many of them as it has features, and whatever a family writes between."""
    unreadable: Callable[[PlacedImage], str | None]
    """Why an image cannot be seen, or None."""


def problem_with_episode(
    trajectory: Trajectory,
    sequences: Sequence[TokenSequence],
    *,
    vocab_size: int,
    max_context: int | None = None,
    sight: Sight | None = None,
) -> str | None:
    """Why these rows must not be trained on, in words for a log; None when they may.

    `max_context` is the longest row the model has positions for. Without `sight`, no image may be in a row.
    """
    for index, row in enumerate(sequences):
        problem = _problem_with_row(row, vocab_size, max_context) or problem_with_images(row, sight)
        if problem is not None:
            return f"row {index}: {problem}"
    said = _said(trajectory)
    trained = [token for row in sequences for token, on in zip(row.token_ids, row.loss_mask, strict=True) if on]
    if said != trained:
        return f"{len(said)} tokens were sampled, {len(trained)} are trained on, and they are not the same"
    return None


def _said(trajectory: Trajectory) -> list[int]:
    return [token for step in trajectory.steps if step.tokens for token in step.tokens.sampled_ids]


def _problem_with_row(row: TokenSequence, vocab_size: int, max_context: int | None) -> str | None:
    lengths = (len(row.token_ids), len(row.loss_mask), len(row.sources), len(row.logprobs))
    if len(set(lengths)) != 1:
        return f"ids, mask, sources and log-probs have lengths {lengths}"
    if max_context is not None and lengths[0] > max_context:
        return f"{lengths[0]} tokens, and the model has positions for {max_context}"
    for position, (token, on, source, logprob) in enumerate(
        zip(row.token_ids, row.loss_mask, row.sources, row.logprobs, strict=True)
    ):
        if not 0 <= token < vocab_size:
            return f"token {token} at {position} is outside the vocabulary of {vocab_size}"
        if on not in (0, 1):
            return f"the mask at {position} is {on}"
        # A prompt rendered again after a fork quotes the model: a 0 may stand on `model`, a 1 on nothing else.
        if on and source != "model":
            return f"the token at {position} is trained on, and {source} wrote it"
        if not math.isfinite(logprob) or logprob > 1e-3:
            return f"the log-prob at {position} is {logprob}"
        if not on and logprob:
            return f"the token at {position} is not trained on, and has a log-prob"
    return None


def problem_with_images(row: TokenSequence, sight: Sight | None) -> str | None:
    """Every placeholder belongs to an image, every image has as many as it has features, and its bytes are there."""
    if sight is None:
        return f"it holds {len(row.images)} images, and these rows carry token ids only" if row.images else None
    expected: set[int] = set()
    for number, image in enumerate(row.images):
        why = sight.unreadable(image)
        if why is not None:
            return f"image {number} ({image.sha256[:12]}) cannot be read: {why}"
        block = tuple(sight.block(image.shown_size))
        places = range(image.position, image.position + len(block))
        written = row.token_ids[places.start : places.stop]
        count, found = block.count(sight.placeholder), written.count(sight.placeholder)
        if found != count:
            return f"image {number} has {count} features and {found} placeholders at {image.position}"
        if written != block:
            return f"image {number} is not written as one of {image.shown_size} at {image.position}"
        if expected & set(places):
            return f"image {number} lies over the one before it"
        expected |= set(places)
    stray = [at for at, token in enumerate(row.token_ids) if token == sight.placeholder and at not in expected]
    if stray:
        return (
            f"{len(stray)} image placeholders belong to no image; {row.sources[stray[0]]} wrote the one at {stray[0]}"
        )
    return None


def problem_with_rows(rows: Sequence[Row], trajectory: Trajectory) -> str | None:
    """Why the rows of one episode are not what its steps sampled, in words for a log; None when they are."""
    for index, row in enumerate(rows):
        lengths = (len(row.completion), len(row.mask), len(row.logprobs), len(row.advantages()))
        if len(set(lengths)) != 1:
            return f"row {index}: ids, mask, log-probs and advantages have lengths {lengths}"
    if [token for row in rows for token in row.trained_ids] != _said(trajectory):
        return "its rows train on other tokens than were sampled"
    return None


def problem_with_batch(batch: Mapping[str, Any], trained: Sequence[Sequence[int]]) -> str | None:
    """Why a collated batch is not what its rows were; None when it is.

    `trained` holds the sampled ids of each row, in row order. Whatever the padding and cutting did, the loss must see
    exactly these ids. The fault would be ours, so the caller stops the run.
    """
    mask = (batch["tool_mask"] * batch["completion_mask"]).bool()
    for index, ids in enumerate(trained):
        if batch["completion_ids"][index][mask[index]].tolist() != list(ids):
            return f"row {index} trains on other tokens than were sampled"
    if mask[len(trained) :].any():
        return "a padding row is trained on"
    return None
