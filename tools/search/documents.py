"""What a local collection is made of, and what every index of one can do, whichever library keeps it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

from tools.record import record
from tools.search.hit import Hit, SearchFailed

_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by did do does for from had has have how in is it its of on or that the their this to"
        " was were what when where which who whom whose why with",
    )
)
MAX_WORDS = 64
_UNSPACED = re.compile(  # Han and kana
    "([\u3005\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+)"
)


@record
class Document:
    """What is indexed."""

    id: str
    """Unique in its collection."""
    title: str
    text: str
    url: str = ""
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Kept beside it, JSON values; never searched."""


class SearchIndex(Protocol):
    """A collection on this machine, ranked by BM25 (Robertson and Zaragoza 2009), the title counting twice."""

    path: Path
    quick: bool
    """True where a search takes less time than handing it to a thread."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Document]: ...

    def search(self, text: str, k: int) -> list[Hit]:
        """The `k` best documents for `text`. Raises `SearchFailed` for a query without a word in it."""
        ...

    def get(self, id: str) -> Document | None:
        """The document of that id."""
        ...

    def check(self) -> None:
        """Read the whole index. Raises `ConfigError` where it is damaged."""
        ...


def unquoted(title: str) -> str:
    """A title as Search-R1 writes one, without the quotes around it; those within stay.

    >>> unquoted('"The "Elbe""'), unquoted("Elbe")
    ('The "Elbe"', 'Elbe')
    """
    quoted = len(title) > 1 and title[0] == title[-1] == '"'
    return title[1:-1] if quoted else title


def telling_words(text: str) -> list[str]:
    """The words of a query that are looked for: each once, in lower case, without the commonest where others are left.

    Nothing in a query is an operator, whatever the library behind makes of quotes and stars.

    >>> telling_words("What is the capital of France?"), telling_words("who is who")
    (['capital', 'france'], ['who', 'is'])
    """
    composed = unicodedata.normalize("NFC", text)  # else an accent written apart would end a word
    parts = (part for word in re.findall(r"[^\W_]+", composed.lower()) for part in _UNSPACED.split(word) if part)
    words = list(dict.fromkeys(word for part in parts for word in _looked_for(part)))[:MAX_WORDS]
    if not words:
        raise SearchFailed("refused", "the query holds no words")
    return [word for word in words if word not in _STOP] or words


def _looked_for(part: str) -> list[str]:
    return _pairs(part) or [part] if _UNSPACED.match(part) else [part]


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)]


def spaced(text: str) -> str:
    """The text as it is indexed, for scripts without spaces between words: Chinese, Japanese.

    Each run of theirs becomes its characters and its pairs of neighbours, as in Lucene's CJKBigramFilter with unigrams;
    `telling_words` looks for the pairs, and for a character that stands alone.

    >>> spaced("in 東京都"), telling_words("東京都?")
    ('in  東 京 都 東京 京都 ', ['東京', '京都'])
    """
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", text)
    return _UNSPACED.sub(lambda run: f" {' '.join([*run[0], *_pairs(run[0])])} ", composed)
