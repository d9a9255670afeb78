"""Holding a family against the chat template that a tokenizer brings."""

from __future__ import annotations

from typing import Any

from agent.dialect import TokenDialect
from agent.families import family_named, family_of
from agent.families.family import Family
from agent.families.template import FromTemplate
from agent.parts import Turn, markup, text_of
from envs.message import Message, answer_to, assistant
from tools.content import Text
from tools.errors import ConfigError
from tools.tool import ToolCall, ToolResult

_CONVERSATIONS = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
)
_WORDS = ("Be brief.", "2 + 2?", "4", "Why so?")
_NUMBERS = {"type": "object", "properties": {"n": {"type": "integer", "description": "A number."}}, "required": ["n"]}
_TOOL = {"type": "function", "function": {"name": "twice_of", "description": "Doubles.", "parameters": _NUMBERS}}
_CALL = ToolCall(id="twiceof01", name="twice_of", raw="", arguments={"n": 2})  # the id is of a form all templates take
_CALLED = {"id": _CALL.id, "type": "function", "function": {"name": _CALL.name, "arguments": _CALL.arguments}}


def proven_family(tokenizer: Any, wanted: Family | str | None, forks: bool) -> tuple[Family, bool]:
    """The family, and whether turns may be appended: where not, each is rendered anew, as `forks` allows.

    A family that nobody asked for gives way to frames read from the template where its text differs from the
    template's. Raises `ConfigError` where neither is exact, and where one that was asked for differs.
    """
    if wanted is None:
        family = family_of(tokenizer)
    elif isinstance(wanted, (str, FromTemplate)):  # frames are read from this tokenizer's template, not from another's
        family = family_named(wanted if isinstance(wanted, str) else wanted.name, tokenizer)
    else:
        family = wanted
    if isinstance(family, FromTemplate):
        return _or_forks(family, None, forks)
    doubt = difference(family, tokenizer)
    if doubt is None:
        return family, True
    if wanted is not None and not forks:
        raise ConfigError(
            f"the tokenizer's chat template is not {family.name}: {doubt}",
            hint='leave the family out; or set tokenizer.chat_template = "" where the model was not trained with it',
        )
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
                messages, tokenize=False, add_generation_prompt=True, **told_to(family, tokenizer)
            )
        except Exception as error:  # what their template cannot express is nothing to compare
            refused = error
            continue
        compared += 1
        turns = [_turn(family, role, word) for role, word in pairs]
        ours = "".join(text_of(parts) for _, parts in family.begin(turns, "", native=False))
        if ours != theirs:
            return _where(family, ours, theirs)
    return None if compared else f"it cannot write a plain conversation ({refused})"


def calls_difference(family: Family, tokenizer: Any) -> str | None:
    """Where a call and its result as the family writes them first differ from the tokenizer's own template, or None.

    How tools are described is not compared. A template that shows no tools says nothing against calls that are text in
    turns which every template has; turns and tokens of a family's own are not in it, and that is a difference.
    """
    if family.native is None or not getattr(tokenizer, "chat_template", None):
        return None
    asked, told = _WORDS[1], answer_to(_CALL, ToolResult(content=(Text(text=_WORDS[2]),)))
    rows: list[dict[str, Any]] = [
        {"role": "user", "content": _said(family, asked)},
        {"role": "assistant", "content": _said(family, ""), "tool_calls": [_CALLED]},
        {"role": "tool", "content": _said(family, told.text), "name": _CALL.name, "tool_call_id": _CALL.id},
    ]

    def written(messages: list[dict[str, Any]]) -> str:
        return tokenizer.apply_chat_template(
            messages, tools=[_TOOL], tokenize=False, add_generation_prompt=True, **told_to(family, tokenizer)
        )

    try:
        if _CALL.name not in written(rows[:1]):
            return "it shows the model no tools" if isinstance(family.native, TokenDialect) else None
        theirs = written(rows).rpartition(asked)[2]
    except Exception as error:  # a template is a program of somebody else's and may raise anything
        return f"it cannot write a call and its result ({error})"
    if isinstance(family.native, TokenDialect):
        results = family.native.turns([_CALL], [told])
    else:
        injection = family.native.format([_CALL], [told])
        results = (Turn(role=injection.role, parts=injection.parts),)
    turns = [Turn(role="user", parts=(markup(asked),)), _action(family, assistant(tool_calls=[_CALL])), *results]
    ours = "".join(text_of(parts) for _, parts in family.begin(turns, "", native=True)).rpartition(asked)[2]
    return None if ours == theirs else _where(family, ours, theirs)


def told_to(family: Family, tokenizer: Any) -> dict[str, Any]:
    """What `apply_chat_template` has to be given so that the tokenizer's template can write what the family does."""
    if not family.today:
        return dict(family.options)
    clock = f"{{%- macro strftime_now(form) -%}}{family.today}{{%- endmacro -%}}"
    return {**family.options, "chat_template": clock + str(tokenizer.chat_template)}


def _where(family: Family, ours: str, theirs: str) -> str:
    at = next(i for i in range(len(ours) + 1) if ours[: i + 1] != theirs[: i + 1])
    start = max(0, at - 20)
    return f"it writes {theirs[start : at + 40]!r} where {family.name} writes {ours[start : at + 40]!r}"


def _said(family: Family, word: str) -> Any:
    return [{"type": "text", "text": word}] if family.listed else word


def _turn(family: Family, role: str, word: str) -> Turn:
    return _action(family, assistant(word)) if role == "assistant" else Turn(role=role, parts=(markup(word),))


def _action(family: Family, said: Message) -> Turn:
    if isinstance(family.native, TokenDialect):
        parts, end = family.native.written(said), family.native.ends_in_history(said)
        return Turn(role="assistant", parts=parts, end=end)
    text = said.text if family.native is None else family.native.write(said)
    return Turn(role="assistant", parts=(markup(family.opening + text),))


def _or_forks(family: FromTemplate, doubt: str | None, forks: bool) -> tuple[Family, bool]:
    if family.doubt is None:
        return family, True
    if forks:
        return family, False
    raise ConfigError(
        f"turns cannot be appended exactly in this model's chat template: {family.doubt}",
        hint="forks=True renders every turn anew and records the fork; or serve the model and use openai:NAME",
    )
