"""The page of a run: its numbers, its episodes, and every token by who wrote it. Opens from disk."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from envs.log import blobs_beside
from envs.message import Message
from envs.trajectory import CallRecord, TokenSequence, Trajectory
from evals.compare import compare
from evals.index import Entry, latest_entries, read_episodes, read_index
from evals.result import category_table, percent, write_atomic
from evals.run_folder import RunFolder
from evals.sample import Sample, name_of_key, sample_of, target_of
from evals.show import metric_of, natural_key
from tools.content import BlobStore, Content, Image, Text
from tools.errors import ConfigError

Decode = Callable[[Sequence[int]], list[str]]
"""One text per token id."""

SCRIPTS = ("core.js", "episode.js", "overview.js", "start.js")
"""Parts of the page's one script, in order."""

MOST_TOKENS = 1_000_000
"""Tokens in the token views of one page; past it an episode's token view is left out, and says so."""
MOST_IMAGE_BYTES = 50_000_000
"""Encoded image bytes on one page."""


def write_report(
    folder: RunFolder, *, decode: Decode | None = None, episodes: int = 200, out: Path | None = None
) -> Path:
    """Write `report.html` into a run folder, or a page to `out`, and return its path.

    At most `episodes` are on the page, errors before others, and the page says when some are not. Without `decode` the
    token view shows ids. The log is never held whole.
    """
    return write_bundle([folder], out or folder.report, decodes=[decode], episodes=episodes)


def write_bundle(
    folders: Sequence[RunFolder], out: Path, *, decodes: Sequence[Decode | None], episodes: int = 200
) -> Path:
    """One page of one run, or of two side by side, that opens as a file; `episodes` of each run are on it."""
    runs: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    images: dict[str, str] = {}
    notes: list[str] = []
    for number, (folder, decode) in enumerate(zip(folders, decodes, strict=True)):
        chosen, total = choose(folder, episodes)
        builder = PageBuilder(metric_of(folder), blobs_beside(folder.samples), decode, images)
        shown = [{**builder.episode(trajectory), "run": number} for trajectory in read_episodes(folder, chosen)]
        kept += shown
        runs.append(run_facts(folder))
        left_out = note(len(shown), total)
        notes.append(f"{'AB'[number]}: {left_out}" if left_out and len(folders) > 1 else left_out)
    page = {**about_runs(runs), "comparison": compared(folders), "note": " ".join(filter(None, notes))}
    write_page(out, **page, episodes=kept, images=images)
    return out


def run_facts(folder: RunFolder) -> dict[str, Any]:
    """What the page says of a run as a whole."""
    config, results = folder.read_config() or {}, folder.read_results()
    identity = config.get("identity", {})
    model = _short(str(identity.get("model", folder.root.name)))
    return {
        "name": str(folder.root),
        "title": f"{identity.get('taskset', folder.root.name)} · {model}",
        "headline": headline(results),
        "metric": metric_of(folder),
        "facts": facts(identity, results),
        "categories": category_table(results),
    }


