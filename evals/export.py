"""A run in other people's formats: SFT messages, ATIF, a parquet file that HF datasets read, CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.chat_format import native
from agent.cli import our_version
from envs.log import blobs_beside, images_of
from envs.message import Message
from envs.trajectory import CallRecord, Step, Trajectory
from evals.index import Entry, latest_entries, read_episodes, read_index
from evals.result import plain, write_atomic
from evals.run_folder import RunFolder
from evals.sample import Sample, name_of_key, prompt_counts, sample_of
from evals.show import metric_of, natural_key
from tools.content import BlobStore, Content, Text
from tools.errors import ConfigError

JSON = dict[str, Any]
_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp"}


def export(folder: RunFolder, to: str, out: Path, *, least: float | None = None) -> int:
    """Write the run's scored episodes to `out`; returns how many.

    `least` leaves out episodes whose headline score is lower; None keeps all, but for `sft` those that scored 1.
    Raises `ConfigError` for an unknown format, an `out` of the wrong kind, and when nothing is left to write.
    """
    if to not in FORMATS:
        raise ConfigError(f"there is no format {to!r}", hint=f"one of {', '.join(FORMATS)}")
    if out.exists() and out.is_dir() != (to == "atif"):
        raise ConfigError(f"{out} is a {'folder' if out.is_dir() else 'file'}", hint="give another --out")
    least = 1.0 if least is None and to == "sft" else least
    metric = metric_of(folder)
    entries = [
        entry
        for entry in latest_entries(read_index(folder)).values()
        if least is None or (entry.sample.scored and entry.sample.scores.get(metric, 0.0) >= least)
    ]
    if not entries:
        raise ConfigError(f"{folder.root} has no episode to write", hint="--min-score keeps lower scores as well")
    entries.sort(key=lambda entry: (natural_key(entry.sample.id), entry.sample.repeat))
    FORMATS[to](folder, entries, out)
    return len(entries)


def sft_row(trajectory: Trajectory, blobs: BlobStore) -> JSON:
    """One conversation as TRL's SFTTrainer reads it: `messages` and `tools` in the form of the chat API.

    An image stands in its message as a data URI. Thinking is kept in `reasoning_content`.
    """
    conversation = native(trajectory.messages, trajectory.tools, blobs, "reasoning_content")
    row: JSON = {"id": name_of_key(trajectory.task.id, trajectory.sample), "messages": conversation.messages}
    return {**row, "tools": list(conversation.tools)} if conversation.tools else row


def atif(trajectory: Trajectory, *, session: str, model: str, blobs: str = "blobs") -> JSON:
    """One episode as an ATIF v1.8 document (Harbor's Agent Trajectory Interchange Format, RFC 0001).

    Tool results are the observation of the step that called; token ids and log-probs go along where they were recorded.
    Images are paths below `blobs`.
    """
    steps: list[JSON] = []
    for step, prompt in zip(trajectory.steps, prompt_counts(trajectory), strict=True):
        steps += [_said(message, blobs) for message in step.observation if message.role != "tool"]
        steps.append(_agent_step(step, prompt, blobs))
    rest = trajectory.final or (() if steps else trajectory.task.prompt)  # a document has a step
    steps += [_said(message, blobs) for message in rest if message.role != "tool"]
    sample = sample_of(trajectory)
    return {
        "schema_version": "ATIF-v1.8",
        "session_id": session,
        "trajectory_id": name_of_key(trajectory.task.id, trajectory.sample),
        "agent": {
            "name": "toolweave",
            "version": our_version(),
            "model_name": model,
            "tool_definitions": [
                {
                    "type": "function",
                    "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
                }
                for t in trajectory.tools
            ],
        },
        "steps": [{"step_id": number, **step} for number, step in enumerate(steps, start=1)],
        "final_metrics": {
            "total_prompt_tokens": sample.prompt_tokens,
            "total_completion_tokens": sample.tokens,
            **({"total_cost_usd": sample.cost} if sample.cost is not None else {}),
            "total_steps": len(steps),
            "extra": {"scores": dict(sample.scores), "stop": sample.stop, "seed": trajectory.seed},
        },
        "extra": {"task": trajectory.task.id, "target": trajectory.task.answer, "error": trajectory.error},
    }


def _agent_step(step: Step, prompt: int, blobs: str) -> JSON:
    found = {**_said(step.action, blobs), "source": "agent", "llm_call_count": 1}
    if step.action.reasoning:
        found["reasoning_content"] = step.action.reasoning
    if step.action.tool_calls:
        found["tool_calls"] = [
            {
                "tool_call_id": call.id,
                "function_name": call.name,
                "arguments": dict(call.arguments or {}),
                **({"extra": {"raw": call.raw, "error": call.error}} if call.error else {}),
            }
            for call in step.action.tool_calls
        ]
    known = {call.id for call in step.action.tool_calls}
    if step.calls:
        found["observation"] = {"results": [_result(record, known, blobs) for record in step.calls]}
    found["metrics"] = _metrics(step, prompt)
    return found


def _metrics(step: Step, prompt: int) -> JSON:
    tokens = step.tokens
    if tokens is None:
        counted = {"prompt_tokens": step.usage.get("prompt"), "completion_tokens": step.usage.get("completion")}
        return {key: value for key, value in counted.items() if value is not None}
    ids = list(tokens.completion)
    found: JSON = {"prompt_tokens": prompt, "completion_tokens": len(ids), "completion_token_ids": ids}
    if all(map(math.isfinite, tokens.logprobs)):  # JSON has no other number
        found["logprobs"] = list(tokens.logprobs)
    return found


def _said(message: Message, blobs: str) -> JSON:
    source = {"system": "system", "assistant": "agent"}.get(message.role, "user")
    return {"source": source, "message": _content(message.content, blobs)}


def _result(record: CallRecord, known: Set[str], blobs: str) -> JSON:
    """The result of a call; one that the environment made for itself answers no call of the action's."""
    source = {"source_call_id": record.call.id} if record.call.id in known else {}
    extra = {"outcome": record.outcome, "seconds": record.seconds, **({} if source else {"tool": record.call.name})}
    return {**source, "content": _content(record.result.content, blobs), "extra": extra}


def _content(parts: tuple[Content, ...], blobs: str) -> str | list[JSON]:
    if all(isinstance(part, Text) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, Text))
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {
            "type": "image",
            "source": {"media_type": part.media_type, "path": f"{blobs}/{part.sha256}{_SUFFIX[part.media_type]}"},
        }
        for part in parts
    ]


