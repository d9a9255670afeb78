"""The same held-out tasks before and after training, side by side in a run's page, with the pictures that were seen."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from envs.log import blobs_beside
from envs.trajectory import CallRecord, Trajectory
from evals.index import Entry, latest_entries, read_episode, read_index
from evals.run_folder import RunFolder
from evals.sample import target_of
from evals.show import natural_key
from tools.content import BlobStore, Content, Image, Text
from tools.errors import ConfigError
from tools.record import record
from training.recipe import BASE, Evaluate, Recipe, trains
from training.report import best_model

EXAMPLES = {"better": 3, "worse": 2, "alike": 2}
"""How many tasks of each kind are shown, the first in the taskset's order."""
MOST_BYTES = 3_000_000
"""Of pictures, as they stand in the page; with the curves it stays below 5 MB."""
SIDE = 320
"""Longer pictures are made smaller for the page."""
ENLARGED = 192
"""Small ones are shown in whole multiples up to this."""
MOST_TEXT = 600
"""Characters of one text."""


@record
class Side:
    """One evaluation of the same tasks."""

    stage: str
    model: str
    folder: RunFolder
    scores: Mapping[str, Entry]
    """Task -> where its first attempt is."""
    metric: str


def before_and_after(recipe: Recipe, out: Path) -> str:
    """HTML with examples of what training changed; empty where no model was measured on the same tasks before."""
    sides = [_side(stage, out) for stage in comparable(recipe)]
    if len(sides) < 2:
        return ""
    before, after = sides[-2:]
    tasks = sorted((id for id in after.scores if all(id in side.scores for side in sides)), key=natural_key)
    kinds: dict[str, list[str]] = {"better": [], "worse": [], "alike": []}
    for id in tasks:
        gain = _score(after, id) - _score(before, id)
        kinds["better" if gain > 0 else "worse" if gain < 0 else "alike"].append(id)
    pictures = _Pictures()
    parts: list[str] = []
    for kind, ids in kinds.items():
        for id in ids[: EXAMPLES[kind]]:
            part = _task(id, kind, sides, pictures)
            if pictures.bytes > MOST_BYTES:
                break
            parts.append(part)
    counts = ", ".join(f"{len(ids)} {kind}" for kind, ids in kinds.items())
    shown = ", ".join(f"{most} {kind}" for kind, most in EXAMPLES.items())
    about = (
        f"{before.stage} ({before.model}) and {after.stage} ({after.model}) on the same {len(tasks)} tasks, by "
        f"{after.metric}: {counts}. Shown are the first of each kind, at most {shown}."
    )
    return f"<h2>Before and after</h2>\n<p>{html.escape(about)}</p>\n" + "\n".join(parts)


def comparable(recipe: Recipe) -> list[Evaluate]:
    """The evaluations of the model that the run was for and of those it came from, on the same tasks, oldest first.

    >>> from training.recipe import GRPO, SFT
    >>> stages = (Evaluate(name="a"), SFT(data="gold"), Evaluate(name="b", model="sft", n=9), GRPO(start="sft"))
    >>> both = Recipe(name="r", stages=(*stages, Evaluate(name="c", model="grpo"), Evaluate(name="d", tools=False)))
    >>> [stage.name for stage in comparable(both)]
    ['a', 'b', 'c']
    """
    model = best_model(recipe)
    line: list[str] = []
    while model is not None:
        line.insert(0, model)
        model = recipe.stage(model).start if model != BASE and trains(recipe.stage(model)) else None
    measured = [stage for stage in recipe.stages if isinstance(stage, Evaluate)]
    best: list[Evaluate] = []
    for last in (stage for stage in measured if line and stage.model == line[-1]):
        like = [stage for stage in measured if _measures_as(recipe, stage, last)]
        found = [next((stage for stage in like if stage.model == model), None) for model in line]
        alike = [stage for stage in found if stage is not None]
        best = alike if len(alike) > len(best) else best
    return best


def _measures_as(recipe: Recipe, one: Evaluate, other: Evaluate) -> bool:
    return one.tools == other.tools and recipe.arguments(one) == recipe.arguments(other)


