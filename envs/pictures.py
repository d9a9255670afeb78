"""The pictures of a task's prompt, entered into its gallery before the model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from envs.message import Message
from tools.content import Content, Image
from tools.image.gallery import Gallery


async def entered(messages: Sequence[Message], gallery: Gallery) -> tuple[Message, ...]:
    """The messages with each picture numbered, in order, and put as the gallery shows it."""
    said: list[Message] = []
    for message in messages:
        parts: list[Content] = []
        for part in message.content:
            parts += gallery.content(await gallery.enter(part)) if isinstance(part, Image) else (part,)
        said.append(replace(message, content=tuple(parts)))
    return tuple(said)