def flat(sample: Sample) -> JSON:
    """One row of a table: every number of the sample, and each score in a column of its own.

    Calls by tool are one column of JSON: a model may call what does not exist, and must not make columns.
    """
    row = {key: value for key, value in asdict(sample).items() if not isinstance(value, Mapping)}
    scores = {f"score_{name}": value for name, value in sample.scores.items()}
    return {**row, **scores, "tools": json.dumps(dict(sample.tools))}


def _write_sft(folder: RunFolder, entries: list[Entry], out: Path) -> None:
    _write_lines(out, (sft_row(t, blobs_beside(folder.samples)) for t in read_episodes(folder, entries)))


def _write_atif(folder: RunFolder, entries: list[Entry], out: Path) -> None:
    """A folder with one document an episode, and the images they show."""
    out.mkdir(parents=True, exist_ok=True)
    identity = (folder.read_config() or {}).get("identity", {})
    source, target = blobs_beside(folder.samples), BlobStore(out / "blobs")
    for number, trajectory in enumerate(read_episodes(folder, entries)):
        for image in images_of(trajectory):
            if image in source:
                target.put(source.get(image))
        document = atif(trajectory, session=folder.root.name, model=str(identity.get("model", "")))
        write_atomic(out / f"{number:06d}.json", json.dumps(plain(document)))


def _write_csv(folder: RunFolder, entries: list[Entry], out: Path) -> None:
    rows = [flat(entry.sample) for entry in entries]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula is quoted: a model wrote it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _write_hf(folder: RunFolder, entries: list[Entry], out: Path) -> None:
    """One parquet file: the table of `flat`, the conversation as JSON, the images where datasets look for them."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("a parquet file needs pyarrow", hint="pip install pyarrow") from error
    pa: Any = pyarrow  # neither has types
    files: Any = parquet
    blobs = blobs_beside(folder.samples)
    flats = [flat(entry.sample) for entry in entries]
    columns = list(dict.fromkeys(key for row in flats for key in row))
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({key: _column(pa, [row.get(key) for row in flats]) for key in columns})
    conversations: list[str] = []
    images: list[list[JSON]] = []
    for trajectory in read_episodes(folder, entries):
        conversations.append(json.dumps(sft_row(trajectory, blobs)["messages"]))
        shown = [part for part in images_of(trajectory) if part in blobs]
        images.append([{"bytes": blobs.get(part), "path": part.sha256 + _SUFFIX[part.media_type]} for part in shown])
    table = table.append_column("messages", pa.array(conversations, pa.string()))
    table = table.append_column("images", pa.array(images, pa.list_(image)))
    features: dict[str, JSON] = {
        field.name: _feature(pa, field.type) for field in table.schema if field.name != "images"
    }
    features["images"] = {"feature": {"_type": "Image"}, "_type": "List"}
    about = json.dumps({"info": {"features": features}})
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(table.replace_schema_metadata({"huggingface": about}), out)


def _column(pa: Any, values: list[Any]) -> Any:
    """Text stays text where every value is missing, and half a surrogate pair does not stop the file."""
    if all(value is None or isinstance(value, str) for value in values):
        cleaned = [None if value is None else value.encode("utf-8", "replace").decode() for value in values]
        return pa.array(cleaned, pa.string())
    return pa.array(values)


def _feature(pa: Any, kind: Any) -> JSON:
    name = {"double": "float64"}.get(str(kind), str(kind))
    return {"dtype": name, "_type": "Value"}


def _write_lines(out: Path, rows: Iterator[JSON]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.part")
    with partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    partial.replace(out)


FORMATS: dict[str, Callable[[RunFolder, list[Entry], Path], None]] = {
    "sft": _write_sft,
    "atif": _write_atif,
    "hf": _write_hf,
    "csv": _write_csv,
}
DEFAULT_NAMES = {"sft": "sft.jsonl", "atif": "atif", "hf": "episodes.parquet", "csv": "samples.csv"}
