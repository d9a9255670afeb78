from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tools import ToolError
from tools.image import BoxRule, Convention, from_pixels, read_box, read_point, to_pixels
from tools.image.coordinates import CONVENTIONS, Box, scaled

sizes = st.tuples(st.integers(1, 9000), st.integers(1, 9000))
conventions = st.sampled_from(CONVENTIONS)


@st.composite
def pixel_boxes(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """A size, and whole pixels of it."""
    width, height = draw(sizes)
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
    return (width, height), (left, top, right, bottom)


def written(box: tuple[int, int, int, int], convention: Convention, size: tuple[int, int]) -> list[float]:
    return [*from_pixels(box[:2], convention, size), *from_pixels(box[2:], convention, size)]


@given(st.integers(0, 9000), st.integers(0, 9000), sizes, conventions)
def test_a_point_comes_back_within_a_billionth_of_a_pixel(
    x: int, y: int, size: tuple[int, int], convention: Convention
):
    back = to_pixels(from_pixels((x, y), convention, size), convention, size)
    assert back == pytest.approx((x, y), abs=1e-9 * max(x, y, *size))


@given(pixel_boxes(), conventions)
def test_whole_pixels_written_in_any_convention_cut_exactly_those_pixels(
    case: tuple[tuple[int, int], tuple[int, int, int, int]], convention: Convention
):
    size, box = case
    read = read_box(written(box, convention, size), "bbox_2d", convention, size, BoxRule(clamp=False, max_aspect=1e9))
    assert scaled(read, size, (0, 0, *size)) == box


@given(pixel_boxes(), st.integers(1, 12), st.integers(0, 50), st.integers(0, 50))
def test_a_box_shown_small_cuts_the_pixels_behind_it(
    case: tuple[tuple[int, int], tuple[int, int, int, int]], times: int, left: int, top: int
):
    """A picture shown at 1/times of its size: each pixel shown is times x times of the original, from its corner on."""
    (width, height), box = case
    part = (left, top, left + width * times, top + height * times)
    expected = (left + box[0] * times, top + box[1] * times, left + box[2] * times, top + box[3] * times)
    assert scaled(tuple(map(float, box)), (width, height), part) == expected  # pyright: ignore[reportArgumentType]


@given(
    st.lists(st.floats(-2, 3), min_size=4, max_size=4), sizes, st.sampled_from(["unit", "unit_square_padded"]), sizes
)
def test_whatever_box_is_taken_lies_within_the_picture_and_has_pixels(
    box: list[float], size: tuple[int, int], convention: Convention, full: tuple[int, int]
):
    try:
        read = read_box(box, "bbox_2d", convention, size, BoxRule(max_aspect=1e9))
    except ToolError:
        return
    assert 0 <= read[0] < read[2] <= size[0] and 0 <= read[1] < read[3] <= size[1]
    left, top, right, bottom = scaled(read, size, (0, 0, *full))
    assert 0 <= left < right <= full[0] and 0 <= top < bottom <= full[1]


def test_a_cut_takes_every_pixel_the_box_touches():
    assert scaled((10.5, 0.2, 20.1, 9.0), (100, 50), (0, 0, 100, 50)) == (10, 0, 21, 9)
    nearly: Box = (10.0000001, 9.9999999, 20.0000001, 19.9999999)
    assert scaled(nearly, (100, 50), (0, 0, 100, 50)) == (10, 10, 20, 20)


def test_the_shorter_side_is_padded_on_both_ends():
    assert to_pixels((0, 0), "unit_square_padded", (400, 200)) == (0, -100)
    assert to_pixels((1, 0.75), "unit_square_padded", (400, 200)) == (400, 200)
    assert to_pixels((0.25, 1), "unit_square_padded", (200, 400)) == (0, 400)


BAD: list[tuple[Any, str]] = [
    ([math.nan, 0, 10, 10], "nan is no number"),
    ([0, 0, math.inf, 10], "inf is too large"),
    ([0, 0, 10**400, 10], "is too large"),
    (["0", 0, 10, 10], "'0' is no number"),
    ([True, 0, 10, 10], "True is no number"),
    ([None, 0, 10, 10], "None is no number"),
    ("0,0,10,10", "must be four numbers"),
    (None, "must be four numbers"),
    ({"x": 1}, "must be four numbers"),
    ([0, 0, 10], "not 3 values"),
    ([0, 0, 10, 10, 1], "not 5 values"),
    ([[0, 0], [10, 10]], "not 2 values"),
    ([50, 0, 10, 10], "is inverted"),
    ([0, 50, 10, 10], "is inverted"),
    ([10, 10, 10, 40], "has no area"),
    ([0, 0, 0, 0], "has no area"),
    ([640, 0, 700, 10], "lies outside"),
    ([-50, -50, 0, 0], "lies outside"),
    ([1e8, 1e8, 2e8, 2e8], "lies outside"),
]


@pytest.mark.parametrize(("box", "wrong"), BAD)
def test_a_box_that_cannot_be_says_what_was_wrong(box: Any, wrong: str):
    with pytest.raises(ToolError, match="bbox_2d") as error:
        read_box(box, "bbox_2d", "pixel", (640, 480))
    assert wrong in str(error.value)


@pytest.mark.parametrize(
    ("convention", "valid"),
    [("pixel", "0 to 640 and y from 0 to 480"), ("unit", "0 to 1,"), ("per_mille", "0 to 1000,")],
)
def test_a_refusal_names_the_valid_range(convention: Convention, valid: str):
    for rule, box in ((None, [5000, 5000, 6000, 6000]), (BoxRule(clamp=False), [-1, 0, 1000, 1000])):
        with pytest.raises(ToolError, match=valid):
            read_box(box, "bbox_2d", convention, (640, 480), rule)


def test_clamping_cuts_a_box_off_at_the_edge_and_its_absence_refuses_it():
    assert read_box([-10, 20, 700, 5000], "bbox_2d", "pixel", (640, 480)) == (0, 20, 640, 480)
    with pytest.raises(ToolError, match="reaches outside"):
        read_box([-10, 20, 700, 5000], "bbox_2d", "pixel", (640, 480), BoxRule(clamp=False))


def test_rules_of_side_and_aspect_are_those_of_the_box_after_clamping():
    rule = BoxRule(min_side=30, max_aspect=10)
    assert read_box([0, 0, 30, 30], "bbox_2d", "pixel", (640, 480), rule) == (0, 0, 30, 30)
    with pytest.raises(ToolError, match="29 x 100 pixels; each side must be at least 30"):
        read_box([611, 0, 720, 100], "bbox_2d", "pixel", (640, 480), rule)
    with pytest.raises(ToolError, match="at most 10 times"):
        read_box([0, 0, 400, 39], "bbox_2d", "pixel", (640, 480), rule)


def test_a_long_wrong_value_is_quoted_in_part():
    with pytest.raises(ToolError) as error:
        read_box("x" * 100_000, "bbox_2d", "pixel", (640, 480))
    assert len(str(error.value)) < 200


@given(st.floats(-3, 3), st.floats(-3, 3), sizes, conventions)
@example(1.0, 1.0, (640, 480), "unit")
def test_a_point_is_within_the_picture_or_refused(x: float, y: float, size: tuple[int, int], convention: Convention):
    px, py = read_point([x, y], "start", convention, size)
    assert 0 <= px <= size[0] and 0 <= py <= size[1]
    try:
        assert read_point([x, y], "start", convention, size, clamp=False) == (px, py)
    except ToolError as error:
        assert "lies outside the picture" in str(error)
