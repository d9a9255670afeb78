"""Chat rows with pictures, as ViLaSR, DeepEyesV2, GeoVista and others publish theirs: each picture at its place."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from envs.log import blobs_beside
from tools import ConfigError, Text
from tools.content import Image
from training.messages import holds_messages, read_messages

DRAWING = (
    'I mark it.</think> Action: Object Mapper\n```json\n[{"index": 1, "bbox_2d": [1, 2, 3, 4], "label": "cup"}]\n```'
)


def png(width: int, height: int = 20) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), (width, 10, 10)).save(file, "PNG")
    return file.getvalue()


def written(folder: Path, row: dict[str, Any]) -> Path:
    for width in (10, 20, 30):
        (folder / f"{width}.png").write_bytes(png(width))
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def parts_of(path: Path) -> list[list[Any]]:
    """Each message's contents: text, or the width of a picture."""
    assert holds_messages(path)
    (episode,) = read_messages(path)
    store = blobs_beside(path)
    found: list[list[Any]] = []
    for message in episode.messages:
        found.append([part.text if isinstance(part, Text) else part.width for part in message.content])
        assert all(part in store for part in message.content if isinstance(part, Image))
    return found


def test_vilasr_cold_start_has_a_picture_in_each_observation(tmp_path: Path) -> None:
    row = {
        "conversations": [
            {"role": "user", "content": "<image>\n<image>\nWhere is the cup?"},
            {"role": "assistant", "content": f"<think>{DRAWING}"},
            {"role": "user", "content": "The index of the given image is 3: <image> Go on."},
            {"role": "assistant", "content": "<think>So.</think> Action: Answer\n<answer>left</answer>"},
        ],
        "images": ["10.png", "20.png", "30.png"],
    }
    said = parts_of(written(tmp_path, row))
    assert said[0] == [10, 20, "Where is the cup?"]
    assert said[2] == ["The index of the given image is 3: ", 30, " Go on."]


def test_geovista_cold_start_is_sharegpt_with_bytes_and_a_system_text(tmp_path: Path) -> None:
    row = {
        "system": "You find places.",
        "conversations": [
            {"from": "human", "value": "<image>Where?"},
            {"from": "gpt", "value": "It says <image> in my text. <answer>Lyon</answer>"},
        ],
        "images": [{"bytes": base64.b64encode(png(40)).decode(), "path": None}],
    }
    said = parts_of(written(tmp_path, row))
    assert said == [["You find places."], [40, "Where?"], ["It says <image> in my text. <answer>Lyon</answer>"]]


def test_parts_take_pictures_from_the_column_or_as_data(tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(png(50)).decode()
    row = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "A"}, {"type": "image"}, {"type": "text", "text": "B"}],
            },
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]},
            {"role": "assistant", "content": "2"},
        ],
        "images": ["30.png"],
    }
    assert parts_of(written(tmp_path, row)) == [["A", 30, "B"], ["1"], [50], ["2"]]


def test_a_large_picture_is_scaled_to_the_declared_budget(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "x"}],
        "images": ["l.png"],
    }
    PIL.Image.new("RGB", (2048, 2048), "red").save(tmp_path / "l.png")
    assert parts_of(written(tmp_path, row))[0] == [1024, "?"]


@pytest.mark.parametrize(
    ("content", "images", "message"),
    [
        ("<image><image>?", ["10.png"], "shows more pictures than the row has"),
        ("<image>?", ["10.png", "20.png"], "more pictures than its messages show"),
        ("<image>?", ["none.png"], "there is no file none.png"),
        ([{"type": "image_url", "image_url": "https://example.com/a.png"}], [], "nothing is fetched"),
    ],
)
def test_pictures_that_are_missing_or_left_over_are_one_sentence(
    tmp_path: Path, content: Any, images: list[str], message: str
) -> None:
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "x"}], "images": images}
    with pytest.raises(ConfigError, match=message):
        list(read_messages(written(tmp_path, row)))
