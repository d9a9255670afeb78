"""A data file of your own as a taskset: which column is what is said on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from envs.row_pictures import images_of
from envs.rows import Row
from envs.scoring import anls, exact_match, math_equal, relaxed_equal, same_number, token_f1
from envs.task import Task, Taskset
from evals.benchmarks.adapter import Benchmark, Reading, Record, Score, Tools, category_of_row, load, row_id
from evals.benchmarks.images import letter_of
from tools.cache import image_store
from tools.errors import ConfigError

Metric: TypeAlias = Literal["exact", "f1", "anls", "math", "number", "relaxed"]


def _best(same: Any) -> Score:
    """The best over the right answers."""
    return lambda given, task: max(float(same(given, right)) for right in _list(task.answer))


def _number(given: str, right: str) -> bool:
    return same_number(given, right)


_METRICS: Mapping[Metric, Score] = {
    "exact": _best(exact_match),
    "f1": _best(token_f1),
    "anls": _best(anls),
    "math": _best(math_equal),
    "number": _best(_number),
    "relaxed": _best(relaxed_equal),
}


def rows(
    data: str,
    question: str = "question",
    answer: str = "answer",
    id: str = "id",
    image: str = "",
    choices: str = "",
    category: str = "",
    metric: Metric = "exact",
    split: str = "",
    tools: Tools = "none",
    n: int | None = None,
) -> Taskset:
    """A parquet, jsonl, json, csv or tsv file of your own, each row a question.

    Args:
        data: The file or folder, or hf:owner/name.
        question: The column of the question.
        answer: The column of the right answer: text, a list of right texts, a letter or an option where there are
            choices. Rows as veRL writes them (`prompt`, `reward_model`) need neither.
        id: The column of a unique id; without one, rows are numbered.
        image: The column of one or more pictures.
        choices: The column with the list of options.
        category: A column; the score of each of its values is shown beside the whole.
        metric: `exact` (SQuAD's normal form), `f1`, `anls`, `math`, `number`, or `relaxed` (5%).
        split: Of a folder, the files that are named so.
        tools: `python` gives the model an interpreter.
        n: At most so many rows.
    """
    columns = {
        "question": question,
        "answer": answer,
        "id": id,
        "image": image,
        "choices": choices,
        "category": category,
    }

    def read(row: Row, reading: Reading) -> Record:
        return _record(row, reading, columns)

    def score(given: str, task: Task) -> float:
        return float(given == task.answer) if task.info["options"] else _METRICS[metric](given, task)

    spec = Benchmark(
        name=re.sub(r"@.*$", "", Path(data).name).partition(".")[0] or "rows",
        about="rows of your own",
        licence="yours",
        source="yours",
        split=split,
        scores={metric: score},
        read=read,
        kind="number" if metric in ("number", "relaxed") else "text",
        ask="box" if metric == "math" else "line",
    )
    return load(spec, data, split, tools, n, False, image_store())


def _record(row: Row, reading: Reading, columns: Mapping[str, str]) -> Record:
    if not row.has(columns["question"]) and row.has("prompt") and row.has("reward_model"):
        return _verl(row, reading, columns)
    for part, name in columns.items():
        if name and part != "id" and not row.has(name):
            raise _unmapped(row, part, name)
    given = row.need(columns["answer"])
    listed = cast(list[Any], given) if isinstance(given, list) else None
    answer: Any = row.text(columns["answer"]) if listed is None else [str(one) for one in listed]
    choices = tuple(map(str, row.items(columns["choices"]))) if columns["choices"] else ()
    if choices:
        stated = _list(answer)[0]
        place = choices.index(stated) if stated in choices else None
        answer = letter_of(row, stated, len(choices)) if place is None else chr(ord("A") + place)
    elif not _list(answer) or not all(one.strip() for one in _list(answer)):
        raise row.empty(columns["answer"])
    return Record(
        id=row_id(row, "row", columns["id"]),
        question=row.text(columns["question"]),
        answer=answer,
        choices=choices,
        images=images_of(row, columns["image"], store=reading.store) if columns["image"] else (),
        info={"category": str(row.need(columns["category"]))} if columns["category"] else {},
    )


def _unmapped(row: Row, part: str, name: str) -> ConfigError:
    """The error for a column that is missing or empty, and how to name another."""
    try:
        row.text(name)
    except ConfigError as error:
        return ConfigError(str(error), hint="; ".join(filter(None, (error.hint, f"-a {part}=COLUMN names another"))))
    return row.empty(name)


def _verl(row: Row, reading: Reading, columns: Mapping[str, str]) -> Record:
    """A training row of veRL: `prompt` as messages, the target in `reward_model.ground_truth`."""
    truth = row.need("reward_model")["ground_truth"]
    target = truth.get("target", truth) if isinstance(truth, dict) else truth  # pyright: ignore
    answers = [str(one) for one in cast(list[Any], target)] if isinstance(target, list) else [str(target)]  # pyright: ignore
    extra: Mapping[str, Any] = row.get("extra_info") or {}
    place = f"{extra.get('split', 'row')}-{row.where.rpartition(' ')[2]}"
    return Record(
        id=str(row.get(columns["id"])) if row.has(columns["id"]) else place,
        question="\n\n".join(message["content"] for message in row.items("prompt")),
        answer=answers,
        images=images_of(row, "images", store=reading.store) if row.has("images") else (),
        info=category_of_row(row, "data_source"),
    )


def _list(answer: Any) -> list[str]:
    return cast(list[str], answer) if isinstance(answer, list) else [answer]
