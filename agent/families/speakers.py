"""Idefics3 and SmolVLM: `User: text<end_of_utterance>\\nAssistant:`; an action begins with a space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from agent.dialect import Dialect, TokenDialect
from agent.dialects.hermes import Hermes
from agent.families.family import History, joined
from agent.parts import SEAM, Parts, Turn, Written, control, markup

END = "<end_of_utterance>"


@final
class Speakers:
    """Turns named by who speaks. A turn that begins with a picture has no space after the colon."""

    name: str = "speakers"
    ends: tuple[str, ...] = (END,)
    native: Dialect | TokenDialect | None = Hermes()
    history: History = "keep"
    native_only: bool = False
    options: Mapping[str, Any] = {}
    today: str = ""
    opening: str = " "
    listed: bool = True

    def __init__(self, bos: str = "<|im_start|>") -> None:
        self.bos = bos
        self.controls: tuple[str, ...] = (bos, END)

    def begin(self, turns: Sequence[Turn], instructions: str, native: bool) -> Written:
        has_system = bool(turns) and turns[0].role == "system"
        said = joined(turns[0].parts if has_system else None, instructions)
        lead = () if said is None else self._turn("system", said)
        return [("env", (control(self.bos), *lead)), *self._turns(turns[1:] if has_system else turns)]

    def go_on(self, turns: Sequence[Turn], closed: bool) -> Written:
        ending = () if closed else (control(END),)
        return [("env", (*ending, markup("\n"))), *self._turns(turns)]

    def _turns(self, turns: Sequence[Turn]) -> Written:
        out: Written = []
        for turn in turns:
            if turn.role != "assistant":
                out.append((turn.source, self._turn(turn.role, turn.parts)))
                continue
            out.append((turn.source, (markup("Assistant:"), SEAM, *turn.parts)))
            if turn.closed:
                out.append((turn.source, (control(END), markup("\n"))))
        if not turns or turns[-1].role != "assistant" or turns[-1].closed:
            out.append(("env", (markup("Assistant:"),)))
        return out

    def _turn(self, role: str, said: Parts) -> Parts:
        space = "" if said and said[0].image is not None else " "
        return markup(f"{role.capitalize()}:{space}"), *said, control(END), markup("\n")
