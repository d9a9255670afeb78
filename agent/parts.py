"""What a family and a dialect write: text with its control tokens told apart from what merely looks like them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from envs.message import Message
from envs.trajectory import Source
from tools.content import Image, Text
from tools.record import record

Kind: TypeAlias = Literal["control", "markup", "quoted", "image", "seam"]


@record
class Part:
    """A piece of what is put before the model."""

    kind: Kind
    """`control`: exactly that special token. `markup`: our own words or the model's, in which `<tool_call>` may be the
    token a tokenizer has for it. `quoted`: a tool's words, in which no tag is ever a token of its own. `image`: a
    picture, as the model's vision writes it. `seam`: nothing, but what is before and behind is encoded apart."""
    text: str
    image: Image | None = None


Parts: TypeAlias = tuple[Part, ...]
SEAM = Part(kind="seam", text="")


def control(token: str) -> Part:
    """A special token, by name."""
    return Part(kind="control", text=token)


def markup(text: str) -> Part:
    """Words of the format, of the prompt, or of the model itself."""
    return Part(kind="markup", text=text)


def quoted(text: str) -> Part:
    """Words that nobody vouches for."""
    return Part(kind="quoted", text=text)


def pictured(image: Image) -> Part:
    """A picture at its place."""
    return Part(kind="image", text="", image=image)


def spoken(message: Message, *, quote: bool) -> Parts:
    """What a message holds, in order; `quote` for words that nobody vouches for."""
    word = quoted if quote else markup
    out: list[Part] = []
    for part in message.content:
        if not isinstance(part, Text):
            out.append(pictured(part))
        elif out and out[-1].image is None:
            out[-1] = word(out[-1].text + part.text)
        else:
            out.append(word(part.text))
    return tuple(out)


def pictures_of(message: Message) -> Parts:
    """Its pictures alone, for a format whose results are not plain text."""
    return tuple(pictured(part) for part in message.content if not isinstance(part, Text))


def text_of(parts: Iterable[Part]) -> str:
    """The parts as one text, control tokens by their names; a picture is no text.

    >>> text_of((control("<|im_start|>"), markup("user"), quoted("hi")))
    '<|im_start|>userhi'
    """
    return "".join(part.text for part in parts)


@record
class Turn:
    """One turn, before a family puts its frame round it."""

    role: str
    """system, user, assistant, or the role a dialect gives to results."""
    parts: Parts
    source: Source = "env"
    closed: bool = True
    """Of an assistant turn: False where a result has just been put in and the model goes on."""
    end: str | None = None
    """Of a closed assistant turn: the token that ended it, where that is not the family's usual one."""


Written: TypeAlias = list[tuple[Source, Parts]]
"""What was written, and by whom."""
