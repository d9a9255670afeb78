"""Single-turn records of the Berkeley Function-Calling Leaderboard (BFCL v4), read from the package that ships them.

The package is not imported, only its data files are read: `pip install --no-deps bfcl-eval` (Apache-2.0; with its
dependencies it pins an old numpy). A call is taken down and compared, never run, as in BFCL's AST categories. Two
differences: functions are shown as tools under names with `_` for `.`, which every server accepts (BFCL does so for the
models that need it), and no prompt of BFCL's is added; how calls are written is the dialect's business. Not here:
`simple_java` and `simple_javascript` (arguments in those languages), memory, web search, and the multi-turn categories.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, final, get_args

from envs.env import Context, Env, Reply
from envs.message import Message, answer_to, assistant, system, user
from envs.rubric import RewardFn, Rubric
from envs.scoring import calls_match
from envs.task import Task, Taskset
from envs.trajectory import Trajectory
from tools.content import Text
from tools.errors import ConfigError, nearest
from tools.tool import Tool, ToolCall, ToolResult

Category: TypeAlias = Literal[
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)

_JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
_KEPT = ("description", "enum", "default", "required", "minimum", "maximum", "format", "pattern")
_HINT = "data= is the folder that holds BFCL_v4_simple_python.json"
_WANTED = {"call": "match", "irrelevance": "none", "relevance": "some"}


def bfcl(category: str = "non_live", each: int | None = None, data: str = "") -> Taskset:
    """Function calls of BFCL v4, single turn: 1,240 written records and 2,251 of users.

    Args:
        category: One of BFCL's, several with commas, `non_live` (1,240 records), `live` (2,251) or `all`.
        each: The first so many of every category; all of them for None.
        data: The folder of `BFCL_v4_*.json`. Default: the installed package's.
    """
    if each is not None and each < 1:
        raise ConfigError(f"each is {each}; a category needs at least 1 record")
    root = _folder(data)
    tasks = [task for name in _categories(category) for task in itertools.islice(_tasks(root, name), each)]
    rubric = Rubric(rewards={"correct": (_correct(), 1.0), "calls": (_calls_written(), 0.0)})
    return Taskset(name="bfcl", tasks=tasks, env=TakenDown, rubric=rubric)


@final
class TakenDown(Env):
    """One action of the model; its calls are checked and noted, and the episode is over."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.tools = tuple(tool_of_record(function) for function in task.info["functions"])

    async def step(self, action: Message, ctx: Context) -> Reply:
        results = [answer_to(call, await ctx.call(call)) for call in action.tool_calls]
        return Reply(messages=tuple(results), done=True)


def tool_of_record(function: Mapping[str, Any]) -> Tool:
    """A record's function as a tool that only takes note.

    >>> shown = tool_of_record({"name": "math.sqrt", "description": "Root.",
    ...     "parameters": {"type": "dict", "properties": {"x": {"type": "float"}}, "required": ["x"]}})
    >>> shown.name, shown.parameters["properties"]
    ('math_sqrt', {'x': {'type': 'number'}})
    """

    async def note(**_: Any) -> ToolResult:
        return ToolResult(content=(Text(text="noted"),))

    return Tool(
        name=function["name"].replace(".", "_"),
        description=function.get("description", ""),
        parameters=_schema(function["parameters"]),
        fn=note,
    )


