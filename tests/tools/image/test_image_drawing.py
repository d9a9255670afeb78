from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageChops

from agent.dialects.fenced import FencedActions
from agent.dialects.script import SketchScript
from tools import BlobStore, ToolError
from tools.image import Gallery, ImageBudget
from tools.image.drawing import Arrow, Circle, Dot, Label, Line, Op, Rectangle, colour_problem, drawn, printable
from tools.image.mapper import LabelledDrawings
from tools.image.sketch import MOST_COMMANDS, Command, Sketch, parsed, played, scene_ops
from tools.schema import problem_with

near = st.floats(-300, 300)
points = st.tuples(near, near)
colours = st.sampled_from(["red", "navy", "#12ab34", "white"])
widths = st.integers(1, 9)
boxes = st.tuples(points, points).map(
    lambda ends: (*map(min, *ends), *map(max, *ends))  # pyright: ignore
)
operations = st.one_of(
    st.builds(Rectangle, box=boxes, colour=colours, width=widths),
    st.builds(Line, start=points, end=points, colour=colours, width=widths),
    st.builds(Dot, at=points, radius=st.floats(0, 50), colour=colours),
    st.builds(Circle, at=points, radius=st.floats(0, 200), colour=colours, width=widths),
    st.builds(Arrow, start=points, end=points, colour=colours, width=widths),
    st.builds(Label, at=points, text=st.text(max_size=20), colour=colours, size=st.integers(8, 20)),
)
PAPER = PIL.Image.new("RGB", (160, 120), "white")


def same_at_once_and_in_two(ops: list[Op], split: int) -> None:
    in_two = drawn(drawn(PAPER, ops[:split]), ops[split:])
    assert drawn(PAPER, ops).tobytes() == in_two.tobytes()


some_ops, somewhere = st.lists(operations, max_size=12), st.integers(0, 12)


@settings(max_examples=50)
@given(some_ops, somewhere)
def test_drawn_at_once_and_one_after_the_other_are_the_same_pixels(ops: list[Op], split: int):
    same_at_once_and_in_two(ops, split)


@pytest.mark.slow
@settings(max_examples=1000)
@given(some_ops, somewhere)
def test_a_thousand_lists_drawn_at_once_and_one_after_the_other(ops: list[Op], split: int):
    same_at_once_and_in_two(ops, split)


def test_drawing_leaves_the_picture_it_draws_on_alone():
    paper = PAPER.copy()
    drawn(paper, [Dot(at=(5, 5), radius=3)])
    assert paper.tobytes() == PAPER.tobytes()


def test_each_operation_draws_where_it_says():
    ops: dict[str, tuple[Op, tuple[int, int], tuple[int, int]]] = {
        "box": (Rectangle(box=(10, 10, 50, 40), colour="red"), (10, 25), (30, 25)),
        "line": (Line(start=(0, 0), end=(100, 100), colour="red"), (50, 50), (60, 50)),
        "dot": (Dot(at=(30, 30), radius=5, colour="red"), (33, 30), (37, 30)),
        "circle": (Circle(at=(60, 60), radius=20, colour="red"), (80, 60), (60, 60)),
        "arrow": (Arrow(start=(10, 60), end=(100, 60), colour="red", width=3), (90, 66), (50, 64)),
    }
    for name, (op, on, off) in ops.items():
        picture = drawn(PAPER, [op])
        assert picture.getpixel(on) == (255, 0, 0), name
        assert picture.getpixel(off) == (255, 255, 255), name
    text = ImageChops.difference(drawn(PAPER, [Label(at=(20, 30), text="Ag", size=20)]), PAPER).getbbox()
    assert text is not None and 20 <= text[0] <= 24 and 30 <= text[1] <= 40 and text[3] <= 60


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
@settings(max_examples=30)
def test_coordinates_far_outside_cost_nothing(values: list[float]):
    a, b, c, d = values
    far = (Line(start=(a, b), end=(c, d), width=3), Circle(at=(a, b), radius=abs(c)), Dot(at=(a, b), radius=abs(d)))
    drawn(PAPER, [*far, Rectangle(box=(min(a, c), min(b, d), max(a, c), max(b, d)), width=3)])


def test_text_that_cannot_be_printed_is_drawn_without_what_cannot():
    assert printable("a\nb\t\x00c\ud800") == "a b c"
    assert len(printable("x" * 500)) == 80
    drawn(PAPER, [Label(at=(0, 0), text="\ud800\u202e💡漢字")])


@pytest.mark.parametrize("colour", ["", "reddish", "#12", "rgb(1,2)", "rgb(", "hsl(0,0)", "\x00", "a" * 10_000])
def test_a_colour_that_is_none_is_named(colour: str):
    assert "is no colour" in (colour_problem(colour) or "")


# Drawing by label.


