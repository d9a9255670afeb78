"""Word problems from the templates of GSM8K's own, numbers and names drawn anew: real wording, nothing to download.

The templates are those of GSM-Symbolic (Mirzadeh et al. 2024, arXiv 2410.05229), as reasoning-gym ships them
(`gsm_symbolic`, Apache-2.0): 85 of its 100, the others it marks as broken. Splits share no template, so a model that
has learnt `train` by heart meets new stories in `test`. Problems of one template resemble each other.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal, TypeAlias, get_args

from envs.env import Env, ToolEnv
from envs.message import Message, assistant, system, user
from envs.rewards import correct, has_answer, tool_calls, tool_errors
from envs.rubric import Rubric
from envs.scoring import parse_number
from envs.seed import derive_seed
from envs.task import Task, Taskset
from tools.errors import ConfigError
from tools.tool import ToolCall

Split: TypeAlias = Literal["train", "val", "test", "all"]

SYSTEM = "Solve the problem. End with a line `Answer: <number>`."

_ASIDE = " Give the result as your final answer. Do not include units."
_TOKEN = re.compile(r"(?P<number>\d[\d,]*(?:\.\d+)?%?)|(?P<sign>[-+*/()×])|(?P<word>[^\W\d_]+)")


def math_word(split: Split = "train", n: int = 500, seed: int = 0, tools: bool = True) -> Taskset:
    """GSM8K's word problems with new numbers (reasoning-gym's gsm_symbolic), with a Python tool.

    Args:
        split: `train`, `val` or `test`, of 57, 8 and 20 templates, which they do not share; `all` has all 85, for
            measuring a model that was trained on none.
        n: How many tasks. The first tasks are the same for every `n`.
        seed: Another seed gives other numbers and names.
        tools: False leaves the tool out, and the gold answers work step by step instead.
    """
    if split not in get_args(Split):
        raise ConfigError(f"split is {split!r}; it must be one of {', '.join(get_args(Split))}")
    if n < 1:
        raise ConfigError(f"n is {n}; a taskset needs at least 1 task")
    tasks = [
        _task(item, f"math-word-{split}-s{seed}-{index}", tools) for index, item in enumerate(_items(split, n, seed))
    ]
    rubric = Rubric(
        rewards={
            "correct": (correct(), 1.0),
            "tool_calls": (tool_calls(), 0.0),
            "tool_errors": (tool_errors(), 0.0),
            "has_answer": (has_answer(), 0.0),
        }
    )
    return Taskset(name="math_word", tasks=tasks, env=_with_python if tools else _bare, rubric=rubric)


def split_of(template: int) -> Split:
    """The split a template belongs to, by a hash of its number.

    >>> [split_of(template) for template in (0, 1, 2)]
    ['train', 'train', 'val']
    """
    bucket = derive_seed("math_word split", template) % 10
    return "test" if bucket < 2 else "val" if bucket == 2 else "train"


def steps_of(working: str, answer: Fraction) -> list[str] | None:
    """The sums of a worked solution as Python expressions, the last of which is the answer; None where they cannot be
    read without doubt.

    >>> steps_of("3 boxes * 4 pens/box = 12 pens. Then $12 - $2 = $10", Fraction(10))
    ['3 * 4', '12 - 2']
    """
    found: list[tuple[str, Fraction]] = []
    for line in working.splitlines():
        sides = line.split("=")
        for left, right in itertools.pairwise(sides):
            shown = re.match(r"\s*[$€£¥]?(-?\d[\d,]*(?:\.\d+)?)", right)
            value = parse_number(shown.group(1).rstrip(",")) if shown else None
            expression = None if value is None else _expression(left, value)
            if expression is not None and value is not None:
                found.append((expression, value))
    return [expression for expression, _ in found] if found and found[-1][1] == answer else None


def _expression(text: str, value: Fraction) -> str | None:
    """The longest run of numbers and signs at the end of `text`, units left out, that comes to `value`."""
    tokens: list[str] = []
    for match in _TOKEN.finditer(re.sub(r"(?<=\d)\s*x\s*(?=[$€£¥]?\d)", " * ", text)):
        if match["word"]:
            if tokens and tokens[-1] == "/":  # pens/box
                tokens.pop()
        else:
            tokens.append(match.group().replace(",", "").replace("×", "*"))
    for start in range(len(tokens) - 2):
        candidate = [f"{token[:-1]} / 100" if token.endswith("%") else token for token in tokens[start:]]
        if _value(candidate) == value:
            return " ".join(candidate).replace("( ", "(").replace(" )", ")")
    return None


def _value(tokens: list[str]) -> Fraction | None:
    """What an expression of numbers, + - * / and parentheses comes to, exactly; None where it is none."""
    exact = re.sub(r"\d+(?:\.\d+)?", lambda match: f"F('{match.group()}')", " ".join(tokens))
    if not re.fullmatch(r"(?:F\('[\d.]+'\)|[-+*/() ])+", exact):
        return None
    try:
        return Fraction(eval(exact, {"__builtins__": {}, "F": Fraction}))  # nothing but numbers and signs, see above
    except (SyntaxError, TypeError, ZeroDivisionError):
        return None


def _items(split: Split, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """`n` distinct problems of `split`, each with its `template`."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError("math_word needs reasoning-gym", hint="pip install reasoning-gym") from error
    size, first = 20 * n + 400, derive_seed("math_word", seed) % 2**31
    # `val` has 8 of 85 templates and takes about every eleventh. Every problem is drawn from `first` plus its index
    # alone, so a larger `size` begins with the same ones.
    source: Any = reasoning_gym.create_dataset("gsm_symbolic", size=size, seed=first)  # pyright: ignore
    seen: set[str] = set()
    for index in range(size):
        template = source.task_indices[index]
        if split != "all" and split_of(template) != split:
            continue
        item = source[index]
        if item["question"] not in seen:
            seen.add(item["question"])
            yield {**item, "template": template}
        if len(seen) == n:
            return
    raise ConfigError(f"math_word runs out of new problems after {len(seen)}", hint="ask for a smaller n")


def _task(item: dict[str, Any], id: str, tools: bool) -> Task:
    working, answer = item["metadata"]["answer_cot"], item["answer"]
    value = parse_number(answer)
    assert value is not None  # every template's answer is a number
    steps = steps_of(working, value) if tools else None
    return Task(
        id=id,
        prompt=(system(SYSTEM), user(item["question"].removesuffix(_ASIDE))),
        answer=answer,
        gold=_gold_with_tool(steps, answer) if steps else _gold_by_hand(working, answer),
        info={"template": item["template"]},
    )


def _gold_with_tool(steps: list[str], answer: str) -> tuple[Message, ...]:
    arguments = {"code": "\n".join(f"print({step})" for step in steps)}
    call = ToolCall(
        id="call_0", name="python", raw=json.dumps({"name": "python", "arguments": arguments}), arguments=arguments
    )
    return assistant(tool_calls=(call,)), assistant(f"Answer: {answer}")


def _gold_by_hand(working: str, answer: str) -> tuple[Message, ...]:
    return (assistant(f"{working.rpartition('####')[0].strip()}\nAnswer: {answer}"),)


def _with_python(task: Task) -> Env:
    from tools.python import PythonTool

    python = PythonTool()
    return ToolEnv(task=task, tools=(python.tool,), resources=(python,))


def _bare(task: Task) -> Env:
    return ToolEnv(task=task)
