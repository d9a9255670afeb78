"""A run in other formats and in a browser: nothing lost, nothing run, nothing open to others."""

from __future__ import annotations

import csv
import http.client
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import PIL.Image
import pytest
from run_on_disk import HOSTILE, Page, episode, folder_of

from agent.cli import run
from envs import Task, Trajectory, assistant, user
from envs.log import TrajectoryLog
from envs.trajectory import Stop
from evals.__main__ import cli
from evals.run_folder import RunFolder
from evals.view import Viewer
from tools import BlobStore


def evals(*argv: object) -> int:
    return run(cli, [str(argument) for argument in argv])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Three episodes: with a picture, hostile, and an error."""
    red = BlobStore(tmp_path / "run" / "blobs").put_image(PIL.Image.new("RGB", (5, 4), "red"))
    hostile, broken = episode("b", said=HOSTILE), episode("c", stop=Stop.ERROR)
    return folder_of(tmp_path / "run", episode("a", image=red), hostile, broken)


def test_sft_rows_are_messages_of_the_chat_api(folder: RunFolder, tmp_path: Path) -> None:
    assert evals("export", folder.root, "--to", "sft", "--out", tmp_path / "sft.jsonl") == 0
    rows = [json.loads(line) for line in (tmp_path / "sft.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a", "b"]  # an error teaches nothing
    roles = [message["role"] for message in rows[0]["messages"]]
    assert roles[0] == "user" and "tool" in roles and roles[-1] == "assistant"
    call = next(message for message in rows[0]["messages"] if message.get("tool_calls"))["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"box": [1, 2], "label": "ok"}
    assert "data:image/png;base64," in json.dumps(rows[0]["messages"])


def test_atif_documents_keep_calls_results_ids_and_pictures(folder: RunFolder, tmp_path: Path) -> None:
    assert evals("export", folder.root, "--to", "atif", "--out", tmp_path / "atif") == 0
    documents = [json.loads(path.read_text()) for path in sorted((tmp_path / "atif").glob("*.json"))]
    assert [document["trajectory_id"] for document in documents] == ["a", "b", "c"]
    first = documents[0]
    assert first["schema_version"] == "ATIF-v1.8" and first["agent"]["name"] == "toolweave"
    assert [step["step_id"] for step in first["steps"]] == list(range(1, len(first["steps"]) + 1))
    acting = next(step for step in first["steps"] if step.get("tool_calls"))
    assert acting["source"] == "agent" and acting["metrics"]["completion_token_ids"] == [20, 21]
    assert acting["metrics"]["logprobs"] == [-0.5, -1.25]
    (result,) = acting["observation"]["results"]
    assert result["source_call_id"] == acting["tool_calls"][0]["tool_call_id"]
    picture = next(part for part in result["content"] if part["type"] == "image")["source"]["path"]
    with PIL.Image.open(tmp_path / "atif" / picture) as shown:
        assert shown.size == (5, 4)


def test_every_atif_document_fits_the_published_schema(folder: RunFolder, tmp_path: Path) -> None:
    """`atif_v1_8.json` is the JSON schema of harbor 0.25.0's own model (Apache-2.0), without its descriptions.

    What a JSON schema cannot say is asserted as harbor's validators do: ids count from 1, an agent's fields stand on
    its steps only, results answer calls of their own step, and pictures are there.
    """
    schema = json.loads((Path(__file__).parents[1] / "data" / "atif_v1_8.json").read_text())
    never_began = Trajectory(task=Task(id="d", prompt=(user("Hm?"),)), stop=Stop.ERROR, error="no world")
    own_call = episode("e")
    own_call.steps[0] = replace(own_call.steps[0], action=assistant("the world looked for itself"))
    unsure = episode("f")
    tokens = unsure.steps[0].tokens
    assert tokens is not None
    unsure.steps[0] = replace(unsure.steps[0], tokens=replace(tokens, logprobs=(-math.inf, -1.0)))
    with TrajectoryLog(folder.samples) as log:
        for trajectory in (never_began, own_call, unsure):
            log.append(trajectory)
    assert evals("export", folder.root, "--to", "atif", "--out", tmp_path / "atif") == 0
    paths = sorted((tmp_path / "atif").glob("*.json"))
    assert len(paths) == 6
    for path in paths:
        document = json.loads(path.read_text(), parse_constant=lambda constant: pytest.fail(constant))
        jsonschema.validate(document, schema)
        for number, step in enumerate(document["steps"], start=1):
            assert step["step_id"] == number
            assert step["source"] == "agent" or not {"tool_calls", "metrics", "reasoning_content"} & step.keys()
            known = {call["tool_call_id"] for call in step.get("tool_calls", [])}
            for result in step.get("observation", {}).get("results", []):
                assert result.get("source_call_id") in {None, *known}
            for shown in re.findall(r'"path": "([^"]+)"', json.dumps(step)):
                assert (tmp_path / "atif" / shown).exists()
    world = json.loads(paths[4].read_text())["steps"][1]["observation"]["results"][0]
    assert "source_call_id" not in world and world["extra"]["tool"] == "zoomok"
    assert "logprobs" not in json.loads(paths[5].read_text())["steps"][1]["metrics"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(paths[0].read_text()), "step": []}, schema)


def test_a_table_runs_no_formula_and_holds_every_score(folder: RunFolder, tmp_path: Path) -> None:
    formula = episode("=1+1")
    folder_of(tmp_path / "f", formula)
    assert evals("export", folder.root, "--to", "csv", "--out", tmp_path / "t.csv") == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["score_correct"]) for row in rows] == [("a", "1.0"), ("b", "1.0"), ("c", "")]
    assert json.loads(rows[0]["tools"]) == {"zoomok": 1}
    assert evals("export", tmp_path / "f", "--to", "csv", "--out", tmp_path / "f.csv") == 0
    assert "'=1+1" in (tmp_path / "f.csv").read_text()


def test_hf_datasets_read_the_parquet_with_its_pictures(folder: RunFolder, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    assert evals("export", folder.root, "--to", "hf", "--out", tmp_path / "e.parquet") == 0
    rows: Any = datasets.Dataset.from_parquet(str(tmp_path / "e.parquet"), cache_dir=str(tmp_path / "cache"))
    assert rows["id"][:] == ["a", "b", "c"] and rows[0]["score_correct"] == 1.0 and rows[2]["score_correct"] is None
    assert rows[0]["images"][0].size == (5, 4) and rows[1]["images"] == []
    assert json.loads(rows[0]["messages"])[0]["role"] == "user"


def test_an_export_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path / "run", episode("c", stop=Stop.ERROR))
    assert evals("export", tmp_path / "run", "--to", "sft") == 1
    assert "has no episode to write" in capsys.readouterr().err


@pytest.mark.parametrize(("to", "said"), [("hf", "is a folder"), ("csv", "is a folder"), ("atif", "is a file")])
def test_an_export_never_takes_a_folder_for_a_file(
    to: str, said: str, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evals("export", folder.root, "--to", to, "--out", folder.samples if to == "atif" else folder.root) == 1
    assert said in capsys.readouterr().err


# ---- the page


def asked(viewer: Viewer, path: str, host: str | None = None) -> tuple[int, str]:
    port = int(viewer.url.rsplit(":", 1)[1].strip("/"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, body


def test_the_server_gives_headers_first_and_an_episode_when_asked(folder: RunFolder) -> None:
    with Viewer([folder]) as viewer:
        status, text = asked(viewer, "/")
        page = Page(text)
        columns = page.data["episodes"]
        shown = [dict(zip(columns["keys"], row, strict=True)) for row in columns["rows"]]
        assert status == 200 and [e["id"] for e in shown] == ["a", "b", "c"] and page.data["live"] is True
        assert all("messages" not in e for e in shown)
        status, body = asked(viewer, f"/episode?run=0&n={shown[0]['number']}")
        found = json.loads(body)
        assert status == 200 and found["episode"]["messages"][0]["role"] == "user"
        assert next(iter(found["images"].values())).startswith("data:image/png;base64,")


def test_the_server_answers_its_own_name_only_and_nothing_else(folder: RunFolder) -> None:
    with Viewer([folder]) as viewer:
        assert asked(viewer, "/", host="evil.example")[0] == 403
        assert asked(viewer, "/episode?run=0&n=1")[0] == 404
        assert asked(viewer, "/episode?run=7&n=0")[0] == 404
        assert asked(viewer, "/episode?run=x")[0] == 400
        for path in ("/samples.jsonl", "/../../etc/passwd", "/config.json"):
            assert asked(viewer, path)[0] == 404


def test_hostile_text_stays_text_on_a_live_page_and_in_a_bundle_of_two(folder: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "two.html"
    assert evals("view", folder.root, folder.root, "--bundle", out) == 0
    with Viewer([folder]) as viewer:
        live = asked(viewer, "/")[1]
    for text in (out.read_text(), live):
        tags = [tag for tag, _ in Page(text).elements]
        assert tags.count("script") == 2 and "img" not in tags
    assert "connect-src 'self'" in live and "connect-src" not in out.read_text()
    assert [e["run"] for e in Page(out.read_text()).data["episodes"]] == [0, 0, 0, 1, 1, 1]


def drawn(address: str, profile: Path) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    command = ["chromium", *flags, "--virtual-time-budget=5000", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_a_browser_draws_every_view(folder: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "two.html"
    evals("view", folder.root, folder.root, "--bundle", out)
    table = drawn(f"file://{out}#samples", tmp_path / "p")
    assert len(re.findall(r'<td class="(?:right|wrong|error) num">', table)) == 6 and "<title>pwned" not in table
    compare = drawn(f"file://{out}#compare", tmp_path / "p")
    assert "B − A = +0.0 points" in compare and "the same 2" in compare
    pair = drawn(f"file://{out}?pair=a#compare", tmp_path / "p")
    assert pair.count("<h2>a</h2>") == 2 and 'src="data:image/png' in pair
    plots = drawn(f"file://{out}#plots", tmp_path / "p")
    assert plots.count("<figure>") == 4 and 'class="whisker"' in plots and 'class="column b"' in plots
    tokens = drawn(f"file://{out}?view=tokens#A%20a", tmp_path / "p")
    assert tokens.count('class="src-tool id"') == 2 and tokens.count('class="model loss id"') == 4
    assert "m</td>" in drawn(f"file://{out}#run", tmp_path / "p")
    with Viewer([folder]) as viewer:
        live = drawn(f"{viewer.url}#a", tmp_path / "p")
    assert 'src="data:image/png' in live and "<h2>a</h2>" in live
