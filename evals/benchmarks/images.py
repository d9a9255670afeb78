"""Questions about pictures."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from envs.row_pictures import images_of
from envs.rows import Row
from envs.scoring import (
    exact_match,
    haversine_km,
    parse_number,
    relaxed_equal,
    routes,
    same_number,
)
from envs.task import Task
from evals.benchmarks.adapter import Benchmark, Reading, Record, category_of_row, row_id
from tools.errors import ConfigError


def _letter(given: str, task: Task) -> float:
    return float(given == task.answer)


def letter_of(row: Row, answer: str, count: int) -> str:
    """A gold letter. Raises `ConfigError` for one that is no option's."""
    letter = answer.strip().strip("().").upper()
    if len(letter) != 1 or not 0 <= ord(letter) - ord("A") < count:
        raise ConfigError(f"{row.where}: the answer {answer!r} is none of the {count} options")
    return letter


def _vstar(row: Row, reading: Reading) -> Record:
    """The options stand in the text: `...?\\n(A) red\\n(B) blue\\nAnswer with ...`."""
    question, *rest = re.split(r"\s*\(([A-Z])\)\s*", row.text("text"))
    choices = tuple(re.sub(r"\s*Answer with .*$", "", text, flags=re.DOTALL).strip() for text in rest[1::2])
    if not choices:
        raise ConfigError(f"{row.where}: the column text holds no options (A) (B) ...")
    return Record(
        id=row_id(row, "vstar", "question_id"),
        question=question.strip(),
        choices=choices,
        answer=letter_of(row, row.text("label"), len(choices)),
        images=images_of(row, "image", store=reading.store),
        info={"category": row.text("category")},
    )


def _hrbench(row: Row, reading: Reading) -> Record:
    """Every question comes four times, its options rotated; a TSV may name the row that holds the same picture."""
    index, picture = row_id(row, "hrbench", "index"), row.need("image")
    if isinstance(picture, str) and picture.strip() in reading.seen:
        images = reading.seen[picture.strip()]
    else:
        images = reading.seen[index] = images_of(row, "image", store=reading.store)
    choices = tuple(row.text(letter) for letter in "ABCD" if row.has(letter))
    return Record(
        id=index,
        question=row.text("question"),
        choices=choices,
        answer=letter_of(row, row.text("answer"), len(choices)),
        images=images,
        info={**category_of_row(row, "category"), "cycle": str(row.get("cycle_category"))},
    )


def _chartqa(row: Row, reading: Reading) -> Record:
    """lmms-lab's columns, or HuggingFaceM4's `query`, `label` and `human_or_machine`."""
    answer = row.need("answer", "label")
    answers = [str(one) for one in cast(list[Any], answer)] if isinstance(answer, list) else [str(answer)]
    return Record(
        id=row_id(row, "chartqa", "id"),
        question=row.text("question", "query"),
        answer=answers,
        images=images_of(row, "image", store=reading.store),
        info=category_of_row(row, "type", "human_or_machine"),
    )


def _relaxed(given: str, task: Task) -> float:
    return float(any(relaxed_equal(given, right) for right in task.answer))


def _mathvista(row: Row, reading: Reading) -> Record:
    """`decoded_image` is the picture, `image` its path; a choice's answer is the text of the option."""
    column = "decoded_image" if row.has("decoded_image") else "image"
    answer = str(row.need("answer") or "").strip()
    if not answer:
        raise ConfigError(f"{row.where}: no answer; the test split has none, testmini has")
    choices = tuple(str(one).strip() for one in row.items("choices")) if row.has("choices") else ()
    unit = f" (in {row.get('unit')})" if row.has("unit") else ""
    if choices:
        if answer not in choices:
            raise ConfigError(f"{row.where}: the answer {answer!r} is none of the options {list(choices)}")
        answer = chr(ord("A") + choices.index(answer))
    numeric = row.get("answer_type") in ("integer", "float")
    return Record(
        id=row_id(row, "mathvista", "pid"),
        question=f"{row.text('question')}{unit}",
        answer=answer,
        choices=choices,
        kind="number" if numeric else "text",
        images=images_of(row, column, store=reading.store),
        info={**category_of_row(row, "question_type"), "precision": row.get("precision"), "numeric": numeric},
    )


def _mathvista_score(given: str, task: Task) -> float:
    """Equal as text; as numbers, after rounding to the question's precision."""
    if task.info["options"]:
        return _letter(given, task)
    if not task.info["numeric"]:
        return exact_match(given, task.answer)
    value, right = parse_number(given), parse_number(task.answer)
    if value is None or right is None:
        return float(right is not None and same_number(given, task.answer))
    places = int(float(task.info["precision"] or 0))
    return float(round(value, places) == round(right, places))