def is_right(calls: Sequence[ToolCall], answer: Mapping[str, Any], functions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the calls of an action are what a record asks for; a call that cannot be read is wrong."""
    if answer["calls"] == "none":
        return not calls
    read = [(call.name, call.arguments) for call in calls if call.error is None and call.arguments is not None]
    if len(read) < len(calls):
        return False
    if answer["calls"] == "some":
        return bool(calls)
    shown = [{**function, "name": function["name"].replace(".", "_")} for function in functions]
    allowed = [{name.replace(".", "_"): values for name, values in one.items()} for one in answer["right"]]
    return calls_match(cast(Any, read), allowed, shown)


def _correct() -> RewardFn:
    async def correct(env: Env, trajectory: Trajectory) -> float:
        calls = trajectory.steps[0].action.tool_calls if trajectory.steps else ()
        said = [call.raw or f"{call.name}({json.dumps(call.arguments)})" for call in calls]
        trajectory.info["extracted"] = "\n".join(said) or "no call"
        return float(is_right(calls, trajectory.task.answer, trajectory.task.info["functions"]))

    return correct


def _calls_written() -> RewardFn:
    async def calls(env: Env, trajectory: Trajectory) -> float:
        return float(len(trajectory.steps[0].action.tool_calls) if trajectory.steps else 0)

    return calls


def _tasks(root: Path, category: str) -> Iterator[Task]:
    """The records of one category as tasks."""
    kind = "irrelevance" if "irrelevance" in category else "relevance" if "relevance" in category else "call"
    name = f"BFCL_v4_{category}.json"
    right = (
        {row["id"]: row["ground_truth"] for row in _lines(root / "possible_answer" / name)} if kind == "call" else {}
    )
    for row in _lines(root / name):
        if kind == "call" and row["id"] not in right:
            raise ConfigError(f"{root / 'possible_answer' / name} has no answer to {row['id']}")
        gold: tuple[Message, ...] = ()
        if kind == "call":
            required = {one["name"]: one["parameters"].get("required", ()) for one in row["function"]}
            gold = (assistant(tool_calls=[_gold_call(i, one, required) for i, one in enumerate(right[row["id"]])]),)
        elif kind == "irrelevance":
            gold = (assistant(),)
        yield Task(
            id=row["id"],
            prompt=tuple(_message(message, row["id"]) for message in row["question"][0]),
            answer={"calls": _WANTED[kind], **({"right": right[row["id"]]} if kind == "call" else {})},
            gold=gold,
            info={"category": category, "functions": row["function"]},
        )


def _message(message: Mapping[str, str], id: str) -> Message:
    makers = {"system": system, "user": user, "assistant": assistant}
    if message["role"] not in makers:
        raise ConfigError(
            f"record {id} has a message of role {message['role']!r}", hint=nearest(message["role"], makers)
        )
    return makers[message["role"]](message["content"])


def _gold_call(
    index: int, allowed: Mapping[str, Mapping[str, Sequence[Any]]], required: Mapping[str, Sequence[str]]
) -> ToolCall:
    """The call that the first listed value of each parameter makes; what may be left out is."""
    ((name, values),) = allowed.items()
    needed = required.get(name, ())
    arguments = {key: _first(options) for key, options in values.items() if key in needed or "" not in options}
    name = name.replace(".", "_")
    raw = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return ToolCall(id=f"call_{index}", name=name, raw=raw, arguments=arguments)


def _first(options: Sequence[Any]) -> Any:
    """The first listed value; of a dictionary, and of each in a list, every entry lists its values in turn."""
    value = next((option for option in options if option != ""), "")
    if isinstance(value, list):
        return [_entries(item) for item in cast(list[Any], value)]
    return _entries(value)


def _entries(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    listed = cast(dict[str, Any], value)
    return {
        key: next((option for option in cast(list[Any], options) if option != ""), "")
        for key, options in listed.items()
        if isinstance(options, list) and "" not in options
    }


def _schema(described: Mapping[str, Any]) -> dict[str, Any]:
    """A record's parameter description as a JSON schema: its type names are Python's."""
    kept = {key: described[key] for key in _KEPT if key in described}
    if "type" in described:
        kept = {"type": _JSON_TYPES.get(described["type"], described["type"]), **kept}
    if "properties" in described:
        kept["properties"] = {name: _schema(inner) for name, inner in described["properties"].items()}
    if "items" in described:
        kept["items"] = _schema(described["items"])
    return kept


def _categories(said: str) -> list[str]:
    groups = {
        "all": CATEGORIES,
        "live": tuple(name for name in CATEGORIES if name.startswith("live_")),
        "non_live": tuple(name for name in CATEGORIES if not name.startswith("live_")),
    }
    found: list[str] = []
    for name in filter(None, (part.strip() for part in said.split(","))):
        if name not in groups and name not in CATEGORIES:
            raise ConfigError(f"bfcl has no category {name!r} here", hint=nearest(name, (*groups, *CATEGORIES)))
        found += groups.get(name, (name,))
    if not found:
        raise ConfigError("bfcl was given no category", hint=f"known: {', '.join((*groups, *CATEGORIES))}")
    return list(dict.fromkeys(found))


def _folder(data: str) -> Path:
    if data:
        root = Path(data).expanduser()
    else:
        spec = importlib.util.find_spec("bfcl_eval")
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError("bfcl needs the records of bfcl-eval", hint="pip install --no-deps bfcl-eval")
        root = Path(spec.submodule_search_locations[0]) / "data"
    if not root.is_dir():
        raise ConfigError(
            f"there is no folder {root}", hint="data= is the folder that holds BFCL_v4_simple_python.json"
        )
    return root


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint=_HINT)
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise ConfigError(f"{path} line {number} is not JSON: {error}") from error
