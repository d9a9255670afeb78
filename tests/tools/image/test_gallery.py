from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import BlobStore, ConfigError, Image, Text, ToolError
from tools.image import DEEPEYES, GEOVISTA, UV_COT, Gallery, ImageBudget, ZoomRule, image_tools
from tools.image.gallery import cut
from tools.image.intake import encoded

SMALL = ImageBudget(max_pixels=100 * 100)


def numbered_pixels(width: int, height: int) -> PIL.Image.Image:
    """Every pixel says where it is: red and blue its column, green and blue its row."""
    picture = PIL.Image.new("RGB", (width, height))
    picture.putdata([(x % 256, y % 256, x // 256 * 16 + y // 256) for y in range(height) for x in range(width)])
    return picture


PHOTO = numbered_pixels(1000, 500)
FIFTH = Gallery(BlobStore(), ImageBudget(max_pixels=200 * 100))
FIFTH.add(PHOTO)


def place(pixel: Any) -> tuple[int, int]:
    red, green, blue = pixel
    return red + blue // 16 * 256, green + blue % 16 * 256


def shown(gallery: Gallery, index: int) -> PIL.Image.Image:
    return gallery.blobs.open(gallery.shown(index))


def zoom(gallery: Gallery, rule: ZoomRule | None = None, **arguments: Any) -> int:
    """The number of what the tool made."""
    result = asyncio.run(image_tools(gallery, "image_zoom_in_tool", zoom=rule)[0].fn(**arguments))
    return result.data["images"][0]["index"]


def test_pictures_are_numbered_in_order_and_shown_within_the_budget():
    gallery = Gallery(BlobStore(), SMALL)
    numbers = [gallery.add(PIL.Image.new("RGB", size)) for size in ((50, 40), (400, 100), (90, 110))]
    assert numbers == [1, 2, 3] and len(gallery) == 3
    assert [(i.width, i.height) for i in map(gallery.shown, numbers)] == [(50, 40), (200, 50), (90, 110)]
    assert [(i.width, i.height) for i in map(gallery.original, numbers)] == [(50, 40), (400, 100), (90, 110)]


def test_a_picture_within_the_budget_is_its_own_bytes():
    data = encoded(numbered_pixels(80, 60))
    gallery = Gallery(BlobStore(), SMALL)
    gallery.add(data)
    assert gallery.blobs.get(gallery.shown(1)) == data == gallery.blobs.get(gallery.original(1))


def test_the_same_bytes_pixels_and_stored_picture_are_shown_as_the_same_picture():
    photo = numbered_pixels(300, 200)
    blobs = BlobStore()
    gallery = Gallery(blobs, SMALL)
    data = encoded(photo)
    for picture in (data, photo, blobs.put(data)):
        gallery.add(picture)
    assert len({gallery.shown(i) for i in (1, 2, 3)}) == 1 == len({gallery.original(i) for i in (1, 2, 3)})


@pytest.mark.parametrize("index", [0, -1, 4, 10**9, True, "1", 1.0, None])
def test_a_number_that_is_no_picture_says_which_there_are(index: Any):
    gallery = Gallery(BlobStore())
    with pytest.raises(ToolError, match="there are none yet"):
        gallery.shown(index)
    for _ in range(3):
        gallery.add(PIL.Image.new("RGB", (9, 9)))
    with pytest.raises(ToolError, match=r"There is no image .*; they are numbered 1 to 3"):
        gallery.shown(index)


def test_what_was_done_to_a_picture_is_kept_with_it_and_with_its_parts():
    frames, buffer = [PIL.Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")], io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    gallery = Gallery(BlobStore())
    gallery.add(buffer.getvalue())
    assert "the first frame of an animation" in gallery[1].notes
    assert gallery.places(gallery.add_part(1, (0, 0, 9, 9)))[0]["notes"] == list(gallery[1].notes)


def test_more_pictures_than_the_budget_has_are_refused():
    gallery = Gallery(BlobStore(), ImageBudget(max_images=2))
    gallery.add(PIL.Image.new("RGB", (9, 9)))
    with pytest.raises(ToolError, match="There are 1 images, and no more than 2"):
        gallery.add_all([PIL.Image.new("RGB", (9, 9))] * 2)
    assert len(gallery) == 1, "all or none"
    gallery.add(PIL.Image.new("RGB", (9, 9)))
    with pytest.raises(ToolError, match="no more than 2"):
        gallery.add_part(1, (0, 0, 5, 5))


def test_a_caption_says_the_number_and_the_size_shown():
    gallery = Gallery(BlobStore(), SMALL, caption="<image>[{index}: {width}x{height}]")
    gallery.add(PIL.Image.new("RGB", (400, 100)))
    assert gallery.content(1) == (gallery.shown(1), Text(text="[1: 200x50]"))
    assert gallery.content(1, text="Look:") == (Text(text="Look:\n"), gallery.shown(1), Text(text="[1: 200x50]"))
    assert Gallery(BlobStore(), caption="<image>").content() == ()
    with pytest.raises(ConfigError, match="<image> once"):
        Gallery(BlobStore(), caption="{index}")


def test_a_refused_picture_takes_no_number():
    gallery = Gallery(BlobStore())
    for bad in (b"", b"no picture", encoded(numbered_pixels(64, 64))[:200]):
        with pytest.raises(ValueError, match="picture"):
            gallery.add(bad)
    assert len(gallery) == 0


@settings(max_examples=25)
@given(st.integers(0, 179), st.integers(0, 79), st.integers(1, 20), st.integers(1, 20))
def test_a_zoom_shows_the_very_pixels_of_the_original(left: int, top: int, width: int, height: int):
    """200 x 100 shown of 1000 x 500: a box of at most 100 x 100 original pixels is shown pixel for pixel."""
    gallery = FIFTH
    part = shown(gallery, zoom(gallery, bbox_2d=[left, top, left + width, top + height]))
    assert part.size == (width * 5, height * 5)
    assert place(part.getpixel((0, 0))) == (left * 5, top * 5)
    last = (part.width - 1, part.height - 1)
    assert place(part.getpixel(last)) == ((left + width) * 5 - 1, (top + height) * 5 - 1)


def test_a_part_of_a_part_of_a_part_is_cut_from_the_photograph():
    gallery = Gallery(BlobStore(), ImageBudget(max_pixels=100 * 50))
    gallery.add(PHOTO)
    first = zoom(gallery, bbox_2d=[50, 25, 100, 50])
    second = zoom(gallery, bbox_2d=[50, 0, 100, 50], img_idx=first)
    third = zoom(gallery, bbox_2d=[20, 0, 40, 10], img_idx=second)
    assert gallery[second].part == (750, 250, 1000, 500)
    assert gallery[third].source == gallery[1].source
    left, top, right, bottom = gallery[third].part
    exact = PHOTO.crop((left, top, right, bottom))
    assert gallery.pixels(third).tobytes() == exact.tobytes()
    assert gallery.blobs.open(gallery.original(third)).tobytes() == exact.tobytes()


def test_a_zoom_reads_what_the_picture_shown_had_lost():
    """Stripes of one pixel are grey where the picture is shown at a tenth, and black and white after zooming."""
    photo = PIL.Image.new("L", (1000, 1000), 255)
    for x in range(0, 1000, 2):
        photo.paste(0, (x, 0, x + 1, 1000))
    gallery = Gallery(BlobStore(), ImageBudget(max_pixels=100 * 100))
    gallery.add(photo)
    assert all(low > 90 and high < 170 for low, high in shown(gallery, 1).getextrema()), "lost"
    assert shown(gallery, zoom(gallery, bbox_2d=[10, 10, 20, 20])).getextrema() == ((0, 255),) * 3


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_decoded_small_looks_like_the_whole_scaled_down(progressive: bool):
    smooth = PIL.Image.radial_gradient("L").resize((1600, 1200)).convert("RGB")
    buffer = io.BytesIO()
    smooth.save(buffer, "JPEG", quality=95, progressive=progressive)
    for part, size in (
        ((0, 0, 1600, 1200), (160, 120)),
        ((400, 300, 1600, 1200), (150, 100)),
        ((3, 5, 600, 700), (70, 90)),
    ):
        near = cut(buffer.getvalue(), part, size)
        far = smooth.resize(size, PIL.Image.Resampling.BICUBIC, box=part)
        assert near.size == size
        off = max(abs(a - b) for a, b in zip(near.convert("L").tobytes(), far.convert("L").tobytes(), strict=True))
        assert off <= 6


def test_deepeyes_refuses_small_and_thin_boxes_and_shows_at_least_28_pixels():
    gallery = Gallery(BlobStore(), ImageBudget(max_pixels=1000 * 500))
    gallery.add(PHOTO)
    with pytest.raises(ToolError, match="each side must be at least 30"):
        zoom(gallery, DEEPEYES, bbox_2d=[0, 0, 100, 29])
    assert shown(gallery, zoom(gallery, DEEPEYES, bbox_2d=[-20, 460, 50, 900])).size == (50, 40)
    wide = Gallery(BlobStore(), ImageBudget(max_pixels=4000 * 40))
    wide.add(PIL.Image.new("RGB", (4000, 40)))
    with pytest.raises(ToolError, match="at most 100 times"):
        zoom(wide, DEEPEYES, bbox_2d=[0, 0, 4000, 35])
    shrunk = Gallery(BlobStore(), ImageBudget(max_pixels=4000 * 40))
    shrunk.add(PIL.Image.new("RGB", (8000, 20)))  # shown at 8000 x 20: both rules look at what is shown
    with pytest.raises(ToolError, match="at least 30"):
        zoom(shrunk, DEEPEYES, bbox_2d=[0, 0, 40, 20])


def test_geovista_shows_multiples_of_28_between_its_two_limits():
    gallery = Gallery(BlobStore(), ImageBudget(max_pixels=1000 * 500))
    gallery.add(PHOTO)
    for box in ([0, 0, 20, 20], [0, 0, 1000, 500], [5, 5, 80, 10]):
        width, height = shown(gallery, zoom(gallery, GEOVISTA, bbox_2d=box)).size
        assert width % 28 == 0 == height % 28
        assert 256 * 256 <= width * height <= 1000 * 500
    with pytest.raises(ConfigError, match="no picture can have"):
        image_tools(Gallery(BlobStore(), SMALL), "image_zoom_in_tool", zoom=GEOVISTA)


def test_uv_cot_cuts_a_square_around_the_box():
    gallery = Gallery(BlobStore(), ImageBudget(max_pixels=1000 * 500))
    gallery.add(PHOTO)
    assert gallery[zoom(gallery, UV_COT, bbox_2d=[400, 200, 420, 210])].part == (298, 93, 522, 317)
    assert gallery[zoom(gallery, UV_COT, bbox_2d=[0, 0, 20, 20])].part == (0, 0, 224, 224), "moved inside"
    assert gallery[zoom(gallery, UV_COT, bbox_2d=[300, 100, 600, 200])].part == (300, 0, 600, 300)
    assert gallery[zoom(gallery, UV_COT, bbox_2d=[0, 0, 1000, 500])].part == (0, 0, 1000, 500)


def test_a_zoom_tells_rewards_where_its_pixels_are():
    gallery = Gallery(BlobStore(), ImageBudget(max_pixels=200 * 100))
    gallery.add(PHOTO)
    result = asyncio.run(image_tools(gallery, "image_zoom_in_tool")[0].fn(bbox_2d=[20, 10, 40, 30], label="a cup"))
    source = gallery.original(1).sha256
    assert result.data == {"images": [{"index": 2, "source": source, "part": [100, 50, 200, 150]}], "of": 1}
    assert "image_1 (a cup)" in result.text and "image_2 (width: 100, height: 100)" in result.text
    assert [type(part) for part in result.content] == [Text, Image]


@pytest.mark.parametrize(
    ("convention", "box"),
    [
        ("pixel", [20, 10, 40, 30]),
        ("unit", [0.1, 0.1, 0.2, 0.3]),
        ("per_mille", [100, 100, 200, 300]),
        ("unit_square_padded", [0.1, 0.3, 0.2, 0.4]),
    ],
)
def test_every_convention_names_the_same_pixels_and_is_told_to_the_model(convention: Any, box: list[float]):
    gallery = Gallery(BlobStore(), ImageBudget(max_pixels=200 * 100))
    gallery.add(PHOTO)
    (tool,) = image_tools(gallery, "image_zoom_in_tool", convention=convention)
    asyncio.run(tool.fn(bbox_2d=box))
    assert gallery[2].part == (100, 50, 200, 150)
    told = tool.parameters["properties"]["bbox_2d"]["description"]
    assert {"pixel": "in pixels", "unit": "from 0 to 1", "per_mille": "0 to 1000", "unit_square_padded": "square"}[
        convention
    ] in told


def test_tools_of_unknown_names_and_conventions_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="no picture tool 'image_zoom_tool'") as error:
        image_tools(Gallery(BlobStore()), "image_zoom_tool")
    assert "image_zoom_in_tool" in (error.value.hint or "")
    with pytest.raises(ConfigError, match="no coordinates 'pixels'"):
        image_tools(Gallery(BlobStore()), "sketch", convention="pixels")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="needs a detector"):
        image_tools(Gallery(BlobStore()), "image_find_tool")


def test_a_store_on_disk_holds_everything_that_was_shown(tmp_path: Path):
    gallery = Gallery(BlobStore(tmp_path), ImageBudget(max_pixels=200 * 100))
    gallery.add(PHOTO)
    made = zoom(gallery, bbox_2d=[0, 0, 50, 50])
    again = BlobStore(tmp_path)
    assert all(again.open(image).size == (image.width, image.height) for image in map(gallery.shown, (1, made)))
