"""From a name on a command line to a taskset: built in, from an installed package, or in a file of your own."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from envs.env import Env, WithoutTools
from envs.task import Task, Taskset
from tools.errors import ConfigError, in_one_line, nearest

GROUP = "toolweave.tasksets"
"""Packages offer tasksets under this entry point group: `name = "package.module:function"`."""

DATA_FILES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
"""A name that ends so is the taskset `rows` of that file."""

BUILT_IN = {
    "arithmetic": "envs.tasksets.arithmetic:arithmetic",
    "bfcl": "envs.tasksets.bfcl:bfcl",
    "charts": "envs.tasksets.charts:charts",
    "chartsketcher_data": "envs.tasksets.visual_data:chartsketcher_data",
    "counting": "envs.tasksets.counting:counting",
    "deepeyes_data": "envs.tasksets.visual_data:deepeyes_data",
    "geolocate": "envs.tasksets.geolocate:geolocate",
    "math_word": "envs.tasksets.math_word:math_word",
    "maze": "envs.tasksets.maze:maze",
    "retool_arithmetic": "envs.tasksets.retool:retool_arithmetic",
    "retool_math": "envs.tasksets.retool:retool_math",
    "rewardmap_data": "envs.tasksets.visual_data:rewardmap_data",
    "multimodal_search": "envs.tasksets.multimodal_search:multimodal_search",
    "search_qa": "envs.tasksets.search_qa:search_qa",
    "spatial": "envs.tasksets.spatial:spatial",
    "toy_arithmetic": "envs.tasksets.arithmetic:toy_arithmetic",
    "transit_map": "envs.tasksets.transit_map:transit_map",
    "uv_cot_data": "envs.tasksets.visual_data:uv_cot_data",
    "vilasr_data": "envs.tasksets.visual_data:vilasr_data",
    "sight": "envs.tasksets.sight:sight",
    "visual_search": "envs.tasksets.visual_search:visual_search",
    "wiki_search": "envs.tasksets.wiki_search:wiki_search",
}


IMPORTERS = {
    "openenv": "envs.importers.openenv:openenv_taskset",
    "verifiers": "envs.importers.verifiers_env:verifiers_taskset",
}
"""`verifiers:NAME`, `openenv:URL`: what makes the taskset function of an environment of another project."""


def find_taskset(name: str, args: Mapping[str, Any] | None = None) -> Taskset:
    """The taskset called `name`, built with `args`.

    `name` is a built-in (`arithmetic`), an entry point of an installed package, `path/file.py:function`,
    `package.module:function`, or a data file whose columns `args` name (`rows.parquet`). Arguments may be text, as from
    a command line: each is read as its parameter's type.

    >>> find_taskset("arithmetic", {"split": "test", "n": "3"}).tasks[2].id
    'arithmetic-test-d2-s0-2'

    Raises `ConfigError` for an unknown name, an argument that the function does not have or cannot use, and a function
    that fails or returns no usable taskset.
    """
    if name.lower().endswith(DATA_FILES):
        name, args = "rows", {"data": name, **(args or {})}
    function = _function(name)
    arguments = _arguments(name, function, args or {})
    try:
        taskset = function(**arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"taskset {name} failed: {in_one_line(error)}", hint="--debug shows the traceback") from error
    if not isinstance(taskset, Taskset):
        raise ConfigError(f"{name} returned {type(taskset).__name__}, not a Taskset")
    _refuse_bad_tasks(taskset)
    return taskset


def known_tasksets() -> dict[str, str]:
    """Every taskset that has a name, with the first line of its documentation. A broken package's line says why.

    The built-in ones are read, not imported: a list need not wait for what its tasks are made of.
    """
    described = {name: _written_doc(target) for name, target in BUILT_IN.items()}
    for name, point in _offered().items():
        if name in BUILT_IN:
            continue
        try:
            described[name] = inspect.getdoc(_function(point.value)) or ""
        except ConfigError as error:
            described[name] = f"cannot be loaded: {error}"
    return {name: described[name].strip().partition("\n")[0] for name in sorted(described)}


def hide_tools(taskset: Taskset) -> Taskset:
    """The same tasks without their tools: the control that shows what the tools are worth."""
    build = taskset.env

    def bare(task: Task) -> Env:
        return WithoutTools(build(task))

    return replace(taskset, env=bare)


def held_out(name: str) -> dict[str, str]:
    """The arguments that make `name` give its test split where it would give `train`; none where it has no such choice.

    >>> held_out("arithmetic")
    {'split': 'test'}
    """
    function = _function("rows" if name.lower().endswith(DATA_FILES) else name)
    split = inspect.signature(function).parameters.get("split")
    try:
        choices = get_args(get_type_hints(function).get("split"))
    except NameError:  # types imported for the checker only
        choices = ()
    return {"split": "test"} if split is not None and split.default == "train" and "test" in choices else {}


def _offered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _function(name: str) -> Callable[..., Any]:
    project, _, foreign = name.partition(":")
    if project in IMPORTERS and foreign:
        return _function(IMPORTERS[project])(foreign)
    where, colon, attribute = name.rpartition(":")
    if not colon:
        where, attribute = _named(name)
    try:
        module = module_of_file(where) if where.endswith(".py") else importlib.import_module(where)
    except ConfigError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{where}.".startswith(f"{error.name}."):
            raise ConfigError(f"there is no module {where}", hint="for a file, write path/file.py:function") from error
        raise ConfigError(f"{where} could not be imported: {in_one_line(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"{where} has no function {attribute!r}", hint=nearest(attribute, _functions_of(module)))
    return function


def _written_doc(target: str) -> str:
    """The docstring of a function of ours, `package.module:function`, as its file has it."""
    where, _, attribute = target.partition(":")
    file = Path(__file__).parents[1].joinpath(*where.split(".")).with_suffix(".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return ast.get_docstring(node) or ""
    return inspect.getdoc(_function(target)) or ""


def _named(name: str) -> tuple[str, str]:
    """Module and attribute of a name without a colon."""
    offered = _offered()
    target = BUILT_IN.get(name) or (offered[name].value if name in offered else None)
    if target is not None:
        where, _, attribute = target.partition(":")
        return where, attribute
    if name.endswith(".py"):
        module = module_of_file(name) if Path(name).exists() else None
        functions = _functions_of(module) if module else []
        plain = [it for it in functions if not inspect.iscoroutinefunction(getattr(module, it))]  # a reward is async
        likely = "taskset" if "taskset" in functions else (plain or ["function"])[0]
        raise ConfigError(f"taskset {name} names a file but no function", hint=f"write {name}:{likely}")
    known = nearest(name, {*BUILT_IN, *offered})
    raise ConfigError(f"there is no taskset {name!r}", hint=f"{known} (one of your own is path/file.py:function)")


def module_of_file(path: str | Path) -> ModuleType:
    """Import a file once per content. Its folder goes to the end of `sys.path`, so that it finds its neighbours.

    Raises `ConfigError` where there is no such file, or it cannot be imported.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ConfigError(f"there is no file {path}")
    digest = hashlib.sha256(str(file).encode() + b"\0" + file.read_bytes()).hexdigest()[:16]
    name = f"toolweave_file_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    sys.modules[name] = module  # dataclasses and type hints look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit) and not isinstance(error, ConfigError):
            raise ConfigError(f"{path} could not be imported: {in_one_line(error)}") from error
        raise
    return module


