"""From a function's signature to the JSON schema a model is shown, and back: checking what the model wrote."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final, get_type_hints

if TYPE_CHECKING:
    from jsonschema import ValidationError

# pydantic, jsonschema and docstring-parser are imported where they are used: they are half of a command line's start.

JSONSchema: TypeAlias = Mapping[str, Any]


def schema_of(fn: Callable[..., Any]) -> tuple[str, JSONSchema]:
    """The description and parameter schema of `fn`, from its annotations and docstring.

    >>> def zoom(box: list[int], label: str = "") -> str:
    ...     '''Crop a region and enlarge it.
    ...
    ...     Args:
    ...         box: Left, top, right, bottom, in pixels.
    ...     '''
    >>> description, schema = schema_of(zoom)
    >>> description
    'Crop a region and enlarge it.'
    >>> schema["required"], schema["properties"]["box"]["description"]
    (['box'], 'Left, top, right, bottom, in pixels.')

    Raises `TypeError` for a parameter without an annotation, or of a type that JSON cannot carry.
    """
    import docstring_parser
    import pydantic

    name = getattr(fn, "__name__", repr(fn))
    doc = docstring_parser.parse(inspect.getdoc(fn) or "")
    described = {p.arg_name: (p.description or "").strip() for p in doc.params}
    hints = get_type_hints(fn, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"tool {name}: *{parameter.name} cannot be described to a model; name each argument")
        if parameter.name not in hints:
            raise TypeError(f"tool {name}: argument {parameter.name} needs a type annotation")
        default = ... if parameter.default is parameter.empty else parameter.default
        field = pydantic.Field(default, description=described.get(parameter.name) or None)
        fields[parameter.name] = (hints[parameter.name], field)
    try:
        model = pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)
        schema = _without_titles(model.model_json_schema())
    except pydantic.errors.PydanticUserError as error:
        raise TypeError(f"tool {name}: its arguments cannot be written as JSON: {error.message}") from error
    schema.pop("description", None)
    text = " ".join(part.strip() for part in (doc.short_description, doc.long_description) if part)
    return text, schema


def problem_with(arguments: Mapping[str, Any], schema: JSONSchema) -> str | None:
    """What is wrong with `arguments`, in a sentence a model can act on, or None.

    >>> problem_with({"box": "left"}, {"type": "object", "properties": {"box": {"type": "array"}}})
    "box: 'left' is not of type 'array'"
    """
    key = _Identity(schema)
    plain = _plain(key)
    if plain is not None:
        types, required = plain
        if required <= arguments.keys() and all(
            type(value) in types.get(name, ()) for name, value in arguments.items()
        ):
            return None
    found = cast("Iterable[ValidationError]", _validator(key).iter_errors(dict(arguments)))
    errors = sorted(found, key=lambda e: list(map(str, e.absolute_path)))
    if not errors:
        return None
    where = ".".join(map(str, errors[0].absolute_path))
    return f"{where}: {errors[0].message}" if where else errors[0].message


@final
class _Identity:
    """A schema as a key: the same object, not an equal one, as comparing schemas costs more than it saves."""

    __slots__ = ("schema",)

    def __init__(self, schema: JSONSchema) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.schema is self.schema


_SCALARS: Mapping[object, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_SAID = frozenset({"type", "description", "default"})
"""What the schemas of most arguments hold; of these `type` alone asks for something."""


@functools.lru_cache(maxsize=256)
def _plain(key: _Identity) -> tuple[Mapping[str, tuple[type, ...]], frozenset[str]] | None:
    """For a schema of named scalars: the types of each, and the names that must be there. None for any other schema.

    Most tools have such a schema and most calls fit it, which can be seen without the validator.
    """
    schema = key.schema
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    if set(schema) - {"type", "properties", "required", "additionalProperties"} or schema.get("type") != "object":
        return None
    if schema.get("additionalProperties") is not False or any(set(one) - _SAID for one in properties.values()):
        return None
    if any(not isinstance(one.get("type"), str) or one["type"] not in _SCALARS for one in properties.values()):
        return None
    return {name: _SCALARS[one["type"]] for name, one in properties.items()}, frozenset(schema.get("required", ()))


@functools.lru_cache(maxsize=256)
def _validator(key: _Identity) -> Any:
    """Made once a tool: making one costs more than using it, and there is a call in almost every turn."""
    import jsonschema

    return jsonschema.Draft202012Validator(key.schema)


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop pydantic's generated titles: tokens in every prompt that tell a model nothing."""
    cleaned: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key in ("properties", "$defs"):
            cleaned[key] = {name: _without_titles(sub) for name, sub in value.items()}
        elif isinstance(value, dict):
            cleaned[key] = _without_titles(value)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, list):
            cleaned[key] = [_without_titles(v) if isinstance(v, dict) else v for v in value]  # pyright: ignore
        else:
            cleaned[key] = value
    return cleaned
