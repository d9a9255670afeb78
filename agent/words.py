"""Text to ids, word by word: a word that was met before is looked up.

Byte-level BPE cuts a text into pieces and encodes each by itself. In the patterns by which Qwen, Llama 3, Mistral,
gpt-oss, GPT-2 and SmolLM2 cut, a space can only open a piece or stand among nothing but white space. So a space behind
a visible character always opens one: text may be cut there beforehand, and the ids are those of the whole.

Cutting takes a tokenizer more time than encoding the pieces. A new word of a plain shape (`word`, `Word`, `WORD`
or digits; several with one newline between; marks at the end) is cut here: all the patterns cut it alike but for its
digits, of which the tokenizer is asked once how many it takes together.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias

JSON: TypeAlias = Mapping[str, Any]

LONGEST = 32
"""Characters of a word that is worth remembering."""
REMEMBERED = 1 << 16
LEARNED = 1 << 12
"""Words after which a text of mostly new ones of no plain shape is encoded at once, and they are not remembered."""
_CUT = re.compile(" (?<=[!-~] )")
"""A space behind a visible character, found by the space."""
_PLAIN = re.compile(r"""((?:[A-Z]?[a-z]+|[A-Z]+|[0-9]+)(?:\n(?:[A-Z]?[a-z]+|[A-Z]+|[0-9]+))*)([.,;:!?)"]+|\n)?""")
"""A word that all the patterns cut alike: letters or digits, and marks or a newline at the end."""
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
    spell = _speller(backend)

    def encode(text: str) -> list[int]:
        if len(known) > most:
            known.clear()
        first, *words = _CUT.split(text)
        found: list[Any] = list(map(known.get, words))
        odd: list[int] = []
        for index in [index for index, ids in enumerate(found) if ids is None]:
            word = words[index]
            found[index] = ids = spell(word)
            if ids is None:
                odd.append(index)
            elif len(word) <= LONGEST and word.isalpha():  # numbers seldom come again
                known[word] = ids
        if 2 * len(odd) > len(words) and len(known) > LEARNED:  # nothing like what was met before
            return whole(text)
        made = backend.encode(" ".join([first, *(words[index] for index in odd)]), add_special_tokens=False)
        if not odd:
            return [*made.ids, *chain.from_iterable(found)]
        ids = tuple(made.ids)  # a list for each word would be looked at by every garbage collection
        offsets = made.offsets
        at = len(first)
        start = first_end = bisect_left(offsets, (at, 0))
        for index in odd:
            word = words[index]
            at += 1 + len(word)
            end = bisect_left(offsets, (at, 0), start)
            found[index] = ids[start:end]
            start = end
            if len(word) <= LONGEST:
                known[word] = found[index]
        return [*ids[:first_end], *chain.from_iterable(found)]

    return encode


def _speller(backend: Any) -> Callable[[str], tuple[int, ...] | None]:
    """The ids of a space and a word of a plain shape behind it; None for another, or for any where a tokenizer has
    added tokens that such words may hold, or cuts them in a way of its own."""

    def cut(text: str) -> list[str]:
        return [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]

    digits = cut(" 12345678")
    apart = digits[0] == "Ġ"
    size = len(digits[1]) if apart else 0

    def pieces(word: str, end: str) -> list[str]:
        """How a space, a plain word and what ends it are cut."""
        found: list[str] = []
        for line in word.split("\n"):
            space = "Ċ" if found else "Ġ"
            if line[0] <= "9" and apart:
                found.append(space)
                found += line if size == 1 else [line[at : at + size] for at in range(0, len(line), size)]
            elif found:
                found += [space, line]
            else:
                found.append(space + line)
        return [*found, "Ċ" if end == "\n" else end] if end else found

    added = (token.content for token in backend.get_added_tokens_decoder().values())
    held = any(re.fullmatch(r"""[\nA-Za-z0-9.,;:!?)"]+""", token) for token in added)
    samples = [("Ab", '.)"'), ("AB", "\n"), ("12345678", ""), ("Ab\n1234\nAb", "\n"), ("12\n34\nab", ")")]
    if held or any(cut(f" {word}{end}") != pieces(word, end) for word, end in samples):
        return lambda word: None
    tokenize = backend.model.tokenize

    @lru_cache(maxsize=1 << 12)
    def ids_of(piece: str) -> tuple[int, ...]:
        return tuple([token.id for token in tokenize(piece)])

    def spell(word: str) -> tuple[int, ...] | None:
        if word.isalpha() and word.islower() and word.isascii():
            return tuple([token.id for token in tokenize("Ġ" + word)])
        plain = _PLAIN.fullmatch(word)
        return tuple(chain.from_iterable(map(ids_of, pieces(plain[1], plain[2])))) if plain else None

    return spell


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
