"""An index searched by meaning: documents and questions as vectors, and both rankings joined.

Words find what is named, vectors what is described in other words. `both` joins the two rankings by reciprocal rank
fusion (Cormack, Clarke and Buettcher 2009): score(d) = sum over rankings of 1 / (60 + rank of d). All vectors are
compared, in memory: 1.5 kB a document with MiniLM, and nothing is left out by an approximation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias, final

from tools.errors import ConfigError
from tools.search.documents import Document, telling_words
from tools.search.encoders import TextEncoder, Vectors, require_encoder, text_encoder
from tools.search.hit import Hit
from tools.search.local import LocalIndex

By: TypeAlias = Literal["words", "meaning", "both"]
"""What ranks documents."""

FUSION = 60
"""The paper's constant: how little the first ranks count more than the next."""
DEPTH = 50
"""Of each ranking, how many are joined."""


@final
class MeaningIndex:
    """A `LocalIndex` that has vectors. Raises `ConfigError` where it has none, and where their encoder is missing."""

    quick = False

    def __init__(self, words: LocalIndex, by: Literal["meaning", "both"] = "both") -> None:
        if not words.encoder:
            raise ConfigError(
                f"{words.path} has no vectors", hint="build it with them: python -m tools.search index --encoder minilm"
            )
        require_encoder(words.encoder)
        self.words, self.by = words, by
        self.path: Path = words.path

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.words)

    def search(self, text: str, k: int) -> list[Hit]:
        """See `SearchIndex.search`."""
        telling_words(text)  # a query without words is refused, as by the words
        if self.by == "meaning":
            return self._nearest(text, k)
        named, meant = self.words.search(text, max(k, DEPTH)), self._nearest(text, max(k, DEPTH))
        return joined(named, meant)[:k]

    def get(self, id: str) -> Document | None:
        """See `SearchIndex.get`."""
        return self.words.get(id)

    def check(self) -> None:
        """See `SearchIndex.check`."""
        self.words.check()
        self.words.vectors()

    def _nearest(self, text: str, k: int) -> list[Hit]:
        import numpy as np

        cosines = self._vectors @ self._encoder.encode([text], asking=True)[0]
        k = min(k, len(self))
        best = np.argpartition(-cosines, k - 1)[:k]
        best = best[np.lexsort((best, -cosines[best]))]
        return self.words.at(best.tolist(), cosines[best].tolist())

    @cached_property
    def _vectors(self) -> Vectors:
        return self.words.vectors()

    @cached_property
    def _encoder(self) -> TextEncoder:
        return text_encoder(self.words.encoder)


def joined(*rankings: list[Hit]) -> list[Hit]:
    """Rankings of documents joined by reciprocal rank fusion; the better ranked of equals first.

    >>> a, b, c = (Hit(title=t, info={"id": t}) for t in "abc")
    >>> [(hit.title, round(hit.score or 0, 4)) for hit in joined([a, b], [b, c])]      # b: 1/62 + 1/61
    [('b', 0.0325), ('a', 0.0164), ('c', 0.0161)]
    """
    scores: dict[str, float] = {}
    hits: dict[str, Hit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            id = hit.info["id"]
            scores[id] = scores.get(id, 0.0) + 1 / (FUSION + rank)
            hits.setdefault(id, hit)
    return [replace(hits[id], score=scores[id]) for id in sorted(scores, key=lambda id: -scores[id])]
