"""One episode with twelve pictures from four tools: the REPL, the log, `evals show`, the page and an export of it hold
the same pictures in the same order."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from rich.console import Console
from run_on_disk import Page
from twelve_pictures import TOOLS, twelve_pictures

from agent import ScriptedSampler, rollout_sync
from agent.repl.pictures import CHOICE
from agent.repl.screen import Screen
from envs import Taskset, Trajectory
from envs.log import images_of
from evals import evaluate
from evals.export import export
from evals.index import latest_entries, read_episode, read_index
from evals.run_folder import RunFolder
from evals.show import show_episode
from tools.content import Image


@pytest.fixture
def taskset(tmp_path: Path) -> Taskset:
    return twelve_pictures(str(tmp_path / "blobs"))


def shown(episode: Trajectory) -> list[str]:
    """The hashes of what the model saw, in order."""
    return [part.sha256 for message in episode.messages for part in message.content if isinstance(part, Image)]


def in_terminal(text: str) -> list[str]:
    """The pixels of the pictures that a kitty terminal was sent, by their hash."""
    found: list[str] = []
    pieces = ""
    for head, data in re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text):
        pieces += data
        if head.endswith("m=0"):
            found.append(pixels_of(base64.b64decode(pieces)))
            pieces = ""
    return found


def pixels_of(data: bytes) -> str:
    return hashlib.sha256(PIL.Image.open(io.BytesIO(data)).convert("RGB").tobytes()).hexdigest()


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=100, color_system="truecolor"), out


def test_repl_log_show_page_and_export_hold_the_same_twelve_pictures(
    taskset: Taskset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHOICE, "kitty")
    assert taskset.blobs is not None
    terminal, out = console()
    screen = Screen(terminal, taskset.blobs)
    played = rollout_sync(taskset.env(taskset.tasks[0]), ScriptedSampler(), on_event=screen.on_event)
    expected = shown(played)
    assert len(expected) == len(set(expected)) == 12
    assert {call.call.name for call in played.calls} == set(TOOLS)
    assert all(call.outcome == "ok" for call in played.calls)
    pixels = [pixels_of(taskset.blobs.get(image)) for image in images_of(played) if image.sha256 in expected]
    assert in_terminal(out.getvalue()) == pixels

    result = evaluate(taskset, ScriptedSampler(), out=tmp_path / "run", progress=False)
    folder = RunFolder(result.out)
    (entry,) = latest_entries(read_index(folder)).values()
    logged = read_episode(folder, entry)
    assert shown(logged) == expected
    kept = {path.stem for path in (folder.root / "blobs").iterdir()}
    assert set(expected) <= kept

    terminal, out = console()
    show_episode(folder.root, "t", terminal)
    assert in_terminal(out.getvalue()) == pixels

    page = Page(folder.report.read_text(encoding="utf-8")).data
    parts = [
        part
        for message in page["episodes"][0]["messages"]
        for content in (message["parts"], *(call["result"] or [] for call in message["calls"]))
        for part in content
    ]
    assert [part["image"] for part in parts if "image" in part] == expected
    assert [pixels_of(base64.b64decode(page["images"][sha].partition(",")[2])) for sha in expected] == pixels

    export(folder, "sft", tmp_path / "sft.jsonl", least=None)
    row = json.loads((tmp_path / "sft.jsonl").read_text())
    urls = [part["image_url"]["url"] for message in row["messages"] for part in _parts(message) if "image_url" in part]
    assert [pixels_of(base64.b64decode(url.partition(",")[2])) for url in urls] == pixels


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    return message["content"] if isinstance(message.get("content"), list) else []
