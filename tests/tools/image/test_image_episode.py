"""One episode with pictures from zooming, drawing, turning and code: played twice, logged, read back and sent."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from agent import Limits, ScriptedSampler, rollout_sync
from agent.chat_format import native
from envs import Task, ToolEnv, Trajectory, assistant, user
from envs.codec import from_json, to_json
from envs.log import append, blobs_beside, images_of, read_log
from tools import BlobStore, ConfigError, Image, Text, ToolCall
from tools.image import Gallery, ImageBudget, image_tools
from tools.image.interpreter import PicturePython
from tools.python import PythonTool

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("image_zoom_in_tool", {"bbox_2d": [0, 0, 100, 50], "label": "a corner"}),
    ("object_mapper", {"items": [{"index": i, "bbox_2d": [5, 5, 60, 40], "label": "box"} for i in (1, 2)]}),
    ("image_rotate_tool", {"angle": 90, "img_idx": 3}),
    ("python", {"code": "print(image_1.size); display(image_2.rotate(180)); image_5.convert('L').resize((40, 80))"}),
    ("image_zoom_in_tool", {"bbox_2d": [10, 10, 30, 40], "img_idx": 7}),
    ("image_zoom_in_tool", {"bbox_2d": [0, 0, 9, 9], "img_idx": 99}),
    ("python", {"code": "image_8.resize((77, 33))"}),
    ("object_mapper", {"items": [{"index": 1, "bbox_2d": [50, 50, 90, 90], "label": "box"}]}),
    ("image_rotate_tool", {"angle": -90, "img_idx": 5}),
    ("image_zoom_in_tool", {"bbox_2d": [1, 1, 20, 20], "img_idx": 11}),
]


def photograph() -> bytes:
    """Turned on its side, as a phone stores it: intake has to turn it."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    PIL.Image.effect_mandelbrot((400, 600), (-2, -1, 1, 1), 30).convert("RGB").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def play(blobs: BlobStore) -> Trajectory:
    actions = [
        assistant(tool_calls=[ToolCall(id=f"c{i}", name=name, raw="", arguments=given)])
        for i, (name, given) in enumerate(CALLS)
    ]
    task = Task(id="twelve", prompt=(user("Look: ", blobs.put(photograph())),), gold=(*actions, assistant("done")))
    gallery = Gallery(blobs, ImageBudget(max_pixels=200 * 100, max_images=12))
    python = PicturePython(gallery, PythonTool(timeout_s=120))
    tools = (*image_tools(gallery, "image_zoom_in_tool", "object_mapper", "image_rotate_tool"), python.tool)
    env = ToolEnv(task=task, tools=tools, gallery=gallery, resources=(python,))
    return rollout_sync(env, ScriptedSampler(), limits=Limits(max_turns=None, call_timeout_s=None))


def seen(episode: Trajectory) -> list[str]:
    return [part.sha256 for message in episode.messages for part in message.content if isinstance(part, Image)]


@pytest.fixture(scope="module")
def played() -> tuple[Trajectory, BlobStore]:
    blobs = BlobStore()
    return play(blobs), blobs


def test_twelve_pictures_of_four_tools_are_numbered_in_order(played: tuple[Trajectory, BlobStore]):
    episode, _ = played
    assert episode.stop == "done" and [done.outcome for done in episode.calls].count("tool_error") == 1
    numbers = [made["index"] for done in episode.calls for made in done.result.data.get("images", [])]
    assert numbers == list(range(2, 13)) and len(seen(episode)) == 12
    assert "There is no image 99; they are numbered 1 to 8" in episode.calls[5].result.text
    assert "(600, 400)" in episode.calls[3].result.text, "upright, and at full resolution, in code"
    (caption,) = [part.text for part in episode.calls[-1].result.content if isinstance(part, Text)]
    assert caption.endswith("image_12 (width: 19, height: 19):\n")


def test_played_again_it_is_the_same_bytes(played: tuple[Trajectory, BlobStore]):
    again = play(BlobStore())
    assert seen(again) == seen(played[0])
    assert [message.text for message in again.messages] == [message.text for message in played[0].messages]


def test_the_log_holds_every_picture_in_its_place(played: tuple[Trajectory, BlobStore], tmp_path: Path):
    episode, blobs = played
    append(tmp_path / "log.jsonl", episode, blobs)
    (back,) = read_log(tmp_path / "log.jsonl")
    assert seen(back) == seen(episode) and to_json(back) == to_json(episode)
    assert to_json(from_json(json.loads(json.dumps(to_json(episode))))) == to_json(episode)
    beside = blobs_beside(tmp_path / "log.jsonl")
    for image in images_of(back):
        data = beside.get(image)
        assert hashlib.sha256(data).hexdigest() == image.sha256 and beside.open(image).size == (
            image.width,
            image.height,
        )
    with pytest.raises(ConfigError, match="in no blob store"):
        append(tmp_path / "elsewhere" / "log.jsonl", episode, BlobStore())


def test_a_chat_server_is_sent_the_same_pictures(played: tuple[Trajectory, BlobStore]):
    episode, blobs = played
    messages = native(episode.messages, episode.tools, blobs).messages
    urls = [
        part["image_url"]["url"]
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    sent = [hashlib.sha256(base64.b64decode(url.partition(",")[2])).hexdigest() for url in urls]
    assert sent == seen(episode)
