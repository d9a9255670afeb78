"""What an OCR reader makes of pictures with writing: at the size first shown, and after the gold zoom."""

from __future__ import annotations

import PIL.Image
import pytest
from click.testing import CliRunner

from envs.tasksets.maze import maze
from envs.tasksets.visual_search import visual_search
from evals.__main__ import cli
from evals.legible import MOST, legibility, note_on
from tools import ConfigError
from tools.image.ocr import Words

DIALS = {"size": "640x480", "shown": 64, "letters": "0", "length": 1, "photos": "none"}


class Ink:
    """Reads a 0 wherever ink is as dark as it was printed: letters that were scaled away are grey."""

    def read(self, picture: PIL.Image.Image) -> tuple[Words, ...]:
        dark = min(picture.convert("L").tobytes()) < 60
        return (Words(text=" 0.", box=(0, 0, 1, 1), score=1.0),) if dark else ()


class Absent:
    """A reader that is not installed."""

    def read(self, picture: PIL.Image.Image) -> tuple[Words, ...]:
        raise ConfigError("the reader is not installed", hint="pip install it")


def test_what_is_read_is_counted_before_and_after_the_gold_calls() -> None:
    found = legibility(visual_search(n=30, needs_tool=0.5, capital=1.0, **DIALS), Ink())  # type: ignore[arg-type]
    assert found is not None
    assert (found.tasks, found.after_gold) == (MOST, MOST)
    assert found.at_first == MOST - found.needing and found.at_first_needing == 0 < found.needing < MOST
    assert f"reads {MOST} of {MOST} after the gold calls, and {found.at_first} of {MOST} where" in found.line


def test_a_missing_reader_is_said_and_pictures_without_writing_are_not_read() -> None:
    said = note_on(visual_search(n=1, **DIALS), Absent())  # type: ignore[arg-type]
    assert said == "what can be read without the tool was not looked at: the reader is not installed"
    assert note_on(maze(n=1, cells=4, shown=64), Absent()) is None


@pytest.mark.slow
def test_rapidocr_reads_after_the_zoom_alone() -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    pytest.importorskip("skimage")
    found = legibility(visual_search(n=10, split="test"))
    assert found is not None and found.at_first == 0 and found.after_gold >= 8


@pytest.mark.slow
def test_evals_check_prints_it() -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    pytest.importorskip("skimage")
    done = CliRunner().invoke(cli, ["check", "visual_search", "-a", "n=2"])
    assert done.exit_code == 0 and "after the gold calls" in done.output.splitlines()[-1]
