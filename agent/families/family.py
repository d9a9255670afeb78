"""What a model family is: how turns are framed by special tokens, and what its published template adds of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeAlias, final

from agent.dialect import Dialect, TokenDialect
from agent.parts import SEAM, Parts, Turn, Written, control, markup
from tools.errors import ConfigError
from tools.record import record

History: TypeAlias = Literal["keep", "strip"]
"""What becomes of an action's thinking when a user speaks again."""


class Family(Protocol):
    """One way of framing turns. All it does is put parts together; it knows no tokenizer."""

    name: str
    controls: tuple[str, ...]
    """The special tokens it sets by id."""
    ends: tuple[str, ...]
    """The tokens on which an action ends; the first is written where the model did not."""
    native: Dialect | TokenDialect | None
    """How its own template writes calls; None where the template has no place for tools."""
    history: History
    """What its own template does with thinking."""
    native_only: bool
    """Its format leaves no room for another dialect."""
    options: Mapping[str, Any]
    """What its published template has to be told to write the same: the date, say."""
    today: str
    """The date that it gives, where its published template asks the clock."""
    opening: str
    """What every action begins with, sampled like the rest of it, and no part of what it says."""
    listed: bool
    """Whether its published template takes what is said in parts alone, not as one text."""

    def begin(self, turns: Sequence[Turn], instructions: str, native: bool) -> Written:
        """A whole prompt, from the first token to where the model starts to write."""
        ...

    def go_on(self, turns: Sequence[Turn], closed: bool) -> Written:
        """What follows an action; `closed` where it ended with a token of `ends`. Ends where the model goes on."""
        ...


Lead: TypeAlias = Callable[[Parts | None, str, bool], tuple[Parts, Parts]]
"""From what the system says (None for nothing), the tools' description and whether the dialect is the family's own:
what stands first, and what is put at the head of the first user turn."""


@record
class Frame:
    """The facts of a family whose turns stand one after the other."""

    name: str
    ends: tuple[str, ...]
    header: Callable[[str], Parts]
    """What stands before a turn, by its role. Raises `ConfigError` for a role the family has no turn for."""
    footer: Callable[[str], Parts]
    """What stands after a turn that is not the assistant's."""
    lead: Lead
    controls: tuple[str, ...]
    after: Parts = ()
    """What stands between the token that ends an action and the next turn."""
    native: Dialect | TokenDialect | None = None
    history: History = "keep"
    trims: bool = False
    """Whether the published template strips white space from what system and users say."""
    native_only: bool = False
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    today: str = ""


@final
class Framed:
    """A family made of a frame."""

    opening: str = ""
    listed: bool = False

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.name = frame.name
        self.ends = frame.ends
        self.native = frame.native
        self.history: History = frame.history
        self.native_only = frame.native_only
        self.options = frame.options
        self.today = frame.today
        dialect = frame.native.controls if isinstance(frame.native, TokenDialect) else ()
        self.controls = tuple(dict.fromkeys((*frame.controls, *frame.ends, *dialect)))
        self._header = lru_cache(maxsize=64)(frame.header)
        self._footer = lru_cache(maxsize=64)(frame.footer)

    def begin(self, turns: Sequence[Turn], instructions: str, native: bool) -> Written:
        has_system = bool(turns) and turns[0].role == "system"
        system = self._said(turns[0]) if has_system else None
        lead, prefix = self.frame.lead(system, instructions, native)
        out: Written = [("env", lead)]
        return out + self._turns(turns[1:] if has_system else turns, prefix)

    def go_on(self, turns: Sequence[Turn], closed: bool) -> Written:
        ending = () if closed else (control(self.ends[0]),)
        return [("env", (*ending, *self.frame.after)), *self._turns(turns, ())]

    def _turns(self, turns: Sequence[Turn], prefix: Parts) -> Written:
        out: Written = []
        for turn in turns:
            if turn.role != "assistant":
                header, footer = self._header(turn.role), self._footer(turn.role)
                out.append((turn.source, (*header, *prefix, *self._said(turn), *footer)))
                prefix = ()
                continue
            if prefix:  # nobody spoke before the model
                out.append(("env", (*self._header("user"), *prefix, *self._footer("user"))))
                prefix = ()
            out.append((turn.source, (*self._header("assistant"), SEAM, *turn.parts)))
            if turn.closed:
                out.append((turn.source, (control(turn.end or self.ends[0]), *self.frame.after)))
        if prefix:
            out.append(("env", (*self._header("user"), *prefix, *self._footer("user"))))
        if not turns or turns[-1].role != "assistant" or turns[-1].closed:
            out.append(("env", self._header("assistant")))
        return [entry for entry in out if entry[1]]

    def _said(self, turn: Turn) -> Parts:
        if not self.frame.trims or turn.role not in ("system", "user") or turn.source == "tool":
            return turn.parts
        return tuple(markup(part.text.strip()) if part.kind == "markup" else part for part in turn.parts)


def joined(system: Parts | None, instructions: str) -> Parts | None:
    """What the system says and the tool description, a line between, or None without either."""
    says = any(part.text or part.image for part in system or ())
    if not instructions:
        return system
    if not says or system is None:
        return (markup(instructions),)
    if system[-1].kind == "markup":  # one text, so that a template which trims it trims its ends alone
        return (*system[:-1], markup(f"{system[-1].text}\n\n{instructions}"))
    return (*system, markup(f"\n\n{instructions}"))


def no_place(family: str, role: str) -> ConfigError:
    """The error for a role that a family has no turn for."""
    return ConfigError(
        f"the {family} format has no place for a {role} message here", hint="say it in the first system or a user turn"
    )


__all__ = ["Family", "Frame", "Framed", "History", "Lead", "joined", "no_place"]
