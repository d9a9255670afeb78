"""Thinking before the answer, marked `<think>...</think>` at the head of an action. Every dialect shares it.

A call that stands in thinking is thought about, not made, and so is one in thinking that was never closed: vLLM's
parsers for DeepSeek-R1, Qwen3 (until 0.19) and OLMo 3 take all that comes before `</think>` for reasoning, and look for
calls behind it.
"""

from __future__ import annotations

import re

from agent.dialect import Thought

OPEN, CLOSE = "<think>\n", "\n</think>\n\n"
_OPENED = re.compile(r"\s*<think>")
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


def thinking_end(text: str) -> int | None:
    """Where thinking at the head of a text ends, however it is spaced: 0 without any, None while it is still open.

    >>> thinking_end("4"), thinking_end("<think>two</think> 4"), thinking_end("<think>two")
    (0, 18, None)
    """
    end = 0
    while (opened := _OPENED.match(text, end)) is not None:
        closed = text.find("</think>", opened.end())
        if closed < 0:
            return None
        end = closed + len("</think>")
    return end
