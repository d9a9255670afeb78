"""Turning, mirroring, resizing, enhancing, reading and finding; the code interpreter's pictures; calls as models make
them."""

from __future__ import annotations

import asyncio
import io
import math
from typing import Any

import PIL.Image
import pytest
from PIL import ImageDraw, ImageFont, ImageOps

from agent import ScriptedSampler, rollout_sync
from agent.dialects import DIALECTS
from envs import Task, ToolEnv, assistant, user
from tools import BlobStore, Image, Tool, ToolCall, ToolError
from tools.image import Gallery, ImageBudget, image_tools
from tools.image.detect import Found
from tools.image.interpreter import PicturePython
from tools.image.ocr import Words
from tools.python import PythonTool

ALL = (
    "image_zoom_in_tool",
    "image_rotate_tool",
    "image_flip_tool",
    "image_resize_tool",
    "image_enhance_tool",
    "object_mapper",
    "path_tracer",
    "ocr",
    "sketch",
)


def flag() -> PIL.Image.Image:
    """600 x 400: red, with blue in the upper left corner."""
    picture = PIL.Image.new("RGB", (600, 400), "red")
    picture.paste("blue", (0, 0, 200, 100))
    return picture


def gallery_of(picture: PIL.Image.Image | bytes, most: int = 150 * 100) -> Gallery:
    gallery = Gallery(BlobStore(), ImageBudget(max_pixels=most))
    gallery.add(picture)
    return gallery


def use(gallery: Gallery, name: str, **arguments: Any) -> PIL.Image.Image:
    """What the tool shows."""
    (tool,) = image_tools(gallery, name)
    result = asyncio.run(tool.fn(**arguments))
    return gallery.blobs.open(gallery.shown(result.data["images"][0]["index"]))


def test_a_quarter_turn_moves_every_pixel_at_full_resolution():
    gallery = gallery_of(flag())
    turned = use(gallery, "image_rotate_tool", angle=90)
    assert turned.size == (100, 150) and turned.getpixel((5, 145)) == (0, 0, 255), "counter-clockwise"
    assert gallery.pixels(2).tobytes() == flag().transpose(PIL.Image.Transpose.ROTATE_90).tobytes()
    use(gallery, "image_rotate_tool", angle=-90, img_idx=2)
    assert gallery.original(3) == gallery.original(1) and gallery.shown(3) == gallery.shown(1)


def test_an_odd_turn_keeps_all_of_the_picture_on_white():
    turned = use(gallery_of(flag(), 10**6), "image_rotate_tool", angle=45)
    assert min(turned.size) > 700 and turned.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize(("direction", "mirror"), [("horizontal", ImageOps.mirror), ("vertical", ImageOps.flip)])
def test_mirrored(direction: str, mirror: Any):
    gallery = gallery_of(flag())
    use(gallery, "image_flip_tool", direction=direction)
    assert gallery.pixels(2).tobytes() == mirror(flag()).tobytes()


def test_resized_within_the_budget_from_full_resolution():
    gallery = gallery_of(flag(), 300 * 200)
    assert use(gallery, "image_resize_tool", factor=0.5).size == (150, 100)
    assert use(gallery, "image_resize_tool", factor=8).size == (300, 200), "no larger than the budget"
    assert gallery[2].source == gallery[1].source and gallery[2].size == (600, 400)


def test_enhanced():
    grey = PIL.Image.new("RGB", (40, 40), (100, 100, 100))
    grey.paste((140, 140, 140), (0, 0, 40, 20))
    gallery = gallery_of(grey)
    assert use(gallery, "image_enhance_tool", brightness=2).getpixel((0, 39)) == (200, 200, 200)
    low, high = use(gallery, "image_enhance_tool", contrast=4).convert("L").getextrema()
    assert (low, high) == (40, 200), "40 around the mean of 120 becomes 160"
    sharp = use(gallery, "image_enhance_tool", sharpness=8).convert("L")
    assert sharp.getpixel((20, 20)) < 100 < 140 < sharp.getpixel((20, 19)), "the edge overshoots"


def test_a_photograph_that_is_turned_stays_a_jpeg():
    buffer = io.BytesIO()
    flag().save(buffer, "JPEG", quality=95, subsampling=0)
    gallery = gallery_of(buffer.getvalue())
    use(gallery, "image_rotate_tool", angle=180)
    assert gallery.original(2).media_type == "image/jpeg" and gallery.shown(2).media_type == "image/png"


