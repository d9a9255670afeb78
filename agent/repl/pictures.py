"""Pictures in the terminal: whole where it can draw them (kitty, iTerm2 or sixel), as half blocks in any other.

What a terminal can do is told by its environment. It is not asked: its answer would come in with what the person types.
`TOOLWEAVE_PICTURES` says otherwise: `kitty`, `iterm2`, `sixel`, `blocks` or `none`.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from tools.errors import ConfigError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from rich.console import Console
    from rich.text import Text

Way: TypeAlias = Literal["kitty", "iterm2", "sixel", "blocks", "none"]
"""How a picture is shown."""

CHOICE = "TOOLWEAVE_PICTURES"
_KITTY = ("xterm-kitty", "xterm-ghostty")
_SIXEL = ("foot", "mlterm", "contour", "yaft")
_CELL = (10, 20)
"""Pixels of a character cell, as most terminals have them: what is sent is no larger than is shown."""
_CHUNK = 4096


def way_of(environment: Mapping[str, str] = os.environ) -> Way:
    """How this terminal shows pictures. Raises `ConfigError` for a choice that there is not.

    >>> way_of({"TERM": "xterm-kitty"}), way_of({"TERM_PROGRAM": "iTerm.app"}), way_of({"TERM": "xterm-256color"})
    ('kitty', 'iterm2', 'blocks')
    """
    chosen = environment.get(CHOICE, "")
    if chosen:
        if chosen not in get_args(Way):
            raise ConfigError(f"{CHOICE} is {chosen!r}", hint=nearest(chosen, get_args(Way)))
        return cast(Way, chosen)
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return "blocks"  # they pass no pictures on
    if term in _KITTY or "KITTY_WINDOW_ID" in environment or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "sixel" if term.startswith(_SIXEL) and _has_sixel() else "blocks"


def show(console: Console, picture: PILImage, *, columns: int = 60, rows: int = 20, way: Way | None = None) -> None:
    """Print a picture at most `columns` x `rows` characters large, its proportions kept; nothing where there is no
    colour.

    Half blocks are limited to 40 x 16. Raises `ConfigError` where sixel is chosen and its library is missing.
    """
    if not console.is_terminal or console.no_color:
        return
    way = way or way_of()
    if way == "none":
        return
    if way == "blocks":
        console.print(half_blocks(picture, min(columns, console.width, 40), min(rows, 16)))
        return
    small, cells = _fitted(picture, min(columns, console.width), rows)
    if way == "sixel":
        _print_sixel(console, small, cells)
        return
    console.file.write((_kitty if way == "kitty" else _iterm2)(small, cells) + "\n")
    console.file.flush()


def half_blocks(picture: PILImage, columns: int = 40, rows: int = 16) -> Text:
    """A thumbnail that is at most `columns` x `rows` characters, its proportions kept: two pixels a character."""
    from rich.style import Style
    from rich.text import Text

    scale = min(columns / picture.width, rows * 2 / picture.height, 1.0)
    width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = picture.convert("RGBA").resize((width, height))
    drawn = Text()
    for top in range(0, height, 2):
        for x in range(width):
            upper = _colour(small, x, top)
            lower = _colour(small, x, top + 1) if top + 1 < height else None
            drawn.append("▀", Style(color=upper, bgcolor=lower))
        drawn.append("\n")
    return drawn


def _colour(picture: PILImage, x: int, y: int) -> str:
    """The pixel's colour over black, as `#rrggbb`."""
    red, green, blue, alpha = cast(tuple[Any, ...], picture.getpixel((x, y)))
    return f"#{red * alpha // 255:02x}{green * alpha // 255:02x}{blue * alpha // 255:02x}"


def _fitted(picture: PILImage, columns: int, rows: int) -> tuple[PILImage, tuple[int, int]]:
    """The picture no larger than its place, and its place in characters."""
    scale = min(columns * _CELL[0] / picture.width, rows * _CELL[1] / picture.height, 1.0)
    width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = picture.convert("RGB")
    small = small if small.size == (width, height) else small.resize((width, height))
    return small, (max(1, -(-width // _CELL[0])), max(1, -(-height // _CELL[1])))


def _kitty(picture: PILImage, cells: tuple[int, int]) -> str:
    """https://sw.kovidgoyal.net/kitty/graphics-protocol: the PNG in pieces, put into so many cells, unanswered."""
    data = _png(picture)
    pieces = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    head = f"a=T,f=100,q=2,c={cells[0]},r={cells[1]},"
    return "".join(
        f"\x1b_G{head if index == 0 else ''}m={int(index + 1 < len(pieces))};{piece}\x1b\\"
        for index, piece in enumerate(pieces)
    )


def _iterm2(picture: PILImage, cells: tuple[int, int]) -> str:
    """https://iterm2.com/documentation-images.html: one file, put into so many cells."""
    return f"\x1b]1337;File=inline=1;width={cells[0]};height={cells[1]};preserveAspectRatio=1:{_png(picture)}\x07"


def _print_sixel(console: Console, picture: PILImage, cells: tuple[int, int]) -> None:
    try:
        from textual_image.renderable.sixel import Image
    except ImportError as error:
        raise ConfigError(
            "pictures as sixel need textual-image", hint=f"pip install textual-image, or {CHOICE}=blocks"
        ) from error
    console.print(Image(picture, width=cells[0], height=cells[1]))


def _has_sixel() -> bool:
    import importlib.util

    return importlib.util.find_spec("textual_image") is not None


def _png(picture: PILImage) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
