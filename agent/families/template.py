"""A family read from the chat template a model brings, where it is none of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, final

from agent.dialect import Dialect, TokenDialect
from agent.families.family import History, joined
from agent.parts import SEAM, Part, Parts, Turn, Written, control, markup
from tools.errors import ConfigError

_SLOT = re.compile(r"Slot(\d+)q")


@final
class FromTemplate:
    """The frames of a template, found by rendering it with a slot in place of each text.

    Each succession of roles is rendered once; afterwards only texts are encoded. Calls and results are written by a
    dialect, as text of the roles every template has.
    """

    name: str = "template"
    native: Dialect | TokenDialect | None = None
    native_only: bool = False
    options: Mapping[str, Any] = {}
    today: str = ""
    history: History = "keep"
    opening: str = ""
    listed: bool = False

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        special = sorted({str(t) for t in added.values() if t.special} | set(tokenizer.all_special_tokens), key=len)
        self._special = re.compile("(" + "|".join(re.escape(token) for token in reversed(special)) + ")")
        self._frames: dict[tuple[str, ...], list[str]] = {}
        after = self._after(("user", "assistant"), generate=False)
        found = self._special.search(after[0])
        if found is None or after[0][: found.start()].strip():
            raise ConfigError(
                "the chat template ends an assistant turn with no special token, so nothing would stop it"
            )
        self.ends: tuple[str, ...] = (found.group(),)
        self._trims = "  x" not in self._render([{"role": "user", "content": "  x"}], generate=True)
        # All it can write, so that what it writes is known to the tokenizer before anything runs.
        texts = [*self._frame(("user",), True), *self._after(("user", "assistant", "user"), generate=True)]
        self.controls: tuple[str, ...] = tuple(
            dict.fromkeys((*self.ends, *(t for text in texts for t in self._special.findall(text))))
        )
        self.doubt = self._doubt()
        """Why turns cannot be appended to each other exactly; None where they can."""

    def begin(self, turns: Sequence[Turn], instructions: str, native: bool) -> Written:
        first = turns[0] if turns and turns[0].role == "system" else None
        said = joined(first.parts if first else None, instructions)
        rest = list(turns[1:] if first else turns)
        if said is not None:
            rest.insert(0, Turn(role="system", parts=said))
        if not rest:
            raise ConfigError("the chat template needs a message to begin with")
        generate = rest[-1].role != "assistant" or rest[-1].closed
        texts = self._frame(tuple(turn.role for turn in rest), generate)
        out = self._filled(texts, rest)
        return out if generate else out[:-1]

    def go_on(self, turns: Sequence[Turn], closed: bool) -> Written:
        texts = list(self._after(("user", "assistant", *(turn.role for turn in turns)), generate=True))
        if closed:
            texts[0] = texts[0][texts[0].index(self.ends[0]) + len(self.ends[0]) :]
        return self._filled(texts, turns)

    def _filled(self, texts: Sequence[str], turns: Sequence[Turn]) -> Written:
        """The frames with the turns' parts in their slots."""
        out: Written = []
        for text, turn in zip(texts, turns, strict=False):
            seam = (SEAM,) if turn.role == "assistant" else ()
            out.append((turn.source, (*self._parts(text), *seam, *self._said(turn), *seam)))
        return [*out, ("env", self._parts(texts[len(turns)]))]

    def _said(self, turn: Turn) -> Parts:
        if not self._trims or turn.role == "assistant" or turn.source == "tool":
            return turn.parts
        return tuple(markup(part.text.strip()) if part.kind == "markup" else part for part in turn.parts)

    def _parts(self, text: str) -> tuple[Part, ...]:
        known = set(self.controls)
        pieces = self._special.split(text)
        return tuple(control(piece) if piece in known else markup(piece) for piece in pieces if piece)

    def _after(self, roles: tuple[str, ...], generate: bool) -> list[str]:
        """The frames from the last assistant slot on that is followed by `roles` behind it."""
        return self._frame(roles, generate)[2:]

    def _frame(self, roles: tuple[str, ...], generate: bool) -> list[str]:
        """The text before, between and after the slots of a conversation of these roles."""
        key = (*roles, str(generate))
        if key not in self._frames:
            messages = [{"role": role, "content": f"Slot{index}q"} for index, role in enumerate(roles)]
            pieces = _SLOT.split(self._render(messages, generate))
            if [int(number) for number in pieces[1::2]] != list(range(len(roles))):
                raise ConfigError(
                    f"the chat template leaves out or moves messages of a conversation {' > '.join(roles)}",
                    hint="another dialect may need other roles",
                )
            self._frames[key] = pieces[::2]
        return self._frames[key]

    def _render(self, messages: Sequence[dict[str, str]], generate: bool) -> str:
        try:
            return self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generate)
        except Exception as error:  # a template is a program of somebody else's and may raise anything
            roles = " > ".join(message["role"] for message in messages)
            raise ConfigError(f"the chat template cannot write a conversation {roles}: {error}") from error

    def _doubt(self) -> str | None:
        """Whether what stands before an action, and after it, depends on what comes later or came earlier."""
        prompt = "".join(self._frame(("user",), True))
        longer = self._frame(("user", "assistant", "user"), True)
        if "".join(longer[:2]) != prompt:
            return "an earlier turn is written otherwise once the conversation goes on"
        if not longer[2].lstrip().startswith(self.ends[0]):
            return "an earlier action is not followed by the token that ended it"
        if self._frame(("user", "assistant", "user", "assistant", "user"), True)[4:] != longer[2:]:
            return "what follows an action depends on what came before it"
        return None
