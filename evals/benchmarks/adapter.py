"""What a benchmark is: how a row becomes one neutral record, how a record becomes a task, how an answer is scored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any, Literal, TypeAlias, cast

from envs.env import Env, ToolEnv
from envs.message import assistant, user
from envs.rewards.answers import final_text
from envs.rewards.calls import tool_calls
from envs.rows import Row, read_rows, refuse_other_split
from envs.rubric import RewardFn, Rubric
from envs.scoring.reading import LETTERS, Extracted, Kind, extract
from envs.task import Task, Taskset
from envs.trajectory import Trajectory
from evals.benchmarks.hub import local_folder
from tools.content import BlobStore, Image
from tools.errors import ConfigError
from tools.record import record

Tools: TypeAlias = Literal["python", "none"]
Needs: TypeAlias = Literal["text", "images", "video"]
Score: TypeAlias = Callable[[str, Task], float]
"""(the answer read out of the last message, its task) -> score."""

ASK: Mapping[str, str] = {
    "box": "Put the final answer in \\boxed{}.",
    "line": "End with a line `Answer: <answer>`, as short as possible.",
    "number": "End with a line `Answer: <number>`.",
    "letter": "End with a line `Answer: <letter>`.",
}


@record
class Record:
    """One question of any benchmark."""

    id: str
    question: str
    answer: Any
    """What the scorer compares with: text, or a list of texts that are all right; of a choice, its letter."""
    images: tuple[Image, ...] = ()
    choices: tuple[str, ...] = ()
    """The options without their letters; then `answer` is a letter."""
    kind: Kind | None = None
    """What kind of answer this question has; None for its benchmark's."""
    ask: str | None = None
    """How the answer is asked for, where it is not its benchmark's way."""
    whole: bool = False
    """The whole last message is the answer; nothing is read out of it."""
    gold: str | None = None
    """An answer that is right, as a model would state it; None for `answer`, or its first."""
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """For scorers and reports: `category` as in `Task.info`, and for a video what frames would need."""


@record
class Benchmark:
    """A data set others publish: where it is, what its rows hold, what is measured."""

    name: str
    about: str
    """In a few words, with the number of questions."""
    licence: str
    """As its card states it; "unverified" where nobody looked."""
    source: str
    """The hub id whose columns `read` knows, or where else the file is."""
    split: str
    scores: Mapping[str, Score]
    """The first is the headline."""
    read: Callable[[Row, Reading], Record]
    needs: Needs = "text"
    kind: Kind = "text"
    ask: str = "line"
    """How the answer is asked for: a key of `ASK`, or the words."""
    within: str = ""
    """The configuration: files whose path names it are preferred."""
    tools: Tools = "none"
    """The tools it is played with by default."""
    note: str = ""
    """What is not comparable with published numbers, or cannot be run yet."""


@record
class Reading:
    """What turning rows into records may use."""

    store: BlobStore
    context: bool = False
    """Put the passages that come with a question into the prompt."""
    seen: dict[str, tuple[Image, ...]] = field(default_factory=dict[str, tuple[Image, ...]])
    """Pictures by the index of the row that held them, for files that store a repeated one once."""


def load(
    spec: Benchmark, data: str, split: str, tools: Tools, n: int | None, context: bool, store: BlobStore
) -> Taskset:
    """The taskset of a benchmark from `data`. Raises `ConfigError`, naming file and row, for what cannot be read.

    Without `split` it is the benchmark's own, and one file is read whatever its name says.
    """
    if not data:
        raise ConfigError(f"{spec.name} is not shipped: it needs its data", hint=how_to_get(spec))
    if n is not None and n < 1:
        raise ConfigError(f"n is {n}; a taskset needs at least 1 task")
    source = local_folder(data)
    if split:
        refuse_other_split(source, split)
    split = split or spec.split
    rows = read_rows(source, split, spec.within)
    tasks = list(tasks_of(spec, rows, Reading(store=store, context=context), n))
    if not tasks:
        raise ConfigError(f"{data} has no rows of {spec.name}" + (f", split {split!r}" if split else ""))
    return Taskset(
        name=spec.name,
        tasks=tasks,
        env=_with_python if tools == "python" else _bare,
        rubric=rubric_of(spec),
        blobs=store,
    )


