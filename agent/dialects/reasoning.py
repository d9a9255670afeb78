"""Thinking before the answer, marked `<think>...</think>` at the head of an action. Every dialect shares it."""

from __future__ import annotations

import re

from agent.dialect import Thought

OPEN, CLOSE = "<think>\n", "\n</think>\n\n"
THOUGHT = Thought(opening="<think>", closing=CLOSE, unclosed=re.compile(r"<think>(?!.*</think>)", re.DOTALL))


def with_reasoning(reasoning: str | None, text: str) -> str:
    """Put the thinking, if any, in front.

    >>> with_reasoning("two and two", "4")
    '<think>\\ntwo and two\\n</think>\\n\\n4'
    """
    return text if reasoning is None else f"{OPEN}{reasoning}{CLOSE}{text}"


def split_reasoning(text: str) -> tuple[str | None, str]:
    """The thinking and the rest; the inverse of `with_reasoning`. Thinking that was never closed stays in the text.

    >>> split_reasoning("<think>\\ntwo and two\\n</think>\\n\\n4")
    ('two and two', '4')
    """
    if not text.startswith(OPEN) or CLOSE not in text:
        return None, text
    reasoning, _, rest = text[len(OPEN) :].partition(CLOSE)
    return reasoning, rest
