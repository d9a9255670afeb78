"""The text a model is shown: cut to size, fences stripped, colours removed; and the check of picture bytes."""

from __future__ import annotations

import re
import struct
from typing import Literal, TypeAlias

Cut: TypeAlias = Literal["middle", "head", "tail"]
"""Which part of a long text is dropped. `middle` keeps both ends; `head` drops the beginning, `tail` the end."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_FENCE = "```"
_LANGUAGES = ("", "python", "python3", "py", "ipython")


def shortened(text: str, most: int, cut: Cut = "middle") -> str:
    """`text` in at most about `most` characters, with a marker where something was dropped.

    >>> shortened("a" * 10 + "b" * 10, 8)
    'aaaa\\n[... 12 characters cut ...]\\nbbbb'
    """
    dropped = len(text) - most
    if dropped <= 0:
        return text
    marker = f"[... {dropped} characters cut ...]"
    if cut == "head":
        return f"{marker}\n{text[dropped:]}"
    if cut == "tail":
        return f"{text[:most]}\n{marker}"
    head = most // 2
    return f"{text[:head]}\n{marker}\n{text[len(text) - (most - head) :]}"


def without_fence(code: str) -> str:
    """The code inside a Markdown fence when the whole text is one, else the text as it is.

    >>> without_fence("```python\\n1 + 1\\n```")
    '1 + 1'
    """
    first, newline, rest = code.strip().partition("\n")
    if not newline or not first.startswith(_FENCE) or first[3:].removesuffix("\r").strip(" \t") not in _LANGUAGES:
        return code
    body = rest.removesuffix(_FENCE)
    if body == rest or _FENCE in body:
        return code
    return body.rstrip(" \t").removesuffix("\n").removesuffix("\r")


def plain(text: str) -> str:
    """`text` without terminal colours, lone surrogates and NUL."""
    if text.isascii() and text.isprintable():  # as short results are
        return text
    clean = _ANSI.sub("", text).replace("\0", "")
    return clean.encode("utf-8", "replace").decode("utf-8")


class Kept:
    """Collects output in bounded memory: the first half of `most` characters and the last half, and how much passed by.

    >>> kept = Kept(8)
    >>> for _ in range(5): kept.add("abcd")
    >>> str(kept)
    'abcd\\n[... 12 characters cut ...]\\nabcd'
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen = 0
        self._head: list[str] = []
        self._room = most // 2
        self._tail = ""

    def add(self, text: str) -> None:
        """Append `text`."""
        self.seen += len(text)
        if self._room:
            self._head.append(text[: self._room])
            taken = len(self._head[-1])
            self._room -= taken
            text = text[taken:]
        if text:
            self._tail = (self._tail + text)[-(self.most - self.most // 2) :]

    def __str__(self) -> str:
        head = "".join(self._head)
        dropped = self.seen - len(head) - len(self._tail)
        return f"{head}\n[... {dropped} characters cut ...]\n{self._tail}" if dropped else head + self._tail


_MAX_PIXELS = 50_000_000


def picture_problem(data: bytes) -> str | None:
    """Why `data` is not a PNG or JPEG that is safe to decode, or None. Looks at the header alone; decodes nothing.

    >>> picture_problem(b"GIF89a")
    'not a PNG or JPEG picture'
    """
    size = _png_size(data) or _jpeg_size(data)
    if size is None:
        return "not a PNG or JPEG picture"
    width, height = size
    if not (0 < width * height <= _MAX_PIXELS):
        return f"a picture of {width} x {height} pixels is outside what is accepted (1 to {_MAX_PIXELS} pixels)"
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 33 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        return None
    return struct.unpack(">II", data[16:24])


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the segments up to the frame header that holds the size."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + max(length, 2)
    return None