def how_to_get(spec: Benchmark) -> str:
    """Where its rows come from, in one line."""
    if "/" in spec.source and " " not in spec.source:
        return f"--data FILE_OR_FOLDER of {source_of(spec)}, or --data hf:{spec.source} to fetch it"
    return f"--data FILE: {spec.source}"


def source_of(spec: Benchmark) -> str:
    """Where its rows are published, and which split of them is played."""
    return f"{spec.source} ({spec.split})" if spec.split else spec.source


def tasks_of(spec: Benchmark, rows: Iterator[Row], reading: Reading, n: int | None) -> Iterator[Task]:
    """The first `n` rows as tasks. Raises `ConfigError` for an id that comes twice."""
    where: dict[str, str] = {}
    for row in rows:
        if len(where) == n:
            return
        found = spec.read(row, reading)
        if found.id in where:
            raise ConfigError(f"{row.where}: the id {found.id!r} is that of {where[found.id]} too; ids must be unique")
        where[found.id] = row.where
        yield task_of(found, spec, row.where)


def task_of(found: Record, spec: Benchmark, where: str) -> Task:
    """A record as a task: pictures, question, options, and how to answer."""
    kind = "choice" if found.choices else found.kind or spec.kind
    ask = found.ask or spec.ask
    ask = "letter" if kind == "choice" else "number" if kind == "number" and ask == "line" else ask
    options = "\n".join(f"({letter}) {text}" for letter, text in zip(LETTERS, found.choices, strict=False))
    text = "\n".join(filter(None, (found.question, options, ASK.get(ask, ask))))
    answer: object = found.answer
    answers = cast(list[object], answer) if isinstance(answer, list) else [answer]
    right = found.gold if found.gold is not None else str(answers[0])
    return Task(
        id=found.id,
        prompt=(user(*found.images, text),),
        answer=answer,
        gold=(assistant(right if found.whole else _stated(right, ask)),),
        info={**found.info, "kind": kind, "options": list(found.choices), "whole": found.whole, "row": where},
    )


def rubric_of(spec: Benchmark) -> Rubric:
    """The benchmark's scores; the first decides, the others are shown."""
    scores = {name: (reward(score), float(index == 0)) for index, (name, score) in enumerate(spec.scores.items())}
    return Rubric(rewards={**scores, "tool_calls": (tool_calls(), 0.0)})


def reward(score: Score) -> RewardFn:
    """Read the answer out of the last message, note it with the rule that found it, and score it; 0 for none."""

    async def scored(env: Env, trajectory: Trajectory) -> float:
        task = trajectory.task
        text = final_text(trajectory)
        found = extract(text, task.info["kind"], task.info["options"])
        if task.info["whole"]:
            found = Extracted(answer=text or None, rule="none")
        trajectory.info.update(extracted=found.answer, extraction=found.rule)
        # Comparing expressions can take seconds, and other episodes share this loop.
        return 0.0 if found.answer is None else float(await asyncio.to_thread(score, found.answer, task))

    return scored


def row_id(row: Row, name: str, *columns: str) -> str:
    """The id a row states, or its place."""
    value = row.get(*columns)
    return str(value) if value not in (None, "") else f"{name}-{row.where.rpartition(' ')[2]}"


def category_of_row(row: Row, *columns: str) -> dict[str, str]:
    """What the first of the columns that is there says, as the row's category; nothing where it says nothing."""
    value = row.get(*columns)
    return {} if value is None or not str(value).strip() else {"category": str(value).strip()}


def without_letter(option: str) -> str:
    """An option as `A. text` or `(A) text`, without its letter.

    >>> without_letter("(B) two dogs"), without_letter("C. three"), without_letter("A cat")
    ('two dogs', 'three', 'A cat')
    """
    for close in (")", ".", ":"):
        head, found, rest = option.partition(close)
        if found and rest[:1] in ("", " ") and head.strip().lstrip("(") in LETTERS and len(head.strip()) <= 2:
            return rest.strip()
    return option.strip()


def _stated(right: str, ask: str) -> str:
    return f"\\boxed{{{right}}}" if ask == "box" else f"Answer: {right}"


def _with_python(task: Task) -> Env:
    from tools.python import PythonTool

    python = PythonTool()
    return ToolEnv(task=task, tools=(python.tool,), resources=(python,))


def _bare(task: Task) -> Env:
    return ToolEnv(task=task)
