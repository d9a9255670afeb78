"""What published visual agents are trained on, from files: DeepEyes, ViLaSR, RewardMap, ChartSketcher, UV-CoT.

Each reads the rows its paper's data has, gives the tools its paper has and pays its paper's reward. The columns are
from the projects' code and cards: none of these has ever read a real file. Papers judge free answers with a language
model; here an answer is right where it is equal, as text or as a number, and `evals run --judge` judges beside it.
There are no gold messages: the data has none. The pictures of the rows that are asked for are kept in the cache, once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from envs.env import Closable, Env, ToolEnv
from envs.message import Message, Role
from envs.rewards import correct, final_text
from envs.rewards.choice import rubric_of
from envs.rewards.visual import (
    Difficulty,
    choice_or_number,
    deepeyes,
    deepeyes_v2,
    graded,
    reflections,
    rewardmap_detail,
    rewardmap_score,
    rewardmap_weight,
    vilasr,
)
from envs.row_pictures import images_of, placed
from envs.rows import Row, read_rows
from envs.rubric import Rubric
from envs.scoring import boxed, exact_match, parse_number, relaxed_equal, routes, same_number, tagged
from envs.task import Task, Taskset
from envs.trajectory import Trajectory
from tools.cache import image_store
from tools.content import BlobStore
from tools.errors import ConfigError
from tools.image import DEEPEYES, UV_COT, Gallery, ImageBudget, image_tools
from tools.tool import Tool

Tools: TypeAlias = Callable[[Gallery], tuple[Sequence[Tool], Sequence[Closable]]]
"""The tools of an episode over its pictures, and what is closed with it."""
_ROLES: tuple[Role, ...] = ("system", "user")


def deepeyes_data(
    data: str, n: int | None = None, shown: int = 1024, reward: Literal["deepeyes", "deepeyes_v2"] = "deepeyes"
) -> Taskset:
    """DeepEyes-Datasets-47k and DeepEyesV2_RL: photographs, charts and mathematics; zoom, or Python; from a file.

    Args:
        data: A .parquet or .jsonl file, or a folder of them, of ChenShawn/DeepEyes-Datasets-47k or
            honglyhly/DeepEyesV2_RL. Rows are verl's (`prompt`, `images`, `reward_model.ground_truth`).
        n: How many tasks, from the first; all by default.
        shown: The model sees pictures at most so many pixels wide or high.
        reward: DeepEyes', with its zoom tool; or DeepEyesV2's, with Python over the pictures (and without its search).
    """

    def tools(gallery: Gallery) -> tuple[Sequence[Tool], Sequence[Closable]]:
        if reward == "deepeyes":
            return image_tools(gallery, "image_zoom_in_tool", zoom=DEEPEYES), ()
        from tools.image.interpreter import PicturePython
        from tools.python import PythonTool

        python = PicturePython(gallery, PythonTool())
        return (python.tool,), (python,)

    def read(row: Row, store: BlobStore) -> Task:
        images = images_of(row, "images", store=store)
        said = cast(list[dict[str, Any]], row.items("prompt"))
        verl = cast(dict[str, Any], row.need("reward_model"))
        prompt: list[Message] = []
        for message in said:
            role = message.get("role")
            if role not in _ROLES:
                raise ConfigError(
                    f"{row.where}: the prompt has a message of role {role!r}", hint="system and user are read"
                )
            text = str(message.get("content") or "")
            here = images if role == "user" else ()
            prompt.append(Message(role=role, content=placed(text, here, row.where)))
        kind = str(row.get("data_source", "env_name", default=""))
        return _task(row, prompt, _text_of(verl.get("ground_truth"), row), group=kind)

    paid = {"deepeyes": deepeyes(same_answer), "deepeyes_v2": deepeyes_v2(same_answer)}
    rubric = rubric_of(correct(tagged, same_answer), tagged, reward, paid)
    return _taskset("deepeyes_data", data, n, read, tools, shown, rubric)


def vilasr_data(
    data: str, n: int | None = None, shown: int = 448, variant: Literal["paper", "code"] = "paper"
) -> Taskset:
    """VILASR-RL-40k: mazes, pictures and video frames, with Object Mapper and Path Tracer; from a file.

    Args:
        data: `vilasr_rl_data.jsonl`, beside its pictures. Rows have `question`, `answer`, `image_path`,
            `question_type` (`multiple choice`, `regression`, `numerical` or `free-form`) and `data_type`.
        n: How many tasks, from the first; all by default. Free-form questions are left out, as ViLaSR's reward gives 0
            for any answer to them.
        shown: The model sees pictures at most so many pixels wide or high; the paper's are of at most 200,704 pixels.
        variant: The reward as the paper has it, or as its code has it.
    """

    def read(row: Row, store: BlobStore) -> Task | None:
        kind = row.text("question_type").lower()
        if kind == "free-form":
            return None
        stated = row.text("answer")
        answer: Any = tagged(stated) or stated
        if kind in ("regression", "numerical"):
            number = parse_number(str(answer))
            if number is None:
                raise ConfigError(f"{row.where}: the answer {answer!r} to a {kind} question is no number")
            answer = float(number)
        content = placed(row.text("question"), images_of(row, "image_path", "images", store=store), row.where)
        return _task(row, [Message(role="user", content=content)], answer, group=str(row.get("data_type")))

    paid = {"vilasr": vilasr(choice_or_number, variant=variant)}
    rubric = rubric_of(graded(choice_or_number), tagged, "vilasr", paid, reflections=reflections())
    return _taskset("vilasr_data", data, n, read, _named("object_mapper", "path_tracer"), shown, rubric)


def rewardmap_data(
    data: str, n: int | None = None, shown: int = 2048, variant: Literal["paper", "code"] = "paper"
) -> Taskset:
    """ReasonMap-Train and -Plus with RewardMap's reward: yes or no, counts and routes on transit maps; from a file.

    Args:
        data: A .parquet or .jsonl file, or a folder of them, of FSCCS/ReasonMap-Train, -Plus or ReasonMap.
        n: How many tasks, from the first; all by default. The order of the rows is the curriculum.
        shown: The model sees maps at most so many pixels wide or high.
        variant: The detail reward as the paper has it, or as its code has it.
    """

    def read(row: Row, store: BlobStore) -> Task:
        images = images_of(row, "figure", "image", "images", store=store)
        kind = str(row.get("type", default="planning")).lower()
        level = str(row.get("difficulty_city", default="easy")).lower()
        if level not in ("easy", "middle", "hard"):
            raise ConfigError(f"{row.where}: difficulty_city is {level!r}, not easy, middle or hard")
        transfers: int | None = None
        if kind == "planning":
            network = row.need("json")
            lines = routes.read_lines(json.loads(network) if isinstance(network, str) else network)
            answer: Any = {
                "lines": {line: list(stops) for line, stops in lines.items()},
                "from": row.text("station_1"),
                "to": row.text("station_2"),
            }
            transfers = int(row.get("question_transfer_count", default=0))
        else:
            answer = _counted(kind, row.text("answer"))
        question = row.text("question", "question_short", "question_long")
        prompt = [Message(role="user", content=placed(question, images, row.where))]
        return _task(row, prompt, answer, group=kind, difficulty=level, transfers=transfers)

    async def right(env: Env, trajectory: Trajectory) -> float:
        return float(_map_right(final_text(trajectory), trajectory.task.answer))

    async def paid(env: Env, trajectory: Trajectory) -> float:
        task, text = trajectory.task, final_text(trajectory)
        transfers: int | None = task.info["transfers"]
        detail, asked = 0.0, task.answer
        if transfers is not None:
            detail = rewardmap_detail(text, asked["lines"], asked["from"], asked["to"], transfers, variant)
        level: Difficulty = task.info["difficulty"]
        return rewardmap_score(_map_right(text, asked), detail, weight=rewardmap_weight(level, transfers))

    rubric = rubric_of(right, boxed, "rewardmap", {"rewardmap": paid})
    return _taskset("rewardmap_data", data, n, read, _named(), shown, rubric)


def chartsketcher_data(data: str, n: int | None = None, shown: int = 1024) -> Taskset:
    """ChartSketcher's questions about charts (ChartQA, ChartBench), with its sketch tool; from a file.

    Args:
        data: A .json or .jsonl file beside its charts. Rows have `imgname`, `query` and `label`, as ChartQA's own.
        n: How many tasks, from the first; all by default.
        shown: The model sees charts at most so many pixels wide or high.
    """

    def read(row: Row, store: BlobStore) -> Task:
        images = images_of(row, "imgname", "image", "images", store=store)
        label: Any = row.need("label", "answer")
        answer = cast("list[Any]", label)[0] if isinstance(label, list) and label else cast(Any, label)
        prompt = [Message(role="user", content=placed(row.text("query", "question"), images, row.where))]
        return _task(row, prompt, _text_of(answer, row))

    rubric = rubric_of(correct(_whole, _relaxed), _whole)
    return _taskset("chartsketcher_data", data, n, read, _named("sketch"), shown, rubric)


def uv_cot_data(data: str, n: int | None = None, shown: int = 336) -> Taskset:
    """UV-CoT's questions (Visual-CoT), with a zoom into a square of the padded picture; from a file.

    Args:
        data: A .jsonl file (`viscot_363k_rlhf`) beside its pictures. Rows have `ds_question_id`, `image_path`,
            `question` and `metainfos.reference`, which may be empty: preference data needs no answer, accuracy does.
        n: How many tasks, from the first; all by default.
        shown: The model sees pictures at most so many pixels wide or high.
    """

    def read(row: Row, store: BlobStore) -> Task | None:
        about = cast(dict[str, Any], row.get("metainfos", default={}) or {})
        if not str(about.get("reference") or "").strip():
            return None
        images = images_of(row, "image_path", store=store)
        prompt = [Message(role="user", content=placed(row.text("question"), images, row.where))]
        return _task(row, prompt, str(about["reference"]), id=str(row.get("ds_question_id", default="")))

    def tools(gallery: Gallery) -> tuple[Sequence[Tool], Sequence[Closable]]:
        return image_tools(gallery, "image_zoom_in_tool", convention="unit_square_padded", zoom=UV_COT), ()

    return _taskset("uv_cot_data", data, n, read, tools, shown, rubric_of(correct(_whole, same_answer), _whole))


def same_answer(given: str, expected: Any) -> bool:
    """Whether an answer is equal: as a number where both are, else as SQuAD compares words; also one of several.

    >>> same_answer("Red.", "red"), same_answer("12.0", "12"), same_answer("(B)", "B"), same_answer("b", ["a", "b"])
    (True, True, True, True)
    """
    if isinstance(expected, list):
        return any(same_answer(given, one) for one in cast(list[Any], expected))
    right = str(expected)
    if parse_number(right) is not None and parse_number(given) is not None:
        return same_number(given, right)
    return exact_match(given, right) == 1.0


def _taskset(
    name: str,
    data: str,
    n: int | None,
    read: Callable[[Row, BlobStore], Task | None],
    tools: Tools,
    shown: int,
    rubric: Rubric,
) -> Taskset:
    store, budget = image_store(), ImageBudget(max_pixels=shown * shown, max_side=shown)
    if n is not None and n < 1:
        raise ConfigError(f"n is {n}; a taskset needs at least 1 task")
    tasks = list(_first(n, _rows(data), read, store))
    if not tasks:
        raise ConfigError(f"{data} holds no rows of {name}")

    def env(task: Task) -> Env:
        gallery = Gallery(store, budget)
        given, held = tools(gallery)
        return ToolEnv(task=task, tools=given, resources=held, gallery=gallery)

    return Taskset(name=name, tasks=tasks, env=env, rubric=rubric, blobs=store)


def _named(*names: str) -> Tools:
    return lambda gallery: (image_tools(gallery, *names), ())


def _rows(data: str) -> Iterator[Row]:
    path = Path(data).expanduser()
    if not path.exists():
        raise ConfigError(
            f"there is no data {data}",
            hint="its pictures are needed too: `hf download --repo-type dataset`, then its path",
        )
    return read_rows(path)


def _first(
    n: int | None, rows: Iterator[Row], read: Callable[[Row, BlobStore], Task | None], store: BlobStore
) -> Iterator[Task]:
    count = 0
    for row in rows:
        if count == n:
            return
        task = read(row, store)
        if task is not None:
            count += 1
            yield task


def _task(row: Row, prompt: Sequence[Message], answer: Any, id: str = "", **info: Any) -> Task:
    return Task(id=id or row.where.replace(", row ", "-"), prompt=tuple(prompt), answer=answer, info=info)


def _text_of(value: Any, row: Row) -> str:
    """A ground truth as text: it may be text, a number, bytes, or JSON of one of them."""
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode("utf-8", "replace")
    if value is None or not str(value).strip():
        raise ConfigError(f"{row.where}: the answer is empty")
    return str(value).strip()


def _counted(kind: str, stated: str) -> Any:
    """ReasonMap-Plus' answers: 1 and 0 for yes and no; a number; of `counting1`, the place of an option as a letter."""
    if kind.startswith("torf"):
        return {"1": "yes", "0": "no", "true": "yes", "false": "no"}.get(stated.lower(), stated.lower())
    if kind == "counting1" and stated.isdecimal() and int(stated) < 4:
        return "abcd"[int(stated)]
    return int(stated) if stated.isdecimal() else stated.lower()


def _map_right(text: str, expected: Any) -> bool:
    if isinstance(expected, dict):
        asked = cast(dict[str, Any], expected)
        return routes.is_right(text, asked["lines"], asked["from"], asked["to"])
    given = boxed(text)
    if given is None:
        return False
    given = re.sub(r"\\text\{(.*)\}", r"\1", given).strip().rstrip(".")
    return same_number(given, expected) if isinstance(expected, int) else given.casefold() == expected


def _whole(text: str) -> str | None:
    """The answer where a model was not asked for a form: in tags, or else all it said."""
    return tagged(text) or text.strip() or None


def _relaxed(given: str, expected: Any) -> bool:
    return relaxed_equal(given, str(expected))
