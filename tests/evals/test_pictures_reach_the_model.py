"""Tasks with pictures through `evals run`: a server is sent them, a model here sees them, and the run keeps them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import PIL.Image
import pytest
from chat_server import ChatServer, Say

from agent.cli import run
from envs.log import blobs_beside, images_of, read_log
from evals.__main__ import cli


def test_a_server_is_sent_the_pictures_and_the_run_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOOLWEAVE_CACHE", str(tmp_path / "cache"))
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (20, 10), "red").save(buffer, format="PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    row = {"question": "What colour?", "query": "What colour?", "answer": "red", "type": "human_test", "image": encoded}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    out = tmp_path / "run"
    with ChatServer(Say(text="Answer: Red"), repeat=True) as server:
        arguments = ["chartqa", "--data", str(tmp_path / "test.jsonl"), "-m", "tiny", "--base-url", server.url]
        assert run(cli, ["run", *arguments, "--out", str(out), "-q", "--json"]) == 0
        parts = server.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]
    assert parts[0]["image_url"]["url"] == f"data:image/png;base64,{encoded}"
    assert json.loads(capsys.readouterr().out)["accuracy"] == 1.0
    (episode,) = read_log(out / "samples.jsonl")
    (image,) = images_of(episode)
    assert blobs_beside(out / "samples.jsonl").get(image) == buffer.getvalue()
    assert episode.info["extracted"] == "Red" and episode.info["extraction"] == "line"


def test_a_model_in_this_process_sees_them_under_a_limit_on_cost_too(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    drawn = ["-a", "skills=colour", "-a", "on_photos=0"]
    asked = ["run", "sight", *drawn, "-n", "1", "-m", "tiny_vlm:0", "--max-tokens", "2", "--max-turns", "1", "-q"]
    assert run(cli, [*asked, "--price", "1,1", "--cost-limit", "1", "--out", str(tmp_path / "run")]) == 0
    (episode,) = read_log(tmp_path / "run" / "samples.jsonl")
    assert images_of(episode) and episode.sampled_tokens == 2
