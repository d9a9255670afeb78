"""Trajectories as JSON values and back: schema 1 of the log, by hand, so that no class can change it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from envs.message import Message
from envs.task import Task
from envs.trajectory import CallRecord, PlacedImage, Span, Step, StepTokens, Stop, Trajectory
from tools.content import Content, Image, Text
from tools.errors import ConfigError
from tools.record import record
from tools.tool import Tool, ToolCall, ToolResult

SCHEMA_VERSION = 1
MAX_DEPTH = 100
"""Nesting of one logged value; Python's own JSON reader gives up below a thousand."""

Json: TypeAlias = dict[str, Any]


@record
class LoggedFn:
    """Stands where a logged tool's function was."""

    name: str

    async def __call__(self, **arguments: Any) -> ToolResult:
        raise ConfigError(
            f"tool {self.name} was read from a log and cannot run", hint="build its taskset again to run it"
        )


def to_json(trajectory: Trajectory) -> Json:
    """`trajectory` as JSON values. Raises `ConfigError`, naming the place, for a value that JSON cannot carry."""
    t = trajectory
    where = f"task {t.task.id}"
    return {
        "schema_version": SCHEMA_VERSION,
        "task": _task(t.task),
        "sample": t.sample,
        "seed": t.seed,
        "stop": t.stop.value if t.stop else None,
        "reward": plain(t.reward, f"{where}: reward"),
        "scores": plain(t.scores, f"{where}: scores"),
        "error": t.error,
        "seconds": plain(t.seconds, f"{where}: seconds"),
        "info": plain(t.info, f"{where}: info"),
        "tools": [_tool(tool) for tool in t.tools],
        "steps": [_step(step, f"{where}: step {index}") for index, step in enumerate(t.steps)],
        "final": [_message(message, where) for message in t.final],
    }


def from_json(value: Mapping[str, Any]) -> Trajectory:
    """The trajectory that `to_json` wrote, by this version or an earlier one.

    Raises `ConfigError` for a newer schema; `KeyError`, `TypeError` or `ValueError` for a value that is no trajectory.
    """
    version = value["schema_version"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"schema_version is {version!r}")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"the log has schema {version}; this version of toolweave reads up to {SCHEMA_VERSION}",
            hint="update toolweave to read it",
        )
    return Trajectory(
        task=_task_from(value["task"]),
        tools=tuple(_tool_from(tool) for tool in value["tools"]),
        steps=[_step_from(step) for step in value["steps"]],
        final=_messages_from(value["final"]),
        stop=Stop(value["stop"]) if value["stop"] is not None else None,
        error=value["error"],
        scores={name: float(score) for name, score in restored(value["scores"]).items()},
        reward=None if value["reward"] is None else float(restored(value["reward"])),
        sample=value["sample"],
        seed=value["seed"],
        seconds=float(restored(value["seconds"])),
        info=restored(value["info"]),
    )


def message_to_json(message: Message) -> Json:
    """One message, for whoever logs more finely than by episode. Raises `ConfigError` as `to_json` does."""
    return _message(message, "message")


def message_from_json(value: Json) -> Message:
    """The message that `message_to_json` wrote."""
    return _messages_from([value])[0]


def step_to_json(step: Step) -> Json:
    """One step, as it stands in an episode."""
    return _step(step, "step")


def step_from_json(value: Json) -> Step:
    """The step that `step_to_json` wrote."""
    return _step_from(value)


def call_to_json(done: CallRecord) -> Json:
    """One call with its result, as it stands in a step."""
    return _record(done, "call")


def call_from_json(value: Json) -> CallRecord:
    """The call that `call_to_json` wrote."""
    return _record_from(value)


class TooDeep(ConfigError):
    """A value nested deeper than a log keeps."""