def _side(stage: Evaluate, out: Path) -> Side:
    folder = RunFolder(out / stage.name)
    entries = latest_entries(read_index(folder))
    first = {id: entry for (id, repeat), entry in entries.items() if repeat == 0}
    metric = str(folder.read_results().get("metric", "reward"))
    return Side(stage=stage.name, model=stage.model, folder=folder, scores=first, metric=metric)


def _score(side: Side, id: str) -> float:
    """An episode that ended in an error of ours has no score, and counts as 0 here."""
    return side.scores[id].sample.scores.get(side.metric, 0.0)


def _task(id: str, kind: str, sides: Sequence[Side], pictures: _Pictures) -> str:
    played = [read_episode(side.folder, side.scores[id]) for side in sides]
    stores = [blobs_beside(side.folder.samples) for side in sides]
    asked = next(((one, store) for one, store in zip(played, stores, strict=True) if one.steps), None)
    prompt = "".join(_prompt(asked[0], asked[1], pictures)) if asked else ""
    target = html.escape(_clean(target_of(played[-1])))
    columns = [f"<div>{prompt}<p>right: {target}</p></div>"]
    for side, one, store in zip(sides, played, stores, strict=True):
        head = html.escape(f"{side.model}: {_score(side, id):.3g}")
        columns.append(f"<div><h4>{head}</h4>{''.join(_said(one, store, pictures))}</div>")
    return f'<h3>{html.escape(_clean(id))} <small>{kind}</small></h3><div class="sides">{"".join(columns)}</div>'


def _prompt(played: Trajectory, store: BlobStore, pictures: _Pictures) -> Iterator[str]:
    for message in played.steps[0].observation:
        if message.role != "system":
            yield from _parts(message.content, store, pictures)


def _said(played: Trajectory, store: BlobStore, pictures: _Pictures) -> Iterator[str]:
    """What the model did, turn by turn, and how it ended."""
    for step in played.steps:
        yield from _parts(step.action.content, store, pictures)
        for done in step.calls:
            yield _call(done)
            yield from _parts(done.result.content, store, pictures)
    yield f"<p><small>{played.stop}</small></p>"


def _call(done: CallRecord) -> str:
    arguments = done.call.arguments
    said = done.call.raw if arguments is None else json.dumps(arguments, ensure_ascii=False)
    failed = "" if done.outcome == "ok" else f" ({done.outcome})"
    return f"<pre>{html.escape(_clean(f'{done.call.name} {said}{failed}'))}</pre>"


def _parts(content: Sequence[Content], store: BlobStore, pictures: _Pictures) -> Iterator[str]:
    for part in content:
        if isinstance(part, Text):
            if part.text.strip():
                yield f'<p class="said">{html.escape(_clean(part.text))}</p>'
        else:
            yield pictures.shown(part, store)


class _Pictures:
    """Pictures as they stand in the page, and how much that is by now."""

    def __init__(self) -> None:
        self.bytes = 0

    def shown(self, image: Image, store: BlobStore) -> str:
        """An `img` that holds the picture itself."""
        try:
            data, kind, size = _small(store.get(image), image)
        except (ConfigError, OSError, ValueError) as error:
            return f'<p class="said">a picture that is not there: {html.escape(str(error))}</p>'
        times = max(1, ENLARGED // max(size))
        width, height = size[0] * times, size[1] * times
        encoded = base64.b64encode(data).decode("ascii")
        self.bytes += len(encoded)
        return f'<img class="shot" width="{width}" height="{height}" alt="" src="data:{kind};base64,{encoded}">'


def _small(data: bytes, image: Image) -> tuple[bytes, str, tuple[int, int]]:
    """The picture's bytes, or those of a smaller one, with media type and size."""
    from tools.image.intake import decoded, rgb

    if max(image.width, image.height) <= SIDE:
        return data, image.media_type, (image.width, image.height)
    picture = rgb(decoded(data))
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue(), "image/jpeg", picture.size


def _clean(text: str) -> str:
    """Text that can be written, and is not endless."""
    cut = text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} ... ({len(text)} characters)"
    return cut.encode("utf-8", "replace").decode("utf-8")
