"""What a model is told of a tool that takes pictures and coordinates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import CodeType
from typing import Any

from tools.image.coordinates import Convention
from tools.schema import JSONSchema, schema_of
from tools.tool import Tool, ToolResult

COORDINATES: Mapping[Convention, str] = {
    "pixel": "in pixels of the image as shown",
    "unit": "as shares of the image's width and height, from 0 to 1",
    "per_mille": "in thousandths of the image's width and height, from 0 to 1000",
    "unit_square_padded": "as shares of the image padded to a square, from 0 to 1",
}
NUMBER = "The image's number, counted from 1."


def described(
    fn: Callable[..., Awaitable[ToolResult]],
    name: str,
    about: str,
    arguments: Mapping[str, str | JSONSchema],
    slots: AbstractAsyncContextManager[Any] | None = None,
) -> Tool:
    """`fn` as a tool: the schema from its signature, the words, which depend on the convention, as given.

    An argument that is given a schema has that one.
    """
    schema = _schema(fn)
    told: dict[str, JSONSchema] = {}
    for key, found in schema.get("properties", {}).items():
        about_it = arguments[key]
        told[key] = {**found, "description": about_it} if isinstance(about_it, str) else about_it
    return Tool(name=name, description=about, parameters={**schema, "properties": told}, fn=fn, slots=slots)


def _schema(fn: Callable[..., Awaitable[ToolResult]]) -> JSONSchema:
    """Made once for each tool and not for each episode's, which differ in what they close over alone."""
    if fn.__code__ not in _schemas:
        _schemas[fn.__code__] = schema_of(fn)[1]
    return _schemas[fn.__code__]


_schemas: dict[CodeType, JSONSchema] = {}
