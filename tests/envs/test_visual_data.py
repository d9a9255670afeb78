"""Rows as data sets of visual agents have them, two or three written by hand: read, played with their paper's tools,
paid by their paper's reward."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from agent import ScriptedSampler, rollout_sync
from envs import Message, Taskset, Trajectory, assistant
from envs.find import find_taskset
from envs.scoring.routes import Leg, write
from envs.tasksets.visual_data import chartsketcher_data, deepeyes_data, rewardmap_data, uv_cot_data, vilasr_data
from tools import ConfigError, ToolCall
from tools.content import Image

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of data sets are kept in the cache: in these tests, in a folder that goes."""
    monkeypatch.setenv("TOOLWEAVE_CACHE", str(tmp_path / "cache"))


def png(width: int = 400, height: int = 300) -> bytes:
    file = io.BytesIO()
    PIL.Image.radial_gradient("L").resize((width, height)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def jsonl(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def played(taskset: Taskset, index: int, *script: Message) -> Trajectory:
    return rollout_sync(taskset.env(taskset.tasks[index]), ScriptedSampler(script), rubric=taskset.rubric)


def calling(name: str, **arguments: Any) -> Message:
    return assistant(reasoning="I look.", tool_calls=[ToolCall(id="1", name=name, raw="", arguments=arguments)])


def seen(episode: Trajectory) -> list[tuple[int, int]]:
    parts = [part for message in episode.messages for part in message.content]
    return [(part.width, part.height) for part in parts if isinstance(part, Image)]


def deepeyes_rows() -> list[dict[str, Any]]:
    def row(index: int, answer: str) -> dict[str, Any]:
        return {
            "data_source": "vstar",
            "prompt": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "<image>\nWhat is on the sign?"},
            ],
            "images": [{"bytes": png(), "path": None}],
            "env_name": "visual_toolbox_v2",
            "ability": "vision",
            "reward_model": {"style": "model", "ground_truth": answer},
            "extra_info": {"index": index, "question": "What is on the sign?", "answer": answer},
        }

    return [row(0, "a dog"), row(1, "12"), row(2, "B")]


def test_deepeyes_rows_are_zoomed_into_and_paid(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(deepeyes_rows()), tmp_path / "data_0.1.2_visual_toolbox_v2.parquet")
    taskset = deepeyes_data(str(tmp_path), shown=200)
    assert [task.answer for task in taskset.tasks] == ["a dog", "12", "B"]
    assert [message.role for message in taskset.tasks[0].prompt] == ["system", "user"]
    zoom = calling("image_zoom_in_tool", bbox_2d=[10, 10, 110, 90])
    episode = played(taskset, 0, zoom, assistant("<answer>The dog.</answer>"))
    assert seen(episode) == [(200, 150), (200, 160)]
    assert episode.reward == pytest.approx(2.0) and episode.scores["correct"] == 1
    assert played(taskset, 1, assistant("<answer>12.0</answer>")).reward == pytest.approx(0.8)
    assert played(taskset, 2, zoom, assistant("<answer>C</answer>")).reward == 0


def test_deepeyes_v2_looks_with_python(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(deepeyes_rows()), tmp_path / "perception_all_1.parquet")
    taskset = find_taskset("deepeyes_data", {"data": str(tmp_path), "reward": "deepeyes_v2", "n": "1"})
    code = calling("python", code="image_1.crop((0, 0, 100, 80))")
    episode = played(taskset, 0, code, assistant("<answer>dog</answer>"))
    assert seen(episode) == [(400, 300), (100, 80)] and episode.reward == pytest.approx(1.0)


def test_vilasr_rows_are_drawn_on_and_free_form_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(png(200, 160))
    rows = [
        {
            "question": "<image>\n<image>\nWhich is nearer?\nA. the cup\nB. the pot",
            "answer": "<answer>B</answer>",
            "image_path": ["images/a.png", "images/b.png"],
            "question_type": "multiple choice",
            "data_type": "video",
            "options": ["A. the cup", "B. the pot"],
        },
        {
            "question": "Describe it.",
            "answer": "<answer>a room</answer>",
            "image_path": ["images/a.png"],
            "question_type": "free-form",
            "data_type": "vqa",
        },
        {
            "question": "How wide is the table, in metres?",
            "answer": "<answer>2.0</answer>",
            "image_path": ["images/b.png"],
            "question_type": "regression",
            "data_type": "spatial_r1",
        },
    ]
    taskset = vilasr_data(jsonl(tmp_path / "vilasr_rl_data.jsonl", *rows))
    assert [task.answer for task in taskset.tasks] == ["B", 2.0]
    box = calling("object_mapper", items=[{"index": 2, "bbox_2d": [10, 10, 50, 50], "label": "pot"}])
    episode = played(taskset, 0, box, assistant("<answer>B</answer>", reasoning="It is nearer."))
    assert len(seen(episode)) == 3 and episode.reward == 2
    # Off by a tenth: nine of ten confidences hold; in form, so 0.9 + 1.
    assert played(taskset, 1, box_on(1), assistant("<answer>1.8</answer>", reasoning="So.")).reward == pytest.approx(
        1.9
    )
    code = vilasr_data(str(tmp_path / "vilasr_rl_data.jsonl"), variant="code")
    assert played(code, 1, box_on(1), assistant("<answer>1.8</answer>", reasoning="So.")).reward == pytest.approx(0.95)


