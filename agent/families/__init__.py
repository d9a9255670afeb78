"""Model families: which turn format a tokenizer was made for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, final

from agent.families.chatml import chatml
from agent.families.family import Family, Framed
from agent.families.gemma import gemma
from agent.families.harmony import harmony
from agent.families.llama import llama
from agent.families.mistral import mistral
from agent.families.speakers import END as _SPEAKERS_END
from agent.families.speakers import Speakers
from agent.families.template import FromTemplate
from tools.errors import ConfigError, nearest

FAMILIES: Mapping[str, Callable[[], Family]] = {
    "chatml": chatml,
    "qwen2.5": lambda: chatml("qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "qwen3": lambda: chatml("qwen3", history="strip"),
    "llama3": llama,
    "mistral": mistral,
    "gemma3": gemma,
    "gpt-oss": harmony,
    "idefics3": lambda: Speakers("<|begin_of_text|>"),
    "smolvlm": Speakers,
}
"""The families by name. `template` is one more: read from the template a tokenizer brings."""


def family_named(name: str, tokenizer: Any) -> Family:
    """The family of that name. Raises `ConfigError` with the nearest names."""
    if name == "template":
        return _from_template(tokenizer)
    if name not in FAMILIES:
        raise ConfigError(f"there is no model family {name!r}", hint=nearest(name, (*FAMILIES, "template")))
    return FAMILIES[name]()


def family_of(tokenizer: Any) -> Family:
    """The family a tokenizer belongs to: by its special tokens, and by what its chat template says beside them.

    Raises `ConfigError` where it belongs to none and brings no template.
    """
    template = str(getattr(tokenizer, "chat_template", None) or "")
    has = _Has(tokenizer)
    if has(_SPEAKERS_END) and _SPEAKERS_END in template:
        return Speakers(template[: template.index("{")])
    if has("<|im_start|>", "<|im_end|>"):
        return _chatml_of(tokenizer, template)
    if has("<|start_header_id|>", "<|eot_id|>"):
        date = re.search(r'date_string = "([^"]+)"', template)
        dated = not template or "Cutting Knowledge Date" in template
        return llama(preamble=dated, date=date.group(1) if date else "26 Jul 2024")
    if has("[INST]", "[SYSTEM_PROMPT]"):
        return mistral(_mistral_version(has, template), _default_system(tokenizer, template, "[SYSTEM_PROMPT]"))
    if has("<start_of_turn>", "<end_of_turn>"):
        return gemma()
    if has("<|start|>", "<|channel|>", "<|message|>", "<|call|>"):
        return harmony()
    return _from_template(tokenizer)


def _chatml_of(tokenizer: Any, template: str) -> Framed:
    """ChatML with the system turn that the tokenizer's own template writes by default, and its rule for thinking."""
    if not template:
        return chatml()
    probe = [{"role": "user", "content": "Slot0q"}]
    again = [{"role": "assistant", "content": "Slot2q", "reasoning_content": "Slot1q"}, *probe]
    strips = "reasoning_content" in template and "Slot1q" not in _shown(tokenizer, [*probe, *again])
    default = _default_system(tokenizer, template, "<|im_start|>system\n")
    name = "qwen3" if strips else "qwen2.5" if default and "You are Qwen" in default else "chatml"
    return chatml(name, default, "strip" if strips else "keep")


def _default_system(tokenizer: Any, template: str, opening: str) -> str | None:
    """What a template says in a system turn of its own where a conversation has none."""
    shown = _shown(tokenizer, [{"role": "user", "content": "Slot0q"}]) if template else ""
    found = re.search(rf"{re.escape(opening)}(.*?)(?:<\|im_end\|>|\[/SYSTEM_PROMPT\])", shown, re.DOTALL)
    return found.group(1) if found else None


def _shown(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:  # a template is a program of somebody else's and may raise anything
        raise ConfigError(f"the chat template cannot render a single user message: {error}") from error


def _mistral_version(has: _Has, template: str) -> int:
    if "[ARGS]" in template or (not template and has("[ARGS]")):
        return 11 if "[CALL_ID]" in template else 13
    return 7


def _from_template(tokenizer: Any) -> FromTemplate:
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "the tokenizer has no chat template, and its special tokens are those of no family known here",
            hint=f"use the model's instruct version, or name its family: {', '.join(FAMILIES)}",
        )
    return FromTemplate(tokenizer)


@final
class _Has:
    """Whether a tokenizer has each of some tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, *tokens: str) -> bool:
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        found = [self.tokenizer.convert_tokens_to_ids(token) for token in tokens]
        return all(isinstance(number, int) and number != unknown for number in found)


__all__ = [
    "FAMILIES",
    "Family",
    "Framed",
    "FromTemplate",
    "Speakers",
    "chatml",
    "family_named",
    "family_of",
    "gemma",
    "harmony",
    "llama",
    "mistral",
]
