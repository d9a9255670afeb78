"""The text of single tokens, for pages that show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evals.run_folder import RunFolder

_BROKEN = "\ufffd"
_LONGEST_CHARACTER = 4
"""Bytes of a UTF-8 character, so at most this many tokens share one."""


def decoder_of(sampler: object) -> Callable[[Sequence[int]], list[str]] | None:
    """Token texts by the sampler's own tokenizer; None for a sampler that has none."""
    tokenizer = getattr(getattr(sampler, "renderer", None), "tokenizer", None)
    return None if tokenizer is None else lambda ids: token_texts(tokenizer, ids)


def tokenizer_of(sampler: object) -> str:
    """Where the sampler's tokenizer was loaded from; empty for a sampler that has none."""
    tokenizer = getattr(getattr(sampler, "renderer", None), "tokenizer", None)
    return str(getattr(tokenizer, "name_or_path", ""))


def decoder_of_run(folder: RunFolder) -> Callable[[Sequence[int]], list[str]] | None:
    """Token texts by the tokenizer of the model that the run names; None where it is not at hand."""
    identity: dict[str, str] = (folder.read_config() or {}).get("identity", {})
    base_url = identity.get("base_url", "")
    spec = identity.get("tokenizer") or identity.get("model", "")
    if not spec or spec == "gold" or (base_url and not base_url.startswith("vllm:")):  # a chat server's model is a name
        return None
    try:
        from transformers import AutoTokenizer  # pyright: ignore[reportMissingTypeStubs]

        from agent.models import tokenizer_folder

        where = tokenizer_folder(spec)
        if not Path(where).is_dir():  # a hub id: looking at a page downloads nothing
            return None
        tokenizer: Any = AutoTokenizer.from_pretrained(where)  # pyright: ignore
    except Exception:  # the page is worth having without its tokens' text
        return None
    return lambda ids: token_texts(tokenizer, ids)


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """One text per id. A character made of several tokens stands at its last; those before it are empty."""

    def text(some: Sequence[int]) -> str:
        return str(tokenizer.decode(list(some), skip_special_tokens=False))

    texts: list[str] = []
    waiting: list[int] = []
    for token in ids:
        waiting.append(token)
        joined = text(waiting)
        if not joined.endswith(_BROKEN):
            whole = _BROKEN not in joined
            texts += ["" for _ in waiting[1:]] + [joined] if whole else [text([one]) for one in waiting]
            waiting.clear()
        elif len(waiting) == _LONGEST_CHARACTER:  # no character at all: the oldest byte stands alone
            texts.append(text([waiting.pop(0)]))
    return texts + [text([one]) for one in waiting]
