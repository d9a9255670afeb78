"""The model's own way of calling tools, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, final

from agent.dialect import Injection
from agent.dialects.reasoning import THOUGHT
from envs.message import Message
from tools.errors import ConfigError
from tools.tool import Tool, ToolCall


@final
class Native:
    """Stands for the dialect of the family a renderer is made for, which puts its own in its place."""

    name: str = "native"
    stop: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    thought = THOUGHT

    def instructions(self, tools: Sequence[Tool]) -> str:
        self._refuse()

    def write(self, action: Message) -> str:
        self._refuse()

    def parse(self, text: str, tools: Sequence[Tool]) -> Message:
        self._refuse()

    def format(self, calls: Sequence[ToolCall], results: Sequence[Message]) -> Injection:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            "the native dialect is written by a model's own renderer, and there is none here",
            hint="leave --dialect out: a server writes and reads its model's calls itself",
        )
