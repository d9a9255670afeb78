"""Pictures in the terminal: each protocol draws what it was given; terminals without one get half blocks."""

from __future__ import annotations

import base64
import io
import re

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agent.repl.pictures import CHOICE, Way, half_blocks, show, way_of
from tools import ConfigError


def printed(picture: PIL.Image.Image, way: Way, *, terminal: bool = True, width: int = 80) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, no_color=not terminal, color_system="truecolor")
    show(console, picture, way=way)
    return out.getvalue()


def gradient(width: int, height: int) -> PIL.Image.Image:
    picture = PIL.Image.linear_gradient("L").resize((width, height)).convert("RGB")
    picture.putpixel((0, 0), (255, 0, 0))
    return picture


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "iTerm.app"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, "blocks"),
        ({"TERM": "xterm-kitty", CHOICE: "none"}, "none"),
        ({}, "blocks"),
    ],
)
def test_the_environment_says_what_the_terminal_can(environment: dict[str, str], way: Way) -> None:
    assert way_of(environment) == way


def test_a_wrong_choice_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="'kity'"):
        way_of({CHOICE: "kity"})


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 900), height=st.integers(1, 900))
def test_kitty_gets_the_whole_picture_in_pieces(width: int, height: int) -> None:
    text = printed(gradient(width, height), "kitty")
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert "".join(f"\x1b_G{head};{data}\x1b\\" for head, data in pieces) + "\n" == text
    assert all(len(data) <= 4096 for _, data in pieces)
    assert [head.rpartition("m=")[2] for head, _ in pieces] == ["1"] * (len(pieces) - 1) + ["0"]
    found = PIL.Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces))))
    cells = dict(part.split("=") for part in pieces[0][0].split(","))
    assert found.width <= int(cells["c"]) * 10 <= 600 and found.height <= int(cells["r"]) * 20 <= 400
    if width <= 600 and height <= 400:
        assert found.tobytes() == gradient(width, height).tobytes()


def test_iterm_gets_the_picture_in_one_piece() -> None:
    picture = gradient(40, 30)
    head, _, data = printed(picture, "iterm2").rstrip("\n").partition(":")
    assert head == "\x1b]1337;File=inline=1;width=4;height=2;preserveAspectRatio=1"
    assert data.endswith("\x07")
    assert PIL.Image.open(io.BytesIO(base64.b64decode(data[:-1]))).tobytes() == picture.tobytes()


def test_sixels_are_sixels() -> None:
    pytest.importorskip("textual_image")
    text = printed(PIL.Image.new("RGB", (20, 20), "red"), "sixel")
    assert "\x1bP" in text and "\x1b\\" in text and "#" in text


def test_half_blocks_are_two_pixels_a_character() -> None:
    picture = PIL.Image.new("RGB", (2, 2), "red")
    picture.putpixel((0, 1), (0, 0, 255))
    drawn = half_blocks(picture)
    assert drawn.plain == "▀▀\n"
    styles = [str(span.style) for span in drawn.spans]
    assert styles == ["#ff0000 on #0000ff", "#ff0000 on #ff0000"]
    assert "▀" in printed(picture, "blocks")


def test_nothing_is_drawn_where_there_is_no_terminal_and_where_none_is_wanted() -> None:
    picture = PIL.Image.new("RGB", (4, 4), "red")
    assert printed(picture, "kitty", terminal=False) == "" == printed(picture, "none")


def test_a_narrow_terminal_gets_a_narrow_picture() -> None:
    assert "c=20," in printed(gradient(500, 100), "kitty", width=20)
    assert (
        max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", printed(gradient(500, 100), "blocks", width=20)).splitlines())) == 20
    )
