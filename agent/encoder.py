"""Parts to ids and ids to parts, for one tokenizer: a control token is an id, and no text ever turns into one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol, final

from agent.parts import Part, Parts, control, markup
from agent.words import by_words
from tools.errors import ConfigError

TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>")
"""Tags that several tokenizers hold as tokens of their own, and that some template gives a meaning to."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that rendering needs."""

    def encode(self, text: str, **options: Any) -> list[int]: ...
    def decode(self, token_ids: Any, **options: Any) -> Any: ...
    def convert_tokens_to_ids(self, tokens: Any) -> Any: ...


@final
class Encoder:
    """Encodes each run of text between two control tokens at once, as the whole conversation would be.

    `controls` are the special tokens a family sets by id. A special token's name in any text, and a tag of `tags` in
    quoted text, is broken into ordinary pieces that decode to the same characters.
    """

    def __init__(self, tokenizer: Tokenizer, controls: Iterable[str], tags: Iterable[str] = ()) -> None:
        self.tokenizer = tokenizer
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._plain = _of_any_text(_plain_encoder(tokenizer))
        self._ids = {token: _control_id(tokenizer, token) for token in controls}
        self._names = {number: token for token, number in self._ids.items()}
        self._blocked = _blocked(tokenizer, (*TAGS, *tags))
        self._fixed = lru_cache(maxsize=1024)(self._plain)
        self._anchor: tuple[int, str] | None = None
        if self._ids and self._decode(self._plain(" x")) != " x":  # a first space is lost where nothing stands before
            token, number = next(iter(self._ids.items()))
            self._anchor = number, self._decode((number,)) or token

    @property
    def controls(self) -> re.Pattern[str]:
        """Matches, and on a split keeps, the names of the control tokens."""
        return re.compile("(" + "|".join(re.escape(token) for token in self._ids) + ")")

    def check(self, family: str) -> None:
        """Raise `ConfigError` for a tokenizer on which the promises of this class do not hold."""
        special = special_ids(self.tokenizer) | set(self._names)
        names = [self._decode((number,)) for number in sorted(special)[:64]]
        for text in ("a" + "b".join([*self._ids, *names]), "  x = 12\n\n\ty", "naïve £ 你好 🙂", "1\n2 \n"):
            ids = self._plain(text)
            found = special & set(ids)
            if found:
                raise ConfigError(
                    f"the tokenizer turns the literal text {self._decode((min(found),))!r} into that special token, "
                    f"so a tool's words could pass for a turn of {family}"
                )
            if self.text(ids) != text:
                raise ConfigError(f"the tokenizer does not give back the text {text!r} it was given")
        held = self._blocked
        for tag in held.pattern.split("|") if held else ():
            literal = re.sub(r"\\(.)", r"\1", tag)
            number = self.tokenizer.convert_tokens_to_ids(literal)
            if number in self._run([Part(kind="quoted", text=f"a{literal}b")]):
                raise ConfigError(f"the tokenizer cannot write {literal!r} as ordinary text")

    @property
    def numbers(self) -> frozenset[int]:
        """The ids of the control tokens."""
        return frozenset(self._names)

    def control(self, token: str) -> int:
        """The id of a control token."""
        return self._ids[token]

    def ids(self, parts: Iterable[Part]) -> tuple[int, ...]:
        """The ids of `parts`: wrappers without quoted text are encoded once and remembered."""
        out: list[int] = []
        run: list[Part] = []
        for part in parts:
            if part.kind == "control" or part.kind == "seam":
                if run:
                    out += self._run(run)
                    run = []
                if part.kind == "control":
                    out.append(self._ids[part.text])
            elif part.text:
                run.append(part)
        if run:
            out += self._run(run)
        return tuple(out)

    def text(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, special tokens by name."""
        if self._anchor is None or not ids:
            return self._decode(ids)
        number, shown = self._anchor
        return self._decode((number, *ids)).removeprefix(shown)

    def parts(self, ids: Sequence[int]) -> Parts:
        """Sampled ids as control tokens and the text between them."""
        out: list[Part] = []
        start = 0
        for index, number in enumerate(ids):
            if number in self._names:
                if index > start:
                    out.append(markup(self.text(ids[start:index])))
                out.append(control(self._names[number]))
                start = index + 1
        if len(ids) > start:
            out.append(markup(self.text(ids[start:])))
        return tuple(out)

    def _run(self, run: list[Part]) -> Sequence[int]:
        text = "".join(part.text for part in run)
        if all(part.kind == "markup" for part in run):
            return self._fixed(text)
        cuts = list(self._cuts(text, run)) if self._blocked else []
        if not cuts:
            return self._plain(text)
        pieces = zip([0, *cuts], [*cuts, len(text)], strict=True)
        return [number for start, end in pieces for number in self._plain(text[start:end])]

    def _cuts(self, text: str, run: list[Part]) -> Iterator[int]:
        """Where `text` has to be cut so that no tag that touches a quoted part is one token."""
        assert self._blocked is not None
        found = self._blocked.search(text)
        if found is None:
            return
        free: list[tuple[int, int]] = []  # the stretches of markup
        at = 0
        for part in run:
            if part.kind == "markup":
                if free and free[-1][1] == at:
                    free[-1] = (free[-1][0], at + len(part.text))
                else:
                    free.append((at, at + len(part.text)))
            at += len(part.text)
        while found is not None:
            if any(start <= found.start() and found.end() <= end for start, end in free):
                found = self._blocked.search(text, found.end())
            else:
                yield found.start() + 1
                found = self._blocked.search(text, found.start() + 1)

    def _decode(self, ids: Sequence[int]) -> str:
        if self._backend is not None:  # what the tokenizer itself would ask, after looking at every id
            return self._backend.decode(list(ids), skip_special_tokens=False)
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Every id of the tokenizer that is a special token."""
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(number for number, token in added.items() if getattr(token, "special", False)) | frozenset(
        getattr(tokenizer, "all_special_ids", ())
    )


def _plain_encoder(tokenizer: Any) -> Callable[[str], Sequence[int]]:
    """Text to ids with special tokens split.

    A copy of the tokenizer's own backend is used where there is one: it is twice as fast to call, its settings are
    nobody else's, and where a tokenizer puts a space before the first word of a text, it knows that none of our runs
    is a first word.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda text: tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    from tokenizers import Tokenizer as Backend

    own: Any = Backend.from_str(re.sub(r'"prepend_scheme":\s*"first"', '"prepend_scheme":"never"', backend.to_str()))
    own.no_truncation()
    own.no_padding()
    own.encode_special_tokens = True
    return by_words(own)


def _of_any_text(encode: Callable[[str], Sequence[int]]) -> Callable[[str], Sequence[int]]:
    """Half of a surrogate pair, which JSON can spell and no token can hold, becomes U+FFFD."""

    def encoded(text: str) -> Sequence[int]:
        try:
            return encode(text)
        except (TypeError, UnicodeEncodeError):
            return encode(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))

    return encoded


def _control_id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int) or tokenizer.decode([found], skip_special_tokens=False).strip() != token:
        raise ConfigError(f"the tokenizer has no {token} token")
    return found


def _blocked(tokenizer: Any, tags: Iterable[str]) -> re.Pattern[str] | None:
    """Matches the tokenizer's ordinary added tokens that hold one of `tags`, the longest first."""
    special = special_ids(tokenizer)
    vocabulary: dict[str, int] = getattr(tokenizer, "get_added_vocab", dict)()
    wanted = set(tags)
    held = {token for token, number in vocabulary.items() if number not in special and any(t in token for t in wanted)}
    if not held:
        return None
    return re.compile("|".join(re.escape(token) for token in sorted(held, key=lambda token: (-len(token), token))))