def _reasonmap(row: Row, reading: Reading) -> Record:
    """ReasonMap asks for a route and ships the network; ReasonMap-Plus asks for a number, yes or no, or a stop."""
    images = images_of(row, "figure", store=reading.store)
    part = category_of_row(row, "difficulty_city", "type")
    if row.has("question"):
        return Record(
            id=row_id(row, "map", "id"),
            question=row.text("question"),
            answer=row.text("answer"),
            images=images,
            info=part,
        )
    network = row.need("json")
    lines = routes.read_lines(json.loads(network) if isinstance(network, str) else network)
    start, end = row.text("station_1"), row.text("station_2")
    best = routes.shortest(lines, start, end)
    if best is None:
        raise ConfigError(f"{row.where}: the network in the column json joins no {start} with {end}")
    question = row.text("question_short", "question_long")
    return Record(
        id=row_id(row, "map", "id"),
        question=question,
        answer=[start, end],
        gold=routes.write(best),
        whole=True,
        ask=_ROUTE,
        images=images,
        info={**part, "lines": {name: list(stops) for name, stops in lines.items()}},
    )


def _reasonmap_score(given: str, task: Task) -> float:
    if "lines" not in task.info:
        return exact_match(given, task.answer)
    start, end = task.answer
    return float(routes.is_right(given, task.info["lines"], start, end))


def _geovista(row: Row, reading: Reading) -> Record:
    """`metadata` is JSON with the place; `preview` is the picture, or `raw_image_path` where the files are there."""
    said = row.need("metadata")
    place: dict[str, Any] = json.loads(said) if isinstance(said, str) else said
    missing = [key for key in ("city", "country", "lat", "lng") if place.get(key) in (None, "")]
    if missing:
        raise ConfigError(
            f"{row.where}: the column metadata has no {', '.join(missing)}", hint=f"it has {', '.join(place)}"
        )
    column = "raw_image_path" if not row.has("preview", "image") else "preview"
    names = [str(place.get(level) or place["city"]) for level in ("city", "state", "country")]
    return Record(
        id=row_id(row, "geo", "uid", "id"),
        question="Where on earth was this picture taken?",
        answer={"city": names[0], "state": names[1], "country": names[2], "at": [place["lat"], place["lng"]]},
        gold="; ".join(names),
        images=images_of(row, column, "image", store=reading.store),
        info=category_of_row(row, "data_type") or category_of_row(Row(place, row.where, row.folder), "data_type"),
    )


def _place(index: int, level: str) -> Any:
    def score(given: str, task: Task) -> float:
        parts = [part.strip() for part in given.split(";")]
        return exact_match(parts[index], task.answer[level]) if index < len(parts) else 0.0

    return score


def _near(given: str, task: Task) -> float:
    """Within 3 km, where the answer ends with a latitude and a longitude."""
    numbers = [parse_number(part) for part in given.rpartition(";")[2].split(",")]
    if len(numbers) != 2 or None in numbers:
        return 0.0
    lat, lng = (float(cast(Any, number)) for number in numbers)
    return float(-90 <= lat <= 90 and haversine_km((lat, lng), task.answer["at"]) <= 3.0)


_ROUTE = """Answer with one block for each line you ride, blocks parted by a line `--`:
Route Name: <line>
Departure Stop: <stop>
Arrival Stop: <stop>"""
_GEO = "End with a line `Answer: <city>; <state or province>; <country>; <latitude>, <longitude>`."

IMAGES: tuple[Benchmark, ...] = (
    Benchmark(
        name="vstar",
        about="V*Bench, 191 questions about small things in large pictures",
        licence="MIT, unverified",
        source="craigwu/vstar_bench",
        split="test",
        scores={"correct": _letter},
        read=_vstar,
        needs="images",
        note="or lmms-lab-encoder/vstar-bench",
    ),
    Benchmark(
        name="hrbench4k",
        about="HR-Bench 4K, 200 questions with 4 rotations of their options",
        licence="other",
        source="DreamMr/HR-Bench",
        split="",
        within="4k",
        scores={"correct": _letter},
        read=_hrbench,
        needs="images",
    ),
    Benchmark(
        name="hrbench8k",
        about="HR-Bench 8K, 200 questions with 4 rotations of their options",
        licence="other",
        source="DreamMr/HR-Bench",
        split="",
        within="8k",
        scores={"correct": _letter},
        read=_hrbench,
        needs="images",
    ),
    Benchmark(
        name="chartqa",
        about="ChartQA, 2,500 questions about charts",
        licence="GPL-3.0, unverified",
        source="lmms-lab/ChartQA",
        split="test",
        scores={"correct": _relaxed},
        read=_chartqa,
        needs="images",
    ),
    Benchmark(
        name="mathvista",
        about="MathVista, 1,000 problems with a figure",
        licence="CC-BY-SA-4.0, unverified",
        source="AI4Math/MathVista",
        split="testmini",
        scores={"correct": _mathvista_score},
        read=_mathvista,
        needs="images",
        note="published numbers read answers by a model",
    ),
    Benchmark(
        name="reasonmap",
        about="ReasonMap, 1,008 routes on transit maps; reads ReasonMap-Plus as well",
        licence="unverified",
        source="FSCCS/ReasonMap",
        split="validation",
        scores={"correct": _reasonmap_score},
        read=_reasonmap,
        needs="images",
    ),
    Benchmark(
        name="geovista",
        about="GeoVistaBench, 1,132 places to recognize",
        licence="not stated on its card",
        source="LibraTree/GeoVistaBench",
        split="test",
        scores={
            "city": _place(0, "city"),
            "state": _place(1, "state"),
            "country": _place(2, "country"),
            "within_3_km": _near,
        },
        read=_geovista,
        needs="images",
        ask=_GEO,
        note="scored word for word",
    ),
)