def plain(value: Any, where: str, depth: int = MAX_DEPTH) -> Any:
    """`value` in JSON's own types: mappings as dicts, tuples as lists.

    Floats that JSON lacks become `{"$float": "nan"}`, since a model may well write NaN in its arguments. Raises
    `ConfigError` for anything else that JSON cannot carry, and for what is nested more than `depth` deep.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if depth == 0:
        raise TooDeep(f"{where.partition('[')[0]} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        wrong = next((key for key, _ in items if not isinstance(key, str)), None)
        if wrong is not None:
            raise ConfigError(f"{where} has the key {wrong!r}; JSON keys are strings")
        return {key: plain(item, f"{where}.{key}", depth - 1) for key, item in items}
    if isinstance(value, list | tuple):
        parts = enumerate(cast("list[Any]", value))
        return [plain(item, f"{where}[{index}]", depth - 1) for index, item in parts]
    raise ConfigError(
        f"{where} holds a {type(value).__name__}, which JSON cannot carry", hint="use text, numbers, lists and dicts"
    )


def restored(value: Any) -> Any:
    """What `plain` wrote, with its special floats back."""
    if isinstance(value, list):
        return [restored(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        if value.keys() == {"$float"} and value["$float"] in ("nan", "inf", "-inf"):
            return float(value["$float"])
        return {key: restored(item) for key, item in cast("Json", value).items()}
    return value


def _task(task: Task) -> Json:
    where = f"task {task.id}"
    return {
        "id": task.id,
        "prompt": [_message(message, where) for message in task.prompt],
        "answer": plain(task.answer, f"{where}: answer"),
        "gold": [_message(message, where) for message in task.gold],
        "info": plain(task.info, f"{where}: task info"),
    }


def _task_from(value: Json) -> Task:
    return Task(
        id=value["id"],
        prompt=_messages_from(value["prompt"]),
        answer=restored(value["answer"]),
        gold=_messages_from(value["gold"]),
        info=restored(value["info"]),
    )


def _tool(tool: Tool) -> Json:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": plain(tool.parameters, f"tool {tool.name}: parameters"),
        "parallel_safe": tool.parallel_safe,
    }


def _tool_from(value: Json) -> Tool:
    return Tool(
        name=value["name"],
        description=value["description"],
        parameters=restored(value["parameters"]),
        fn=LoggedFn(name=value["name"]),
        parallel_safe=value["parallel_safe"],
    )


def _contents(parts: tuple[Content, ...]) -> list[Json]:
    return [
        {"text": part.text}
        if isinstance(part, Text)
        else {"image": part.sha256, "media_type": part.media_type, "width": part.width, "height": part.height}
        for part in parts
    ]


def _contents_from(values: list[Json]) -> tuple[Content, ...]:
    return tuple(
        Text(text=part["text"])
        if "text" in part
        else Image(sha256=part["image"], media_type=part["media_type"], width=part["width"], height=part["height"])
        for part in values
    )


def _message(message: Message, where: str) -> Json:
    """Fields that hold nothing are left out: most messages are a role and a text."""
    value: Json = {"role": message.role, "content": _contents(message.content)}
    if message.reasoning is not None:
        value["reasoning"] = message.reasoning
    if message.tool_calls:
        value["tool_calls"] = [_call(call, where) for call in message.tool_calls]
    if message.tool_call_id is not None:
        value["tool_call_id"] = message.tool_call_id
    return value


def _messages_from(values: list[Json]) -> tuple[Message, ...]:
    return tuple(
        Message(
            role=value["role"],
            content=_contents_from(value["content"]),
            reasoning=value.get("reasoning"),
            tool_calls=tuple(_call_from(call) for call in value.get("tool_calls", ())),
            tool_call_id=value.get("tool_call_id"),
        )
        for value in values
    )


def _call(call: ToolCall, where: str) -> Json:
    value: Json = {"id": call.id, "name": call.name, "raw": call.raw, "arguments": None, "error": call.error}
    try:
        value["arguments"] = plain(call.arguments, f"{where}: arguments of call {call.id}")
    except TooDeep:  # a model wrote them, and its writing must not stop a run; `raw` holds them all
        value["error"] = call.error or f"The arguments are nested more than {MAX_DEPTH} deep."
    return value


def _call_from(value: Json) -> ToolCall:
    return ToolCall(
        id=value["id"],
        name=value["name"],
        raw=value["raw"],
        arguments=restored(value["arguments"]),
        error=value["error"],
    )


def _step(step: Step, where: str) -> Json:
    return {
        "observation": [_message(message, where) for message in step.observation],
        "action": _message(step.action, where),
        "calls": [_record(call, where) for call in step.calls],
        "finish": step.finish,
        "tokens": _tokens(step.tokens) if step.tokens else None,
        "policy_version": step.policy_version,
        "seconds": plain(step.seconds, f"{where}: seconds"),
        "usage": plain(step.usage, f"{where}: usage"),
    }


def _step_from(value: Json) -> Step:
    return Step(
        observation=_messages_from(value["observation"]),
        action=_messages_from([value["action"]])[0],
        calls=tuple(_record_from(call) for call in value["calls"]),
        finish=value["finish"],
        tokens=_tokens_from(value["tokens"]) if value["tokens"] is not None else None,
        policy_version=value["policy_version"],
        seconds=restored(value["seconds"]),
        usage=restored(value["usage"]),
    )


def _record(done: CallRecord, where: str) -> Json:
    result = done.result
    return {
        "call": _call(done.call, where),
        "result": {
            "content": _contents(result.content),
            "is_error": result.is_error,
            "stop": result.stop,
            "data": plain(result.data, f"{where}: data of call {done.call.id}"),
        },
        "outcome": done.outcome,
        "seconds": plain(done.seconds, f"{where}: seconds"),
    }


def _record_from(value: Json) -> CallRecord:
    result = value["result"]
    return CallRecord(
        call=_call_from(value["call"]),
        result=ToolResult(
            content=_contents_from(result["content"]),
            is_error=result["is_error"],
            stop=result["stop"],
            data=restored(result["data"]),
        ),
        outcome=value["outcome"],
        seconds=restored(value["seconds"]),
    )


def _tokens(tokens: StepTokens) -> Json:
    value: Json = {
        "added": list(tokens.added),
        "completion": list(tokens.completion),
        # A diverged model's log-probs are evidence too: what is not finite is written as text.
        "logprobs": [p if math.isfinite(p) else str(p) for p in tokens.logprobs],
        "extends": tokens.extends,
        "spans": [[span.start, span.end, span.source] for span in tokens.spans],
        "images": [[image.sha256, *image.shown_size, image.position] for image in tokens.images],
        "forced": tokens.forced,
    }
    if tokens.inserted:
        value["inserted"] = [list(stretch) for stretch in tokens.inserted]
    return value


def _tokens_from(value: Json) -> StepTokens:
    return StepTokens(
        added=tuple(value["added"]),
        completion=tuple(value["completion"]),
        logprobs=tuple(float(p) for p in value["logprobs"]),
        extends=value["extends"],
        spans=tuple(Span(start=start, end=end, source=source) for start, end, source in value["spans"]),
        images=tuple(
            PlacedImage(sha256=sha256, shown_size=(width, height), position=position)
            for sha256, width, height, position in value["images"]
        ),
        forced=value["forced"],
        inserted=tuple((start, end) for start, end in value.get("inserted", ())),
    )