@pytest.mark.parametrize(
    ("name", "arguments", "wrong"),
    [
        ("image_rotate_tool", {"angle": math.nan}, "from -360 to 360"),
        ("image_rotate_tool", {"angle": 1e9}, "from -360 to 360"),
        ("image_rotate_tool", {"angle": 90, "img_idx": 5}, "numbered 1 to 1"),
        ("image_flip_tool", {"direction": "sideways"}, "horizontal or vertical"),
        ("image_resize_tool", {"factor": 0}, "from 0.125 to 8"),
        ("image_resize_tool", {"factor": math.inf}, "from 0.125 to 8"),
        ("image_enhance_tool", {"contrast": -1}, "from 0 to 8"),
        ("image_enhance_tool", {"contrast": math.nan}, "from 0 to 8"),
        ("image_enhance_tool", {}, "changes nothing"),
        ("image_zoom_in_tool", {"bbox_2d": [0, 0, 0, 0]}, "has no area"),
        ("ocr", {"bbox_2d": [5, 5, 1, 1]}, "is inverted"),
        ("ocr", {"img_idx": 0}, "numbered 1 to 1"),
    ],
)
def test_what_cannot_be_is_said_with_what_can(name: str, arguments: dict[str, Any], wrong: str):
    gallery = gallery_of(flag())
    with pytest.raises(ToolError, match=wrong):
        use(gallery, name, **arguments)
    assert len(gallery) == 1


class Lines:
    """A reader that knows what is written, and remembers the size of what it was given."""

    seen: tuple[int, int] = (0, 0)

    def read(self, picture: PIL.Image.Image) -> tuple[Words, ...]:
        self.seen = picture.size
        return (Words(text="EXIT", box=(40, 20, 80, 40), score=0.9),)


def test_words_are_read_at_full_resolution_and_placed_in_the_image_as_shown():
    gallery, reader = gallery_of(flag()), Lines()
    (ocr,) = image_tools(gallery, "ocr", reader=reader)
    assert asyncio.run(ocr.fn()).text == "[10, 5, 20, 10] EXIT" and reader.seen == (600, 400)
    (ocr,) = image_tools(gallery, "ocr", reader=reader, convention="per_mille")
    result = asyncio.run(ocr.fn(bbox_2d=[500, 500, 1000, 1000]))
    assert reader.seen == (300, 200) and result.text == "[567, 550, 633, 600] EXIT"


@pytest.mark.slow
def test_rapid_ocr_reads_what_a_zoom_shows_and_the_small_picture_lost():
    pytest.importorskip("rapidocr_onnxruntime")
    photo = PIL.Image.new("RGB", (2400, 1600), "white")
    ImageDraw.Draw(photo).text((1500, 900), "GATE 47", fill="black", font=ImageFont.load_default(32))
    gallery = gallery_of(photo, 240 * 160)
    zoom, ocr = image_tools(gallery, "image_zoom_in_tool", "ocr")
    asyncio.run(zoom.fn(bbox_2d=[145, 85, 175, 105]))
    assert asyncio.run(ocr.fn(img_idx=2)).text.replace(" ", "").endswith("GATE47")
    small = gallery_of(gallery.shown_pixels(1), 240 * 160)
    assert "47" not in asyncio.run(image_tools(small, "ocr")[0].fn()).text


class Blues:
    """Finds blue things."""

    def detect(self, picture: PIL.Image.Image, phrase: str) -> tuple[Found, ...]:
        box = picture.getchannel("B").point(lambda value: 255 * (value > 128)).getbbox()
        return (Found(box=box, score=0.8),) if phrase == "blue" and box else ()


def test_things_are_found_by_the_detector_that_is_given():
    (find,) = image_tools(gallery_of(flag()), "image_find_tool", detector=Blues(), convention="unit")
    found = asyncio.run(find.fn(phrase="blue"))
    assert found.data["boxes"] == [pytest.approx([0, 0, 1 / 3, 0.25], abs=0.01)] and "(0.80)" in found.text
    assert asyncio.run(find.fn(phrase="cup")).text == "Nothing found for 'cup' in image_1."
    with pytest.raises(ToolError, match="phrase is empty"):
        asyncio.run(find.fn(phrase=" "))


def test_code_sees_the_pictures_and_its_own_enter_the_same_numbering():
    gallery = gallery_of(flag())

    async def main() -> list[Any]:
        python = PicturePython(gallery, PythonTool())
        zoom = image_tools(gallery, "image_zoom_in_tool")[0]
        results = [
            await python.tool.fn(code="print(image_1.size)"),
            await zoom.fn(bbox_2d=[0, 0, 50, 25]),
            await python.tool.fn(code="print(image_2.size); image_2.resize((30, 20))"),
            await python.tool.fn(code="print(image_3.size, image_1.size); import os; os._exit(1)"),
            await python.tool.fn(code="print(image_1.size, image_2.size, image_3.size)"),
        ]
        await python.close()
        return results

    first, _, third, lost, again = asyncio.run(main())
    assert first.text == "(600, 400)" and len(gallery) == 3
    assert third.text == "(200, 100)\nimage_3 (width: 30, height: 20):\n"
    assert third.data["images"] == [
        {"index": 3, "source": gallery.original(3).sha256, "part": [0, 0, 30, 20]},
    ]
    assert lost.is_error and again.text.endswith("(600, 400) (200, 100) (30, 20)"), "bound again in the new session"


