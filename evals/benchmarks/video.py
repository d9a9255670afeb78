"""Questions about videos: what can be read today, and what frames would need."""

from __future__ import annotations

from typing import Any

from envs.rows import Row
from envs.scoring import mean_relative_accuracy, parse_number
from envs.task import Task
from evals.benchmarks.adapter import Benchmark, Reading, Record, category_of_row, row_id, without_letter
from evals.benchmarks.images import letter_of
from tools.errors import ConfigError

BLIND = "a blind control: the model sees no frame"


def _video(row: Row, path: str, **more: Any) -> dict[str, Any]:
    """What a tool would need to find the frames: the file, whether it is there, and the interval asked about."""
    return {"video": {"path": path, "found": (row.folder / path).is_file(), **more}}


def _vsi(row: Row, reading: Reading) -> Record:
    """Options, or a number that is scored by how near it is."""
    choices = tuple(without_letter(str(option)) for option in row.get("options") or ())
    answer = row.text("ground_truth")
    if choices:
        answer = letter_of(row, answer, len(choices))
    elif parse_number(answer) is None:
        raise ConfigError(f"{row.where}: the answer {answer!r} is neither an option nor a number")
    return Record(
        id=row_id(row, "vsi", "id"),
        question=row.text("question"),
        answer=answer,
        choices=choices,
        kind="number",
        info={
            "category": row.text("question_type"),
            **_video(row, f"{row.text('dataset')}/{row.text('scene_name')}.mp4"),
        },
    )


def _vsi_score(given: str, task: Task) -> float:
    return _letter(given, task) if task.info["options"] else mean_relative_accuracy(given, task.answer)


def _letter(given: str, task: Task) -> float:
    return float(given == task.answer)


def _video_mme(row: Row, reading: Reading) -> Record:
    choices = tuple(without_letter(str(option)) for option in row.items("options"))
    name = row.text("videoID", "video_id")
    return Record(
        id=row_id(row, "videomme", "question_id"),
        question=row.text("question"),
        answer=letter_of(row, row.text("answer"), len(choices)),
        choices=choices,
        info={"category": row.text("duration"), **_video(row, f"data/{name}.mp4", subtitles=f"subtitle/{name}.srt")},
    )


def _long_video(row: Row, reading: Reading) -> Record:
    """Parquet has `option0` to `option4`, the JSON has `candidates`; the test split has no answers."""
    options = row.items("candidates") if row.has("candidates") else [row.get(f"option{i}") for i in range(5)]
    choices = tuple(str(option).strip() for option in options if option not in (None, "", "N/A"))
    if not choices:
        raise row.without(("option0", "candidates"))
    place = int(row.need("correct_choice"))
    if not 0 <= place < len(choices):
        raise ConfigError(
            f"{row.where}: correct_choice is {place} of {len(choices)} options; the test split has no answers"
        )
    subtitles = {"subtitles": f"subtitles/{row.get('subtitle_path')}"} if row.has("subtitle_path") else {}
    return Record(
        id=row_id(row, "longvideo", "id"),
        question=row.text("question"),
        answer=chr(ord("A") + place),
        choices=choices,
        info={
            **category_of_row(row, "duration_group"),
            **_video(row, f"videos/{row.text('video_path')}", **subtitles),
        },
    )


VIDEO: tuple[Benchmark, ...] = (
    Benchmark(
        name="vsibench",
        about="VSI-Bench, 5,130 questions on space in videos of rooms",
        licence="Apache-2.0",
        source="nyu-visionx/VSI-Bench",
        split="test",
        scores={"correct_or_mra": _vsi_score},
        read=_vsi,
        needs="video",
        note=BLIND,
    ),
    Benchmark(
        name="videomme",
        about="Video-MME, 2,700 questions on 900 videos",
        licence="research only, unverified",
        source="lmms-lab/Video-MME",
        split="test",
        scores={"correct": _letter},
        read=_video_mme,
        needs="video",
        note=BLIND,
    ),
    Benchmark(
        name="longvideobench",
        about="LongVideoBench, 1,337 questions",
        licence="CC-BY-NC-SA-4.0, gated",
        source="longvideobench/LongVideoBench",
        split="validation",
        scores={"correct": _letter},
        read=_long_video,
        needs="video",
        note=BLIND,
    ),
)
