"""Gold scripts: the calls of a solution as the messages that make them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from envs.message import Message, assistant
from tools.tool import ToolCall

Asked: TypeAlias = tuple[str, Mapping[str, object]]
"""Name and arguments of a call."""


def calling(asked: Sequence[Asked]) -> tuple[Message, ...]:
    """A message for each call, as gold has them."""
    return tuple(
        assistant(
            tool_calls=(
                ToolCall(
                    id=f"call_{number}",
                    name=name,
                    raw=json.dumps({"name": name, "arguments": arguments}),
                    arguments=arguments,
                ),
            )
        )
        for number, (name, arguments) in enumerate(asked)
    )