def gallery_of(*sizes: tuple[int, int], budget: ImageBudget | None = None) -> Gallery:
    gallery = Gallery(BlobStore(), budget)
    for size in sizes:
        gallery.add(PIL.Image.new("RGB", size, "white"))
    return gallery


def boxed(index: Any, label: str, *box: float) -> dict[str, Any]:
    return {"index": index, "bbox_2d": list(box), "label": label}


def path(index: int, label: str, *ends: float) -> dict[str, Any]:
    return {"index": index, "start_point_2d": list(ends[:2]), "end_point_2d": list(ends[2:]), "label": label}


def run(tool: Any, **arguments: Any) -> Any:
    assert problem_with(arguments, tool.parameters) is None
    return asyncio.run(tool.fn(**arguments))


def test_a_label_written_again_moves_its_box_on_the_clean_image():
    gallery = gallery_of((200, 100))
    mapper, _ = LabelledDrawings(gallery).tools
    run(mapper, items=[boxed(1, "cup", 10, 10, 50, 50)])
    run(mapper, items=[boxed(1, "cup", 110, 10, 150, 50), boxed(1, "plate", 160, 60, 190, 90)])
    first, second = gallery.shown_pixels(2), gallery.shown_pixels(3)
    red, blue = (255, 0, 0), (0, 0, 255)
    assert first.getpixel((11, 30)) == red and second.getpixel((11, 30)) == (255, 255, 255)
    assert second.getpixel((111, 30)) == red and second.getpixel((161, 75)) == blue
    assert gallery.shown_pixels(1).getcolors() == [(20_000, (255, 255, 255))]


def test_one_call_touches_several_images_and_gives_them_back_in_order():
    gallery = gallery_of((90, 80), (70, 60))
    mapper, tracer = LabelledDrawings(gallery).tools
    result = run(mapper, items=[boxed(2, "a", 5, 5, 30, 30), boxed(1, "b", 5, 5, 30, 30), boxed(2, "c", 9, 9, 40, 40)])
    assert [made["index"] for made in result.data["images"]] == [3, 4] and result.data["of"] == [2, 1]
    assert [gallery.shown(3).width, gallery.shown(4).width] == [70, 90]
    run(tracer, items=[path(1, "way", 10, 60, 60, 60)])
    pixels = gallery.shown_pixels(5)
    assert pixels.getpixel((10, 60)) == (255, 0, 0) and pixels.getpixel((60, 60)) == (0, 0, 255)
    assert pixels.getpixel((35, 60)) == (0, 0, 0) and pixels.getpixel((6, 20)) == (255, 0, 0), "the box is still there"


def test_a_drawn_image_is_a_clean_one_of_its_own():
    gallery = gallery_of((90, 80))
    drawings = LabelledDrawings(gallery)
    mapper, _ = drawings.tools
    run(mapper, items=[boxed(1, "a", 5, 5, 30, 30)])
    run(mapper, items=[boxed(2, "a", 40, 40, 70, 70)])
    assert gallery.shown_pixels(3).getpixel((6, 20)) == (255, 0, 0), "part of image 2"
    assert len(drawings.ops(1)) == len(drawings.ops(2)) == 2


@pytest.mark.parametrize(
    ("items", "wrong"),
    [
        (
            [boxed(1, "a", 0, 0, 9, 9), boxed(7, "b", 0, 0, 9, 9)],
            "Item 2: There is no image 7; they are numbered 1 to 1",
        ),
        ([boxed(1, "a", 9, 9, 0, 0)], "Item 1: bbox_2d .* is inverted"),
        ([boxed(1, "a", math.nan, 0, 9, 9)], "nan is no number"),
        ([boxed(1, "a", 500, 500, 600, 600)], "x goes from 0 to 90 and y from 0 to 80"),
        ([{"index": 1, "bbox_2d": "9,9", "label": "a"}], "must be four numbers"),
        ([{"label": "a"}], "There is no image None"),
        ([], "Give 1 to 50 items"),
        ([boxed(1, str(i), 0, 0, 9, 9) for i in range(51)], "Give 1 to 50 items in one call, not 51"),
    ],
)
def test_items_that_cannot_be_drawn_are_named_and_nothing_is_drawn(items: list[Any], wrong: str):
    gallery = gallery_of((90, 80))
    drawings = LabelledDrawings(gallery)
    with pytest.raises(ToolError, match=wrong):
        asyncio.run(drawings.tools[0].fn(items=items))
    assert len(gallery) == 1 and drawings.ops(1) == ()


def test_paths_outside_the_image_are_refused_with_its_range():
    gallery = gallery_of((90, 80))
    with pytest.raises(ToolError, match=r"end_point_2d .* lies outside the picture; x goes from 0 to 90"):
        asyncio.run(LabelledDrawings(gallery).tools[1].fn(items=[path(1, "a", 0, 0, 500, 0)]))


