"""Mathematics and short answers: benchmarks whose questions are text alone."""

from __future__ import annotations

import re
from typing import Any, cast

from envs.rows import Row
from envs.scoring import exact_match, math_equal, parse_number, same_number, token_f1
from envs.task import Task
from evals.benchmarks.adapter import Benchmark, Reading, Record, category_of_row, row_id
from tools.errors import ConfigError


def _equal(given: str, task: Task) -> float:
    return float(math_equal(given, task.answer))


def _number(given: str, task: Task) -> float:
    return float(same_number(given, task.answer))


def _exact(given: str, task: Task) -> float:
    return exact_match(given, task.answer)


def _f1(given: str, task: Task) -> float:
    return token_f1(given, task.answer)


def _competition(row: Row, reading: Reading) -> Record:
    """`problem` and `answer` under the names that mirrors give them; a whole number may be written as a float."""
    answer = row.text("answer", "expected_answer")
    value = parse_number(answer)
    if value is None or value.denominator != 1:
        raise ConfigError(f"{row.where}: the answer {answer!r} is no whole number")
    return Record(
        id=row_id(row, "aime", "id", "problem_idx"), question=row.text("problem", "question"), answer=str(int(value))
    )


def _math(row: Row, reading: Reading) -> Record:
    level = {"category": f"level {row.get('level')}"} if row.has("level") else {}
    return Record(
        id=row_id(row, "math", "unique_id", "id"),
        question=row.text("problem", "question"),
        answer=row.text("answer"),
        info={**level, "subject": row.get("subject")},
    )


def _gsm8k(row: Row, reading: Reading) -> Record:
    """The answer stands after `####`, behind its working."""
    answer = row.text("answer").rpartition("####")[2].strip().replace(",", "")
    if parse_number(answer) is None:
        raise ConfigError(f"{row.where}: no number stands after #### in the answer, but {answer[:40]!r}")
    return Record(id=row_id(row, "gsm8k", "id"), question=row.text("question"), answer=answer)


def _answers(row: Row) -> list[str]:
    """All right answers: FlashRAG's list, or one with its aliases."""
    if row.has("golden_answers"):
        found = [str(answer) for answer in row.items("golden_answers")]
    else:
        aliases = row.items("answer_aliases") if row.has("answer_aliases") else []
        found = [row.text("answer", "golden_answers"), *map(str, aliases)]
    found = [answer for answer in dict.fromkeys(found) if answer.strip()]
    if not found:
        raise ConfigError(f"{row.where}: the column golden_answers is empty")
    return found


def _hops(row: Row, reading: Reading) -> Record:
    """Questions over several documents; the passages that come with them are shown only where they are asked for."""
    passages = _passages(row) if reading.context else ""
    return Record(
        id=row_id(row, "question", "id", "_id"),
        question=f"{passages}{row.text('question')}",
        answer=_answers(row),
        info=category_of_row(row, "type", "level"),
    )


def _passages(row: Row) -> str:
    """HotpotQA's `context` (as parquet or as in its JSON) or MuSiQue's `paragraphs`."""
    if row.has("paragraphs"):
        found = [(part["title"], part["paragraph_text"]) for part in row.items("paragraphs")]
    else:
        context = row.need("context")
        if isinstance(context, dict):
            fields = cast(dict[str, Any], context)
            context = list(zip(fields["title"], fields["sentences"], strict=True))
        found = [(title, "".join(sentences)) for title, sentences in cast(Any, context)]
    return "".join(f"{title}\n{text.strip()}\n\n" for title, text in found)


def _simpleqa(row: Row, reading: Reading) -> Record:
    about = re.search(r"'topic':\s*'([^']*)'", str(row.get("metadata", default="")))
    return Record(
        id=row_id(row, "simpleqa", "id", "original_index"),
        question=row.text("problem", "question"),
        answer=[row.text("answer")],
        info={"category": about.group(1)} if about else category_of_row(row, "topic"),
    )


_HOPS = {"scores": {"em": _exact, "f1": _f1}, "read": _hops}
_NO_SEARCH = "closed-book, or -a context=true"

TEXT: tuple[Benchmark, ...] = (
    Benchmark(
        name="aime24",
        about="AIME 2024, 30 competition problems",
        licence="Apache-2.0, unverified",
        source="HuggingFaceH4/aime_2024",
        split="train",
        scores={"correct": _number},
        read=_competition,
        kind="number",
        ask="box",
        tools="python",
        note="few: -k 16 or more",
    ),
    Benchmark(
        name="aime25",
        about="AIME 2025, 30 competition problems",
        licence="Apache-2.0, unverified",
        source="math-ai/aime25",
        split="test",
        scores={"correct": _number},
        read=_competition,
        kind="number",
        ask="box",
        tools="python",
        note="few: -k 16 or more; yentinglin/aime_2025: train",
    ),
    Benchmark(
        name="math500",
        about="MATH-500, 500 problems of 7 subjects",
        licence="MIT, unverified",
        source="HuggingFaceH4/MATH-500",
        split="test",
        scores={"correct": _equal},
        read=_math,
        ask="box",
        tools="python",
    ),
    Benchmark(
        name="gsm8k",
        about="GSM8K, 1,319 grade-school word problems",
        licence="MIT, unverified",
        source="openai/gsm8k",
        split="test",
        scores={"correct": _number},
        read=_gsm8k,
        kind="number",
        within="main",
        tools="python",
    ),
    Benchmark(
        name="hotpotqa",
        about="HotpotQA, 7,405 questions over two articles",
        licence="CC-BY-SA-4.0, unverified",
        source="hotpotqa/hotpot_qa",
        split="validation",
        within="distractor",
        note=_NO_SEARCH,
        **cast(Any, _HOPS),
    ),
    Benchmark(
        name="2wiki",
        about="2WikiMultihopQA, 12,576 questions of several hops",
        licence="Apache-2.0 (its mirror CC-BY-SA-4.0), unverified",
        source="RUC-NLPIR/FlashRAG_datasets",
        split="dev",
        within="2wikimultihopqa",
        note="closed-book",
        **cast(Any, _HOPS),
    ),
    Benchmark(
        name="musique",
        about="MuSiQue-Ans, 2,417 questions of 2 to 4 hops",
        licence="CC-BY-4.0, unverified",
        source="dgslibisey/MuSiQue",
        split="dev",
        within="ans_v1.0",
        note=_NO_SEARCH,
        **cast(Any, _HOPS),
    ),
    Benchmark(
        name="bamboogle",
        about="Bamboogle, 125 questions of 2 hops",
        licence="MIT, unverified",
        source="RUC-NLPIR/FlashRAG_datasets",
        split="test",
        within="bamboogle",
        note="closed-book",
        **cast(Any, _HOPS),
    ),
    Benchmark(
        name="simpleqa",
        about="SimpleQA, 4,326 short questions of fact",
        licence="MIT, unverified",
        source="simple_qa_test_set.csv of openai/simple-evals",
        split="test",
        scores={"em": _exact, "f1": _f1},
        read=_simpleqa,
        note="published numbers are by --judge",
    ),
)