def box_on(index: int) -> Message:
    return calling("object_mapper", items=[{"index": index, "bbox_2d": [1, 1, 30, 30], "label": "table"}])


def test_rewardmap_rows_pay_by_difficulty_and_detail(tmp_path: Path) -> None:
    network = {"Line 1": ["A", "B (Transfer Station)", "C"], "Line 2": ["B (Transfer Station)", "D"]}
    about = {
        "country": "X",
        "city": "Y",
        "station_1": "A",
        "station_2": "D",
        "figure": base64.b64encode(png()).decode(),
    }
    rows = [
        {**about, "type": "TorF1", "question": "On one line?", "answer": 0, "difficulty_city": "easy"},
        {**about, "type": "Counting1", "question": "How many stops?", "answer": 2, "difficulty_city": "hard"},
        {**about, "type": "Counting2", "question": "How many lines?", "answer": 2, "difficulty_city": "middle"},
        {
            **about,
            "type": "planning",
            "question_short": "From A to D?",
            "question_transfer_count": 1,
            "json": json.dumps(network),
            "difficulty_city": "middle",
        },
    ]
    taskset = rewardmap_data(jsonl(tmp_path / "train.jsonl", *rows))
    assert [task.answer for task in taskset.tasks[:3]] == ["no", "c", 2]
    assert played(taskset, 0, assistant("So \\boxed{No}")).reward == 10
    assert played(taskset, 1, assistant("\\boxed{\\text{C}}")).reward == 15
    assert played(taskset, 2, assistant("\\boxed{3}")).reward == 0
    route = write([Leg(line="Line 1", start="A", end="B"), Leg(line="Line 2", start="B", end="D")])
    assert played(taskset, 3, assistant(route)).reward == pytest.approx(1.7 * (10 + 9 / 2))
    code = rewardmap_data(str(tmp_path / "train.jsonl"), variant="code")
    assert played(code, 3, assistant(route)).reward == pytest.approx(1.7 * (10 + 4 / 2))


def test_chartsketcher_rows_are_sketched_on(tmp_path: Path) -> None:
    (tmp_path / "chart.png").write_bytes(png(320, 240))
    rows = [
        {"imgname": "chart.png", "query": "What is the highest value?", "label": "41.5"},
        {"imgname": "chart.png", "query": "Which year?", "label": ["2019"]},
    ]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    taskset = chartsketcher_data(str(tmp_path / "train.json"))
    sketch = calling("sketch", script="create_line l 0.1 0.2 0.9 0.2 red")
    assert played(taskset, 0, sketch, assistant("The highest is <answer>42</answer>")).reward == 1
    assert played(taskset, 1, assistant("2020")).scores["correct"] == 1, "ChartQA's tolerance takes years for numbers"
    assert played(taskset, 1, assistant("none")).scores["correct"] == 0


def test_uv_cot_rows_zoom_into_a_square_and_rows_without_answer_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    rows = [
        {"ds_question_id": "q1", "image_path": "a.png", "question": "What is it?", "metainfos": {"reference": ""}},
        {
            "ds_question_id": "q2",
            "image_path": "a.png",
            "question": "What is it?",
            "metainfos": {"reference": "a ring"},
        },
    ]
    taskset = uv_cot_data(jsonl(tmp_path / "viscot.jsonl", *rows))
    assert [task.id for task in taskset.tasks] == ["q2"]
    episode = played(
        taskset, 0, calling("image_zoom_in_tool", bbox_2d=[0.25, 0.25, 0.75, 0.75]), assistant("<answer>ring</answer>")
    )
    assert episode.reward == 1 and seen(episode)[1][0] == seen(episode)[1][1]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("deepeyes_data", [{"prompt": []}], "there is no column images"),
        (
            "vilasr_data",
            [{"question": "?", "answer": "x", "image_path": ["no.png"], "question_type": "multiple choice"}],
            "there is no file no.png",
        ),
        (
            "vilasr_data",
            [{"question": "?", "answer": "<answer>far</answer>", "image_path": [], "question_type": "regression"}],
            "is no number",
        ),
        (
            "rewardmap_data",
            [{"figure": base64.b64encode(png()).decode(), "type": "TorF1", "difficulty_city": "so"}],
            "not easy, middle or hard",
        ),
        ("uv_cot_data", [{"image_path": "x.png", "metainfos": {}}], "holds no rows"),
        ("chartsketcher_data", [], "holds no rows"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        find_taskset(name, {"data": jsonl(tmp_path / "rows.jsonl", *rows)})
    with pytest.raises(ConfigError, match="there is no data"):
        find_taskset(name, {"data": str(tmp_path / "none")})


def test_marks_and_pictures_must_agree(tmp_path: Path) -> None:
    row = deepeyes_rows()[0]
    row["prompt"][1]["content"] = "<image><image> which?"
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="says <image> 2 times, and there are 1 pictures"):
        deepeyes_data(str(tmp_path))