def test_what_an_image_can_hold_is_bounded():
    gallery = gallery_of((90, 80))
    mapper, _ = LabelledDrawings(gallery).tools
    for call in range(4):
        run(mapper, items=[boxed(1, f"{call} {i}", 0, 0, 9, 9) for i in range(50)])
    with pytest.raises(ToolError, match="image 1 holds 200 labels"):
        asyncio.run(mapper.fn(items=[boxed(1, "one more", 0, 0, 9, 9)]))
    run(mapper, items=[boxed(1, "0 0", 50, 50, 60, 60)])


def test_when_there_are_enough_images_none_is_drawn():
    gallery = gallery_of((90, 80), budget=ImageBudget(max_images=2))
    drawings = LabelledDrawings(gallery)
    mapper, _ = drawings.tools
    run(mapper, items=[boxed(1, "a", 0, 0, 9, 9)])
    before = drawings.ops(1)
    with pytest.raises(ToolError, match="no more than 2"):
        asyncio.run(mapper.fn(items=[boxed(1, "b", 0, 0, 9, 9)]))
    assert drawings.ops(1) == before


def test_vilasrs_text_becomes_its_calls():
    gallery = gallery_of((90, 80))
    tools = LabelledDrawings(gallery).tools
    text = f"Action: Object Mapper\n```json\n{json.dumps([boxed(1, 'cup', 10, 10, 40, 40)])}\n```"
    (call,) = FencedActions().parse(text, tools).tool_calls
    assert call.name == tools[0].name and FencedActions().instructions(tools)
    run(tools[0], **dict(call.arguments or {}))
    assert gallery.shown_pixels(2).getpixel((11, 25)) == (255, 0, 0)


# Sketches by script.

shares = st.integers(0, 100).map(lambda n: n / 100)
ids = st.sampled_from(["a", "b", "c", "d"])


@st.composite
def scripts(draw: st.DrawFn) -> list[str]:
    """Lines that can be carried out: nothing is moved or deleted that is not there."""
    alive: set[str] = set()
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 12))):
        verb = draw(st.sampled_from(["point", "line", "circle", "rectangle", "arrow", "translate", "rotate", "delete"]))
        if verb in ("translate", "rotate", "delete"):
            if not alive:
                continue
            name = draw(st.sampled_from(sorted(alive)))
            count = {"translate": 2, "rotate": 3, "delete": 0}[verb]
            alive -= {name} if verb == "delete" else set()
            lines.append(" ".join([verb, name, *(str(draw(shares)) for _ in range(count))]))
        else:
            name = draw(ids)
            count = {"point": 2, "circle": 3}.get(verb, 4)
            alive.add(name)
            colour = draw(st.sampled_from(["", " red", " #00ff00"]))
            lines.append(" ".join([f"create_{verb}", name, *(str(draw(shares)) for _ in range(count))]) + colour)
    return lines or ["create_point a 0.5 0.5"]


def same_again_and_going_on(lines: list[str], split: int) -> None:
    whole = parsed("\n".join(lines))
    gone_on = played(whole[split:], played(whole[:split]))
    assert played(whole) == gone_on and list(played(whole)) == list(gone_on), "shapes, and which lies on top"
    again = drawn(PAPER, scene_ops(played(whole), PAPER.size))
    one_by_one = PAPER
    for op in scene_ops(gone_on, PAPER.size):
        one_by_one = drawn(one_by_one, [op])
    assert again.tobytes() == one_by_one.tobytes()


@settings(max_examples=50)
@given(scripts(), somewhere)
def test_playing_all_again_is_going_on_from_where_it_was(lines: list[str], split: int):
    same_again_and_going_on(lines, split)


@pytest.mark.slow
@settings(max_examples=1000)
@given(scripts(), somewhere)
def test_a_thousand_scripts_played_again_and_gone_on_with(lines: list[str], split: int):
    same_again_and_going_on(lines, split)


def test_a_script_grows_over_calls_and_is_drawn_on_the_untouched_image():
    gallery = gallery_of((200, 100))
    sketch = Sketch(gallery)
    run(sketch.tool, script="create_line top 0 0.2 1 0.2 red")
    result = run(sketch.tool, script="create_point p 0.5 0.8 blue\ntranslate top 0 0.4")
    assert result.data["entities"] == ["top", "p"]
    assert gallery.shown_pixels(2).getpixel((100, 20)) == (255, 0, 0)
    last = gallery.shown_pixels(3)
    assert last.getpixel((100, 20)) == (255, 255, 255) and last.getpixel((100, 60)) == (255, 0, 0)
    assert last.getpixel((100, 80)) == (0, 0, 255)
    run(sketch.tool, script="delete top\ndelete p")
    assert gallery.shown_pixels(4).tobytes() == gallery.shown_pixels(1).tobytes()


