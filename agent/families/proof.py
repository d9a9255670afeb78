"""Holding a family against the chat template that a tokenizer brings."""

from __future__ import annotations

from typing import Any

from agent.dialect import TokenDialect
from agent.families import family_named, family_of
from agent.families.family import Family
from agent.families.template import FromTemplate
from agent.parts import Turn, markup, text_of
from envs.message import assistant
from tools.errors import ConfigError

_CONVERSATIONS = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
)
_WORDS = ("Be brief.", "2 + 2?", "4", "Why so?")


def proven_family(tokenizer: Any, wanted: Family | str | None, forks: bool) -> tuple[Family, bool]:
    """The family, and whether turns may be appended: where not, each is rendered anew, as `forks` allows.

    A family of ours whose text differs from the template's gives way to frames read from the template. Raises
    `ConfigError` where neither is exact.
    """
    if wanted is not None and not isinstance(wanted, str):
        return wanted, True
    family = family_of(tokenizer) if wanted is None else family_named(wanted, tokenizer)
    if isinstance(family, FromTemplate):
        return _or_forks(family, None, forks)
    doubt = difference(family, tokenizer)
    if doubt is None:
        return family, True
    if wanted is not None and not forks:
        raise ConfigError(f"the tokenizer's chat template is not {family.name}: {doubt}", hint="leave the family out")
    try:
        return _or_forks(FromTemplate(tokenizer), doubt, forks)
    except ConfigError as error:
        raise ConfigError(f"{error}; nor is it {family.name}: {doubt}", hint=error.hint) from error


def difference(family: Family, tokenizer: Any) -> str | None:
    """Where the text of a family first differs from the tokenizer's own template, or None: on plain conversations that
    both can express. Without a template there is nothing to differ from.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    refused: Exception | None = None
    compared = 0
    for roles in _CONVERSATIONS:
        words = _WORDS if roles[0] == "system" else _WORDS[1:]
        pairs = list(zip(roles, words, strict=False))
        messages = [{"role": role, "content": _said(family, word)} for role, word in pairs]
        try:
            theirs = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **family.options
            )
        except Exception as error:  # what their template cannot express is nothing to compare
            refused = error
            continue
        compared += 1
        turns = [_turn(family, role, word) for role, word in pairs]
        ours = "".join(text_of(parts) for _, parts in family.begin(turns, "", native=False))
        if ours != theirs:
            at = next(i for i in range(len(ours) + 1) if ours[: i + 1] != theirs[: i + 1])
            start = max(0, at - 20)
            return f"it writes {theirs[start : at + 40]!r} where {family.name} writes {ours[start : at + 40]!r}"
    return None if compared else f"it cannot write a plain conversation ({refused})"


def _said(family: Family, word: str) -> Any:
    return [{"type": "text", "text": word}] if family.listed else word


def _turn(family: Family, role: str, word: str) -> Turn:
    if role != "assistant" or not isinstance(family.native, TokenDialect):
        return Turn(role=role, parts=(markup(family.opening + word if role == "assistant" else word),))
    said = assistant(word)
    return Turn(role=role, parts=family.native.written(said), end=family.native.ends_in_history(said))


def _or_forks(family: FromTemplate, doubt: str | None, forks: bool) -> tuple[Family, bool]:
    if family.doubt is None:
        return family, True
    if forks:
        return family, False
    raise ConfigError(
        f"turns cannot be appended exactly in this model's chat template: {family.doubt}",
        hint="forks=True renders every turn anew and records the fork; or serve the model and use openai:NAME",
    )
