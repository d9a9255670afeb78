"""Questions of public data sets, answered with a search tool and, if asked for, a Python interpreter.

What Search-R1 (NQ, HotpotQA) and Tool-Star train on, from a file or the hub; the search is any provider. Answers stand
in `<answer>` tags; Tool-Star's carry a `\\boxed{}` inside, which is read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from envs.env import Env, ToolEnv
from envs.message import system, user
from envs.rewards import correct, search_r1, tool_star
from envs.rewards.choice import rubric_of
from envs.rows import rows_of
from envs.rubric import Rubric
from envs.scoring import boxed, exact_match, tagged
from envs.task import Task, Taskset
from tools.errors import ConfigError
from tools.search.cache import Mode
from tools.search.find import provider_for
from tools.search.tool import SearchLimits, SearchTools, search_r1_style
from tools.tool import Tool

SYSTEM = (
    "Answer the question. Think first; whenever you lack knowledge, search for it, as often as you need. Give the final"
    " answer inside <answer> and </answer>, without further explanation."
)
WITH_PYTHON = " You may also run Python code to calculate or to check."


def search_qa(
    data: str,
    search: str = "local:articles",
    n: int | None = None,
    python: bool = False,
    reward: Literal["correct", "search_r1", "tool_star"] = "search_r1",
    k: int = 3,
    replies: str | None = None,
    mode: Mode = "record",
) -> Taskset:
    """Questions from a file of yours or the hub, with a search tool.

    Args:
        data: A .jsonl or .parquet file, or the id of a data set on the hub. Rows have `question` and `golden_answers`
            (FlashRAG), `answer` or `answers`, or are verl's (`prompt`, `reward_model.ground_truth`).
        search: Where the tool searches: `local:articles`, a file.index, `retriever=URL`, `ddgs`, ...
        n: How many tasks, from the first; all by default.
        python: Give a Python tool too.
        reward: Normalised exact match, Search-R1's reward, or Tool-Star's.
        k: Hits a search shows.
        replies: A file that records what the provider answers.
        mode: `record` asks for what the file lacks; `replay` asks nobody; `live` does not use the file.
    """
    provider = provider_for(search, replies, mode)

    def env(task: Task) -> Env:
        found = SearchTools(provider, limits=SearchLimits(k=k, snippet_chars=1500), style=search_r1_style).tools
        tools: tuple[Tool, ...] = tuple(tool for tool in found if tool.name == "search")
        if not python:
            return ToolEnv(task=task, tools=tools)
        from tools.python import PythonTool

        interpreter = PythonTool(timeout_s=5.0, max_chars=400)  # Tool-Star's limits
        return ToolEnv(task=task, tools=(*tools, interpreter.tool), resources=(interpreter,))

    tasks: list[Task] = []
    words = SYSTEM + (WITH_PYTHON if python else "")
    for number, row in enumerate(rows_of(data)):
        question, answers = question_of(row, f"{data}, row {number}")
        tasks.append(Task(id=f"{Path(data).stem}-{number}", prompt=(system(words), user(question)), answer=answers))
        if len(tasks) == n:
            break
    if not tasks:
        raise ConfigError(f"{data} holds no questions")
    return Taskset(name="search_qa", tasks=tasks, env=env, rubric=_rubric(reward))


def question_of(row: Mapping[str, Any], where: str = "a row") -> tuple[str, list[str]]:
    """Question and right answers of a row.

    >>> question_of({"question": "Capital of France?", "golden_answers": ["Paris"]})
    ('Capital of France?', ['Paris'])
    >>> question_of({"prompt": [{"content": "2?"}], "reward_model": {"ground_truth": {"target": ["two", "2"]}}})
    ('2?', ['two', '2'])
    """
    question: Any = row.get("question")
    if not question and row.get("prompt"):
        question = row["prompt"][-1]["content"]
    verl: Any = row.get("reward_model")
    answers: Any = next(
        (row[name] for name in ("golden_answers", "answers", "answer") if row.get(name) is not None), None
    )
    if answers is None and isinstance(verl, Mapping):
        truth: Any = cast("Mapping[str, Any]", verl).get("ground_truth")
        answers = cast("Mapping[str, Any]", truth).get("target") if isinstance(truth, Mapping) else truth
    golds = [str(a).strip() for a in (cast("list[Any]", answers) if isinstance(answers, list | tuple) else [answers])]
    if answers is None or not question:
        raise ConfigError(f"{where} has no question and answer, only: {', '.join(sorted(row))}")
    if not str(question).strip() or not any(golds):
        raise ConfigError(f"{where} has an empty question or answer")
    return str(question).strip(), [gold for gold in golds if gold]


def answer_of(text: str) -> str | None:
    """What stands in the answer tags, or in the box within them."""
    found = tagged(text)
    return found if found is None else boxed(found) or found


def same_answer(given: str, expected: object) -> bool:
    """SQuAD's normalised match with any of the right answers."""
    return exact_match(given, cast("list[str]", expected)) == 1.0


def _rubric(reward: str) -> Rubric:
    paid = {"search_r1": search_r1(answer_of), "tool_star": tool_star(answer_of)}
    return rubric_of(correct(answer_of, same_answer), answer_of, reward, paid)