def test_code_may_see_the_pictures_as_they_are_shown():
    async def main() -> str:
        python = PicturePython(gallery_of(flag()), PythonTool(), at="shown")
        result = await python.tool.fn(code="image_1.size")
        await python.close()
        return f"{result.text} {python.tool.description}"

    assert asyncio.run(main()).startswith("(150, 100)") and "of the size shown" in asyncio.run(main())


def test_a_picture_of_code_beyond_the_limit_is_left_out_and_that_is_said():
    gallery = Gallery(BlobStore(), ImageBudget(max_images=2))
    gallery.add(flag())

    async def main() -> Any:
        python = PicturePython(gallery, PythonTool())
        result = await python.tool.fn(code="display(image_1.rotate(1)); display(image_1.rotate(2)); print('done')")
        await python.close()
        return result

    result = asyncio.run(main())
    assert "done" in result.text and "left out: There are 2 images, and no more than 2" in result.text
    assert len([part for part in result.content if isinstance(part, Image)]) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "wrong"),
    [
        ("image_zoom_in_tool", {"bbox_2d": ["0", "0", "9", "9"]}, "'0' is not of type 'number'"),
        ("image_zoom_in_tool", {"bbox_2d": [math.nan, 0, 9, 9]}, "nan is no number"),
        ("image_zoom_in_tool", {"bbox_2d": [9, 9, 0, 0]}, "is inverted"),
        ("image_zoom_in_tool", {"bbox_2d": [900, 900, 950, 950]}, "x goes from 0 to 150 and y from 0 to 100"),
        ("image_zoom_in_tool", {"bbox_2d": [9, 9, 9, 9]}, "has no area"),
        (
            "image_zoom_in_tool",
            {"bbox_2d": [0, 0, 9, 9], "img_idx": 2},
            "There is no image 2; they are numbered 1 to 1",
        ),
        ("image_zoom_in_tool", {}, "'bbox_2d' is a required property"),
        ("object_mapper", {"items": [{"index": 1, "label": "a"}]}, "'bbox_2d' is a required property"),
        ("object_mapper", {"items": ["cup"]}, "is not of type 'object'"),
        ("sketch", {"script": "open door"}, "there is no command 'open'"),
        ("image_enhance_tool", {"contrast": "high"}, "is not of type 'number'"),
    ],
)
def test_bad_calls_are_observations_and_the_episode_goes_on(name: str, arguments: dict[str, Any], wrong: str):
    gallery = gallery_of(flag())
    call = ToolCall(id="1", name=name, raw="", arguments=arguments)
    task = Task(id="t", prompt=(user("?"),), gold=(assistant(tool_calls=[call]), assistant("blue")))
    episode = rollout_sync(ToolEnv(task=task, tools=image_tools(gallery, *ALL)), ScriptedSampler())
    assert episode.stop == "done" and episode.answer == "blue"
    assert episode.calls[0].result.is_error and wrong in episode.calls[0].result.text


def tools_of(name: str) -> tuple[Tool, ...]:
    gallery = gallery_of(flag())
    names = {"vilasr": ("object_mapper", "path_tracer"), "chartsketcher": ("sketch",)}
    return image_tools(gallery, *names.get(name, ("image_zoom_in_tool", "image_rotate_tool")))


@pytest.mark.parametrize("dialect", ["hermes", "deepeyes", "geovista", "deepeyes-v2", "vilasr", "chartsketcher"])
def test_every_dialect_writes_and_reads_calls_of_its_tools(dialect: str):
    spoken, tools = DIALECTS[dialect](), tools_of(dialect)
    arguments: dict[str, dict[str, Any]] = {
        "image_zoom_in_tool": {"bbox_2d": [0, 0, 50, 40], "label": "cup"},
        "object_mapper": {"items": [{"index": 1, "bbox_2d": [0, 0, 50, 40], "label": "cup"}]},
        "sketch": {"script": "create_point a 0.5 0.5"},
    }
    tool = tools[0]
    assert spoken.instructions(tools)
    said = spoken.write(
        assistant(tool_calls=[ToolCall(id="1", name=tool.name, raw="", arguments=arguments[tool.name])])
    )
    (call,) = spoken.parse(said, tools).tool_calls
    assert call.error is None and call.name == tool.name
    assert asyncio.run(tool.fn(**dict(call.arguments or {}))).data["images"][0]["index"] == 2
