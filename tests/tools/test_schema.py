from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Optional

import jsonschema
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.schema import problem_with, schema_of


class Side(StrEnum):
    LEFT = "left"
    RIGHT = "right"


def full(
    box: list[int],
    side: Side,
    mode: Literal["fast", "slow"] = "fast",
    label: str | None = None,
    scale: Annotated[float, pydantic.Field(gt=0, le=8)] = 1.0,
    tags: Optional[dict[str, int]] = None,  # noqa: UP045 - written the old way on purpose
) -> str:
    """Crop a region.

    The region is enlarged.

    Args:
        box: Left, top, right, bottom.
        side: Where to look.

    Returns:
        Never shown to a model.
    """
    return ""


def test_a_signature_and_its_docstring_become_what_the_model_is_shown():
    description, schema = schema_of(full)
    assert description == "Crop a region. The region is enlarged."
    jsonschema.Draft202012Validator.check_schema(dict(schema))
    assert schema["required"] == ["box", "side"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["box"] == {
        "items": {"type": "integer"},
        "type": "array",
        "description": "Left, top, right, bottom.",
    }
    assert properties["mode"] == {"default": "fast", "enum": ["fast", "slow"], "type": "string"}
    assert (properties["scale"]["exclusiveMinimum"], properties["scale"]["maximum"]) == (0, 8)
    assert "title" not in json.dumps(schema)


def test_an_argument_called_title_is_kept():
    def name_it(title: str) -> str:
        return title

    assert schema_of(name_it)[1]["properties"] == {"title": {"type": "string"}}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"box": [1], "side": "left"}, None),
        ({"box": [1], "side": "right", "label": None, "scale": 2, "tags": {"a": 1}}, None),
        ({"side": "left"}, "'box' is a required property"),
        ({"box": [1, "x"], "side": "left"}, "box.1: 'x' is not of type 'integer'"),
        ({"box": [1], "side": "up"}, "side: 'up' is not one of"),
        ({"box": [1], "side": "left", "scale": 9}, "scale: 9 is greater than the maximum of 8"),
        ({"box": [1], "side": "left", "colour": "red"}, "'colour' was unexpected"),
        ({}, "is a required property"),
    ],
)
def test_arguments_that_do_not_fit_get_a_sentence_that_names_the_place(
    arguments: dict[str, Any], complaint: str | None
):
    problem = problem_with(arguments, schema_of(full)[1])
    assert problem is None if complaint is None else complaint in (problem or "")


def test_signatures_that_a_model_cannot_be_told_are_refused_by_name():
    def untyped(x) -> str:  # type: ignore[no-untyped-def]
        return x

    def starred(*parts: str) -> str:
        return ""

    def strange(x: object, f: type(lambda: 0)) -> str:  # type: ignore[valid-type]
        return ""

    with pytest.raises(TypeError, match="tool untyped: argument x needs a type annotation"):
        schema_of(untyped)
    with pytest.raises(TypeError, match=r"tool starred: \*parts cannot be described"):
        schema_of(starred)
    with pytest.raises(TypeError, match="tool strange"):
        schema_of(strange)


KINDS = {int: "integer", str: "string", bool: "boolean", float: "number", list[int]: "array"}


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,6}x", fullmatch=True), st.sampled_from(list(KINDS)), max_size=5))
def test_every_typed_signature_describes_its_arguments_and_accepts_them(signature: dict[str, Any]):
    namespace: dict[str, Any] = {}
    arguments = ", ".join(signature)
    exec(f"def f({arguments}): pass", namespace)
    fn = namespace["f"]
    fn.__annotations__ = dict(signature)
    schema = schema_of(fn)[1]
    assert {name: spec["type"] for name, spec in schema["properties"].items()} == {
        name: KINDS[kind] for name, kind in signature.items()
    }
    samples: dict[Any, Any] = {int: 3, str: "s", bool: True, float: 0.5, list[int]: [1, 2]}
    assert problem_with({name: samples[kind] for name, kind in signature.items()}, schema) is None
    if signature:
        assert problem_with({}, schema) is not None


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just([]), st.just({}))
kinds = st.sampled_from(["string", "integer", "number", "boolean", "array", ["string", "null"]])


@given(
    st.dictionaries(st.sampled_from("abc"), kinds),
    st.sets(st.sampled_from("abc")),
    st.sampled_from([False, True, None]),
    st.dictionaries(st.sampled_from("abcd"), scalars),
)
def test_whatever_takes_the_short_way_is_what_the_validator_takes(types, required, additional, arguments):
    schema = {"type": "object", "properties": {name: {"type": kind, "default": 1} for name, kind in types.items()}}
    schema |= {"required": sorted(required)} | ({} if additional is None else {"additionalProperties": additional})
    assert (problem_with(arguments, schema) is None) == jsonschema.Draft202012Validator(schema).is_valid(arguments)
