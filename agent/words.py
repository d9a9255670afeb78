"""Text to ids, word by word: a word that was met before is looked up.

Byte-level BPE cuts a text into pieces and encodes each by itself. In the patterns by which Qwen, Llama 3, Mistral,
gpt-oss, GPT-2 and SmolLM2 cut, a space can only open a piece or stand among nothing but white space. So a space behind
a visible character always opens one: text may be cut there beforehand, and the ids are those of the whole.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

JSON: TypeAlias = Mapping[str, Any]

LONGEST = 32
"""Characters of a word that is worth remembering."""
REMEMBERED = 1 << 16
_CUT = re.compile(" (?<=[!-~] )")
"""A space behind a visible character, found by the space."""
_CASED = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ALTERNATIVES = frozenset(
    [
        *(_ENDINGS, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", r"'(?:[sdmt]|ll|ve|re)"),
        *(r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?\p{L}+", r" ?\p{N}+", r"\p{N}", r"\p{N}{1,3}", r"\p{N}+"),
        *(rf"[^\r\n\p{{L}}\p{{N}}]?{_CASED[0]}*{_CASED[1]}+{end}" for end in ("", f"{_ENDINGS}?")),
        *(rf"[^\r\n\p{{L}}\p{{N}}]?{_CASED[0]}+{_CASED[1]}*{end}" for end in ("", f"{_ENDINGS}?")),
        *(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"),
        *(r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", r"\s+"),
    ]
)
"""What the known patterns are made of: in each, a space is the first character, or only white space is matched."""


def by_words(backend: Any, most: int = REMEMBERED) -> Callable[[str], Sequence[int]]:
    """Encodes as `backend`, a `tokenizers.Tokenizer`, does without special tokens; faster where it cuts before spaces.

    The new words of a text are encoded at once, one behind the other. At `most` words, all are forgotten.
    """

    def whole(text: str) -> list[int]:
        return backend.encode(text, add_special_tokens=False).ids

    if not cuts_before_spaces(backend):
        return whole
    known: dict[str, tuple[int, ...]] = {}  # the ids of a word and the space before it

    def encode(text: str) -> list[int]:
        first, *words = _CUT.split(text)
        found = list(map(known.get, words))
        new = [word for word, ids in zip(words, found, strict=True) if ids is None]
        made = backend.encode(" ".join([first, *new]), add_special_tokens=False)  # cut at the same places
        ids = tuple(made.ids)  # a list for each word would be looked at by every garbage collection
        if not new:
            return [*ids, *chain.from_iterable(found)]  # pyright: ignore[reportArgumentType]
        if len(known) > most:
            known.clear()
        offsets = made.offsets
        at = len(first)
        start = first_end = bisect_left(offsets, (at, 0))
        pieces: list[tuple[int, ...]] = []
        for word in new:
            at += 1 + len(word)
            end = bisect_left(offsets, (at, 0), start)
            pieces.append(ids[start:end])
            start = end
            if len(word) <= LONGEST:
                known[word] = pieces[-1]
        rest = iter(pieces)
        return [*ids[:first_end], *chain.from_iterable(next(rest) if old is None else old for old in found)]

    return encode


def cuts_before_spaces(backend: Any) -> bool:
    """Whether a tokenizer is known to open a piece at each space behind a visible character."""
    ordinary = [token for token in backend.get_added_tokens_decoder().values() if not token.special]
    normalizer = backend.normalizer
    return (
        type(backend.model).__name__ == "BPE"
        and not backend.model.dropout
        and (normalizer is None or json.loads(normalizer.__getstate__())["type"] == "NFC")  # joins nothing to a space
        and not any(" " in token.content or token.lstrip or token.rstrip or token.single_word for token in ordinary)
        and backend.pre_tokenizer is not None
        and _is_known(json.loads(backend.pre_tokenizer.__getstate__()))
    )


def _is_known(cutter: JSON) -> bool:
    """Whether a pre-tokenizer cuts by the known patterns."""
    steps: list[JSON] = cutter["pretokenizers"] if cutter["type"] == "Sequence" else [cutter]
    cuts = False
    for step in steps:
        if step["type"] == "ByteLevel" and not step["add_prefix_space"]:
            cuts = cuts or step["use_regex"]
        elif step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
            cuts = True
            if not _ALTERNATIVES.issuperset(_alternatives(step["pattern"].get("Regex", ""))):
                return False
        elif step["type"] != "Digits":
            return False
    return cuts


def _alternatives(pattern: str) -> list[str]:
    """The alternatives of a pattern at its top level.

    >>> _alternatives(r"(?:a|b)+|[|]|c")
    ['(?:a|b)+', '[|]', 'c']
    """
    found = [""]
    depth = 0
    for letter in pattern:
        depth += (letter in "([") - (letter in ")]")
        if letter == "|" and not depth:
            found.append("")
        else:
            found[-1] += letter
    return found
