"""A run's page shows the same tasks before and after training, pictures and all."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import PIL.Image
import pytest

from agent import ScriptedSampler
from agent.sampler import Sampler
from envs import assistant
from envs.find import find_taskset
from envs.log import read_log
from evals import evaluate
from training.before_after import MOST_BYTES, SIDE, before_and_after, comparable
from training.files import write_json
from training.recipe import GRPO, SFT, Evaluate, Recipe
from training.report import write_reports
from training.run import settle

SMALL = {"style": "short", "size": "256x256", "shown": 64, "length": 1, "photos": "none"}
PICTURE = re.compile(r'<img class="shot" width="(\d+)" height="(\d+)" alt="" src="data:image/(\w+);base64,([^"]+)">')
STAGES = (
    Evaluate(name="eval-base", n=8),
    SFT(data="gold"),
    Evaluate(name="eval-other", model="sft", n=8, taskset_args={"seed": 1}),
    GRPO(start="sft"),
    Evaluate(name="eval-grpo", model="grpo", n=8),
)


def run_of(out: Path, before: Sampler, after: Sampler, **arguments: object) -> Recipe:
    """A finished run whose models are `before` and `after`; the others' evaluations are of other tasks."""
    shown = {**SMALL, "split": "test", "n": 8, **arguments}
    recipe = Recipe(name="seen", model="tiny_vlm", taskset="visual_search", taskset_args=shown, stages=STAGES)
    out.mkdir()
    settle(recipe, out)
    for stage in recipe.stages:
        done: dict[str, object] = {"seconds": 1.0}
        if isinstance(stage, Evaluate):
            player = after if stage.model == "grpo" else before
            taskset = find_taskset(recipe.taskset, recipe.arguments(stage))
            found = evaluate(taskset, player, out=out / stage.name, progress=False, report_episodes=0)
            done["result"] = found.to_json()
        (out / stage.name).mkdir(exist_ok=True)
        write_json(out / stage.name / "done.json", done)
    return recipe


def test_the_page_holds_the_pictures_of_the_same_tasks_before_and_after(tmp_path: Path) -> None:
    wrong = ScriptedSampler([assistant("<answer>?</answer>")])
    recipe = run_of(tmp_path / "run", wrong, ScriptedSampler())
    write_reports(recipe, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "on the same 8 tasks, by correct: 8 better, 0 worse, 0 alike" in page
    assert len(page) < 5_000_000 and "http://" not in page and "https://" not in page
    shown = PICTURE.findall(page)
    assert len(shown) == 2 * 3, "of three tasks the whole picture, and the part that was zoomed into"
    episodes = {episode.task.id: episode for episode in read_log(tmp_path / "run" / "eval-grpo" / "samples.jsonl")}
    first, zoomed = (PIL.Image.open(io.BytesIO(base64.b64decode(data))) for *_, data in shown[:2])
    assert first.size == (64, 64) and (shown[0][0], shown[0][1]) == ("192", "192")
    ids = re.findall(r"<h3>(\S+) <small>better", page)
    assert ids == sorted(episodes)[:3]
    call = episodes[ids[0]].calls[0]
    assert zoomed.size == (call.result.content[-1].width, call.result.content[-1].height)  # pyright: ignore
    assert page.count("<h4>base: 0</h4>") == page.count("<h4>grpo: 1</h4>") == 3


def test_what_got_worse_is_shown_and_counted(tmp_path: Path) -> None:
    recipe = run_of(tmp_path / "run", ScriptedSampler(), ScriptedSampler([assistant("<answer>?</answer>")]))
    page = before_and_after(recipe, tmp_path / "run")
    assert "0 better, 8 worse, 0 alike" in page
    assert page.count("<small>worse</small>") == 2


def test_what_a_model_says_cannot_end_up_as_markup(tmp_path: Path) -> None:
    rude = ScriptedSampler([assistant("</p><script>alert(1)</script> \ud800 " + "x" * 5000)])
    recipe = run_of(tmp_path / "run", rude, rude)
    write_reports(recipe, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page and "x" * 1000 not in page
    assert "0 better, 0 worse, 8 alike" in page


def test_large_pictures_are_made_smaller_and_lost_ones_said(tmp_path: Path) -> None:
    recipe = run_of(tmp_path / "run", ScriptedSampler(), ScriptedSampler(), size="640x480", shown=480)
    page = before_and_after(recipe, tmp_path / "run")
    assert {max(int(width), int(height)) for width, height, *_ in PICTURE.findall(page)} == {SIDE}
    assert len(page) < MOST_BYTES
    for blob in (tmp_path / "run" / "eval-grpo" / "blobs").iterdir():
        blob.unlink()
    assert "a picture that is not there" in before_and_after(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("stages", "names"),
    [
        (STAGES, ["eval-base", "eval-grpo"]),
        ((STAGES[1], STAGES[3], STAGES[4]), ["eval-grpo"]),
        ((*STAGES[:4], Evaluate(name="bare", model="grpo", tools=False)), ["bare"]),
        ((STAGES[0], Evaluate(name="again")), []),
        (STAGES[:3], ["eval-other"]),
    ],
)
def test_only_evaluations_of_the_same_tasks_with_the_same_tools_stand_side_by_side(
    stages: tuple[Evaluate | SFT | GRPO, ...], names: list[str]
) -> None:
    assert [stage.name for stage in comparable(Recipe(name="r", stages=stages))] == names


def test_a_run_without_a_before_has_no_such_section(tmp_path: Path) -> None:
    assert before_and_after(Recipe(name="r", stages=(STAGES[1], STAGES[3], STAGES[4])), tmp_path) == ""