def test_worked_commands():
    """A quarter turn clockwise about (0.5, 0.5) takes (0.7, 0.5), right of it, to (0.5, 0.7), below it."""
    point = played(parsed("create_point p 0.7 0.5\nrotate p 90 0.5 0.5"))["p"]
    assert point.points[0] == pytest.approx((0.5, 0.7))
    assert played(parsed("create_circle c 0.5 0.5 0.25\ntranslate c 0.1 -0.2"))["c"].points[0] == pytest.approx(
        (0.6, 0.3)
    )
    (border, line) = scene_ops(played(parsed("create_line l 0 0 1 1 yellow")), (1000, 2000))
    assert (border.colour, border.width, line.width) == ("black", 9, 5), "0.9 % and 0.5 % of 1000"
    (border, dot) = scene_ops(played(parsed("create_point l 0 0 navy")), (1000, 2000))
    assert (border.colour, border.radius, dot.radius) == ("lightgray", 26, 20)
    (_, circle) = scene_ops(played(parsed("create_circle c 0.5 0.5 0.25")), (400, 200))
    assert isinstance(circle, Circle) and circle.at == (200, 100) and circle.radius == 50


def test_a_shape_created_again_stays_in_its_place():
    scene = played(parsed("create_point a 0 0\ncreate_point b 0 0\ncreate_circle a 0.5 0.5 0.1"))
    assert list(scene) == ["a", "b"] and scene["a"].kind == "circle"


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("", "holds no command"),
        ("  \n\n", "holds no command"),
        ("create_point a 0.5 0.5\nfill a", "Line 2: there is no command 'fill'. Commands: create_point"),
        ("import os", "there is no command 'import'"),
        ("x" * 10_000, "there is no command 'xxx"),
        ("create_point a 0.5", "Line 1: create_point takes an id and 2 numbers and perhaps a color; 2 words"),
        ("create_point a 0.5 0.5 red blue", "4 numbers|takes an id and 2 numbers"),
        ("delete", "delete takes an id"),
        ("create_point a nan 0.5", "nan is out of range"),
        ("create_point a inf 0.5", "inf is out of range"),
        ("create_point a left 0.5", "'left' is no number"),
        ("create_line a 0 0 640 480", "640 is out of range; this number of create_line goes from 0 to 1"),
        ("create_circle a 0.5 0.5 -1", "-1 is out of range"),
        ("create_point a 0.5 0.5 reddish", "Line 1: 'reddish' is no colour"),
        ("create_point a 0.5 0.5 #ff000010", "is not opaque"),
        ("translate ghost 0.1 0.1", "there is no shape 'ghost'"),
        ("create_point a 0 0\ndelete a\nrotate a 1 0 0", "there is no shape 'a'"),
        ("create_point a 0.5 0.5\nrotate a 400 0.5 0.5", "goes from -360 to 360, in degrees"),
        ("create_point a 0.5 0.5\nrotate a 40 2 0.5", "goes from 0 to 1, as shares of the image"),
        (
            "\n".join(["create_point a 0.5 0.5"] * 10_000),
            "The script has 10000 commands after 0 earlier ones; at most 500",
        ),
    ],
)
def test_a_script_that_cannot_be_played_says_why_and_draws_nothing(script: str, wrong: str):
    gallery = gallery_of((90, 80))
    sketch = Sketch(gallery)
    with pytest.raises(ToolError, match=wrong):
        asyncio.run(sketch.tool.fn(script=script))
    assert len(gallery) == 1 and sketch.commands == ()
    run(sketch.tool, script="create_point a 0.5 0.5")
    assert len(gallery) == 2


def test_commands_are_counted_over_the_episode():
    sketch = Sketch(gallery_of((90, 80)))
    sketch.draw("\n".join(["create_point a 0.5 0.5"] * MOST_COMMANDS))
    with pytest.raises(ToolError, match=f"1 commands after {MOST_COMMANDS} earlier ones"):
        sketch.draw("delete a")


def test_shapes_that_are_moved_for_ever_stay_within_reach():
    scene = played([*parsed("create_point a 0.5 0.5"), *[Command(verb="translate", id="a", numbers=(1, 1))] * 400])
    assert max(scene["a"].points[0]) <= 100


def test_chartsketchers_text_becomes_its_script():
    gallery = gallery_of((200, 100))
    tool = Sketch(gallery).tool
    (call,) = SketchScript().parse("I mark it.\nBEGIN\ncreate_line top 0 0.5 1 0.5 red\nEND", (tool,)).tool_calls
    run(tool, **dict(call.arguments or {}))
    assert gallery.shown_pixels(2).getpixel((100, 50)) == (255, 0, 0)