def about_runs(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a page that shows `runs` is called and measures."""
    return {"title": " / ".join(run["title"] for run in runs), "metric": runs[0]["metric"], "runs": list(runs)}


def compared(folders: Sequence[RunFolder]) -> dict[str, Any] | None:
    """Two runs question by question, in numbers, or why they cannot be compared; None for one run."""
    if len(folders) != 2:
        return None
    try:
        found = compare(folders[0].root, folders[1].root, resamples=0).to_json()
    except ConfigError as error:
        return {"why": f"The runs cannot be compared: {error}."}
    return {key: found[key] for key in ("n", "difference", "stderr", "p_value")}


def choose(folder: RunFolder, most: int) -> tuple[list[Entry], int]:
    """The episodes to show in the order of their names (of too many, errors first), and how many there are."""
    entries = list(latest_entries(read_index(folder)).values())

    def place(entry: Entry) -> Any:
        return natural_key(entry.sample.id), entry.sample.repeat

    ranked = sorted(entries, key=lambda entry: (entry.sample.scored, place(entry)))
    return sorted(ranked[:most], key=place), len(entries)


def headline(results: Mapping[str, Any]) -> str:
    """The score in one line."""
    if not results:
        return "unfinished: no results yet"
    low, high = (math.nan if bound is None else bound for bound in results["ci95"])
    score = math.nan if results["accuracy"] is None else results["accuracy"]
    interval = "" if math.isnan(low) else f" (95% {percent(low)} to {percent(high)})"
    return f"{results['metric']} {percent(score)}{interval}"


def facts(identity: Mapping[str, Any], results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was asked and what was counted, as label and value."""
    told = {key: value for key, value in {**results, **identity}.items() if key != "categories"}  # a table of their own
    found = [(f"{part}.{key}" if part else key, value) for part, key, value in _flat(told)]
    return [(label, _fact(value)) for label, value in found if value not in ("", None)]


def _fact(value: Any) -> str:
    """A value for people: four digits are enough."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value))  # pyright: ignore[reportUnknownArgumentType]
    return value if isinstance(value, str) else json.dumps(value)


def note(shown: int, total: int) -> str:
    """What the page leaves out of the run; empty where it holds all of it."""
    if shown == total:
        return ""
    return f"{shown} of {total} episodes are on this page, errors first; all are in samples.jsonl."


def write_page(path: Path, **page: Any) -> None:
    """Write the page from its template; see `page_text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page_text(page))


def page_text(page: Mapping[str, Any], *, live: bool = False) -> str:
    """The page as HTML. Its data is JSON in which no markup can begin. A `live` page may ask its own server."""
    template = files("evals") / "viewer"
    data = json.dumps({**page, "live": live}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(page["title"]),
        "style": (template / "page.css").read_text(encoding="utf-8"),
        "script": "".join((template / name).read_text(encoding="utf-8") for name in SCRIPTS),
        "data": data.replace("<", "\\u003c"),
        "connect": "; connect-src 'self'" if live else "",
    }
    frame = (template / "page.html").read_text(encoding="utf-8")
    filled = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], frame)
    return filled.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be written


def header(sample: Sample, metric: str) -> dict[str, Any]:
    """What a list shows of one episode."""
    return {
        "id": sample.id,
        "repeat": sample.repeat,
        "name": name_of_key(*sample.key),
        "score": sample.scores.get(metric) if sample.scored else None,
        "scores": dict(sample.scores),
        "stop": sample.stop,
        "truncated": sample.truncated,
        "failure": sample.error,
        "category": sample.category,
        "target": sample.target,
        "answer": sample.answer,
        "extracted": sample.extracted,
        "turns": sample.turns,
        "calls": sample.calls,
        "callErrors": sample.call_errors,
        "tools": dict(sample.tools),
        "tokens": sample.tokens,
        "promptTokens": sample.prompt_tokens,
        "cost": sample.cost,
        "seconds": sample.seconds,
        "modelSeconds": sample.model_seconds,
        "toolSeconds": sample.tool_seconds,
    }


class PageBuilder:
    """Turns trajectories into the page's data, and keeps what they share: images, and how much is on the page."""

    def __init__(
        self, metric: str, blobs: BlobStore, decode: Decode | None = None, images: dict[str, str] | None = None
    ) -> None:
        self.metric = metric
        self.images: dict[str, str] = {} if images is None else images
        self._blobs = blobs
        self._decode = decode
        self._tokens = 0
        self._image_bytes = 0

    def episode(self, trajectory: Trajectory) -> dict[str, Any]:
        """All the page shows of one episode."""
        sequences, why_not = self._sequences(trajectory)
        return {
            **header(sample_of(trajectory), self.metric),
            "reward": trajectory.reward,
            "advantage": _number(trajectory.info.get("advantage")),
            "error": trajectory.error,
            "target": target_of(trajectory),
            "judge": _judge(trajectory.info.get("judge")),
            "seed": None if trajectory.seed is None else str(trajectory.seed),  # more digits than a browser's numbers
            "messages": self._messages(trajectory),
            "turnSeconds": [dict(step.seconds) for step in trajectory.steps],
            "sequences": sequences,
            "noTokens": why_not,
        }

    def _messages(self, trajectory: Trajectory) -> list[dict[str, Any]]:
        """What was said, each result beside the call it answers."""
        shown: list[dict[str, Any]] = []
        answered: set[str] = set()
        for step in trajectory.steps:
            shown += [self._message(m) for m in step.observation if m.tool_call_id not in answered]
            records = {record.call.id: record for record in step.calls}
            shown.append(self._message(step.action, records))
            answered |= records.keys()
        return shown + [self._message(m) for m in trajectory.final if m.tool_call_id not in answered]

    def _message(self, message: Message, records: Mapping[str, CallRecord] | None = None) -> dict[str, Any]:
        calls: list[dict[str, Any]] = []
        for call in message.tool_calls:
            record = (records or {}).get(call.id)
            calls.append(
                {
                    "name": call.name,
                    "shown": _call_text(call.arguments, call.raw),
                    "outcome": record.outcome if record else None,
                    "seconds": record.seconds if record else None,
                    "result": self._parts(record.result.content) if record else None,
                }
            )
        return {
            "role": message.role,
            "reasoning": message.reasoning,
            "parts": self._parts(message.content),
            "calls": calls,
        }

    def _parts(self, content: Sequence[Content]) -> list[dict[str, Any]]:
        return [{"text": part.text} if isinstance(part, Text) else self._image(part) for part in content]

    def _image(self, image: Image) -> dict[str, Any]:
        if image.sha256 not in self.images:
            try:
                data = self._blobs.get(image)
            except ConfigError:  # the page says that it is not there
                data = b""
            if data and self._image_bytes + len(data) <= MOST_IMAGE_BYTES:
                self._image_bytes += len(data)
                encoded = base64.b64encode(data).decode("ascii")
                self.images[image.sha256] = f"data:{image.media_type};base64,{encoded}"
        return {"image": image.sha256, "width": image.width, "height": image.height}

    def _sequences(self, trajectory: Trajectory) -> tuple[list[dict[str, Any]] | None, str]:
        """The token view's rows, or None and why there are none."""
        if not trajectory.steps or any(step.tokens is None for step in trajectory.steps):
            return None, "No token ids were recorded: this policy returns none."
        try:
            rows = trajectory.sequences()
        except ValueError as error:
            return None, f"The token record cannot be read: {error}"
        size = sum(len(row.token_ids) for row in rows)
        if self._tokens + size > MOST_TOKENS:
            return None, f"Left out to keep the page small: {size} tokens. They are in samples.jsonl."
        self._tokens += size
        return [self._sequence(row) for row in rows], ""

    def _sequence(self, row: TokenSequence) -> dict[str, Any]:
        texts = self._decode(row.token_ids) if self._decode else None
        return {
            "ids": list(row.token_ids),
            "texts": texts if texts is not None and len(texts) == len(row.token_ids) else None,
            "runs": runs_of(row),
            "logprobs": [
                round(logprob, 4) if math.isfinite(logprob) else str(logprob)
                for logprob, mask in zip(row.logprobs, row.loss_mask, strict=True)
                if mask
            ],
        }


def runs_of(row: TokenSequence) -> list[list[Any]]:
    """Runs of tokens alike: [how many, first letter of who wrote them, 1 where the loss sees them].

    >>> runs_of(TokenSequence(token_ids=(5, 6), loss_mask=(0, 1), sources=("prompt", "model"), logprobs=(0.0, -1.0)))
    [[1, 'p', 0], [1, 'm', 1]]
    """
    runs: list[list[Any]] = []
    for source, mask in zip(row.sources, row.loss_mask, strict=True):
        if runs and runs[-1][1:] == [source[0], mask]:
            runs[-1][0] += 1
        else:
            runs.append([1, source[0], mask])
    return runs


def _call_text(arguments: Mapping[str, Any] | None, raw: str) -> str:
    """A call as it reads best: a lone text argument as it is, else a line each; as the model wrote it if unreadable."""
    if arguments is None:
        return raw
    shown = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in arguments.items()
    }
    return next(iter(shown.values())) if len(shown) == 1 else "\n".join(f"{key}: {text}" for key, text in shown.items())


def _judge(judge: Any) -> str | None:
    """What a judge said, for people."""
    if not isinstance(judge, Mapping):
        return None
    said: Mapping[str, Any] = judge  # pyright: ignore[reportUnknownVariableType]
    return f"{said.get('verdict', 'no verdict')} ({said.get('model', '?')})\n{said.get('raw', said.get('error', ''))}"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _short(model: str) -> str:
    """The end of a long path.

    >>> _short("/data/runs/demo/grpo/model"), _short("org/model")
    ('…/demo/grpo/model', 'org/model')
    """
    parts = Path(model).parts
    return model if len(parts) <= 3 else f"…/{'/'.join(parts[-3:])}"


def _flat(values: Mapping[str, Any], part: str = "") -> list[tuple[str, str, Any]]:
    flat: list[tuple[str, str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{part}.{key}" if part else key)  # pyright: ignore[reportUnknownArgumentType]
        else:
            flat.append((part, key, value))
    return flat
