from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tools import ConfigError
from tools.image import ImageBudget

side = st.integers(1, 20_000)


@st.composite
def budgets(draw: st.DrawFn) -> ImageBudget:
    step = draw(st.sampled_from([1, 2, 14, 28]))
    most = draw(st.integers(step * step, 4_000_000))
    least_side = draw(st.integers(1, math.isqrt(most)))
    return ImageBudget(
        max_pixels=most,
        min_pixels=draw(st.integers(1, most)),
        min_side=least_side,
        max_side=draw(st.none() | st.integers(max(least_side, step), 5000)),
        multiple_of=step,
    )


@given(side, side, st.data())
def test_limits_hold_for_every_picture_and_twice_is_once(width: int, height: int, data: st.DataObject):
    try:
        budget = data.draw(budgets())
    except ConfigError:
        assume(False)
        raise  # `assume` has raised
    wide, high = budget.shown_size(width, height)
    assert wide * high <= budget.max_pixels and max(wide, high) <= (budget.max_side or math.inf)
    assert wide % budget.multiple_of == 0 == high % budget.multiple_of and min(wide, high) >= budget.multiple_of
    assert budget.shown_size(wide, high) == (wide, high)


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_a_picture_within_the_limits_is_shown_as_it_is(width: int, height: int):
    assert ImageBudget(max_pixels=16_000_000).shown_size(width, height) == (width, height)


@given(st.integers(28, 6000), st.integers(28, 6000))
def test_proportions_are_kept_within_a_pixel(width: int, height: int):
    wide, high = ImageBudget(max_pixels=250_000).shown_size(width, height)
    assume(min(wide, high) > 20)
    assert wide / high == pytest.approx(width / height, rel=1.01 / min(wide, high) + 1 / max(wide, high))


def smart_resize(height: int, width: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """The rule of Qwen2-VL's image processor, written from its description; a whole number of patches is one, whatever
    the last bit of a float says."""
    near = 1e-9
    high, wide = round(height / factor) * factor, round(width / factor) * factor
    if high * wide > most:
        shrink = math.sqrt(height * width / most)
        high = max(factor, math.floor(height / shrink / factor + near) * factor)
        wide = max(factor, math.floor(width / shrink / factor + near) * factor)
    elif high * wide < least:
        grow = math.sqrt(least / (height * width))
        high, wide = (math.ceil(length * grow / factor - near) * factor for length in (height, width))
    return high, wide


@given(st.integers(28, 6000), st.integers(28, 6000))
def test_with_patches_it_is_the_rule_of_qwens_processor(width: int, height: int):
    assume(max(width, height) / min(width, height) < 20)
    budget = ImageBudget(max_pixels=1_003_520, min_pixels=3136, multiple_of=28)
    assert budget.shown_size(width, height) == smart_resize(height, width, 28, 3136, 1_003_520)[::-1]


def test_worked_sizes():
    assert ImageBudget(max_pixels=10_000).shown_size(200, 200) == (100, 100)
    assert ImageBudget(min_side=28).shown_size(10, 20) == (28, 56)
    assert ImageBudget(max_side=512).shown_size(1024, 256) == (512, 128)
    assert ImageBudget(min_pixels=65_536).shown_size(128, 128) == (256, 256)
    assert ImageBudget(max_pixels=100).shown_size(10_000, 1) == (100, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_pixels": 0},
        {"min_side": 0},
        {"multiple_of": 0},
        {"max_images": 0},
        {"max_pixels": 100, "min_side": 11},
        {"max_side": 20, "multiple_of": 28},
        {"min_pixels": 2_000_000},
    ],
)
def test_limits_that_no_picture_can_keep_are_refused(wrong: dict[str, int]):
    with pytest.raises(ConfigError):
        ImageBudget(**wrong)


def test_two_budgets_at_once_keep_both():
    both = ImageBudget(max_pixels=90_000, multiple_of=4, max_images=5).also(
        ImageBudget(min_side=28, multiple_of=6, max_side=600)
    )
    assert both == ImageBudget(max_pixels=90_000, min_side=28, max_side=600, multiple_of=12, max_images=5)