def _functions_of(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def _arguments(name: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, each read as its parameter's type."""
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {key: p for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for key in given:
        if key not in named and not open_ended:
            raise ConfigError(f"taskset {name} has no argument {key!r}", hint=nearest(key, named))
    missing = [key for key, p in named.items() if p.default is p.empty and key not in given]
    if missing:
        raise ConfigError(f"taskset {name} needs {', '.join(missing)}", hint=f"give it as {missing[0]}=...")
    try:
        hints = get_type_hints(function)
    except NameError:  # types imported for the checker only: pass the values on as they are
        hints = {}
    return {key: _read_as(hints[key], value, name, key) if key in hints else value for key, value in given.items()}


def _read_as(hint: Any, value: Any, name: str, key: str) -> Any:
    import pydantic

    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(hint)
    except pydantic.errors.PydanticUserError:  # a type that is not data, such as a callable's protocol
        return value
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        detail = error.errors()[0]["msg"]
        raise ConfigError(f"taskset {name}: {key}={value!r} does not fit: {detail}") from error


def _refuse_bad_tasks(taskset: Taskset) -> None:
    if len(taskset.tasks) == 0:
        raise ConfigError(f"taskset {taskset.name} has no tasks")
    seen: set[str] = set()
    for task in taskset.tasks:
        if task.id in seen:
            raise ConfigError(f"taskset {taskset.name} has two tasks with the id {task.id!r}; resume needs unique ids")
        seen.add(task.id)
