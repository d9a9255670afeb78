"""Documents out of files: jsonl, parquet, and folders of text or HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from tools.errors import ConfigError, nearest
from tools.search.documents import Document, unquoted
from tools.search.extract import decoded, page_of
from tools.search.fetch import Fetched
from tools.search.pictures import Picture

Columns: TypeAlias = Mapping[str, str]
"""Where `id`, `title` and `text` are found, by the source's own names; only the text must be there."""

_PAGES = frozenset({".html", ".htm", ".xhtml"})
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"})
_TEXTS = frozenset({".txt", ".md", ".rst"})


def documents_of(source: Path, format: str | None, columns: Columns) -> tuple[int, Iterator[Document]]:
    """(how many, the documents in an order that never changes). Raises `ConfigError` where `source` is unfit."""
    if not source.exists():
        raise ConfigError(f"there is nothing at {source}")
    kind = format or ("dir" if source.is_dir() else source.suffix.lstrip("."))
    if kind not in FORMATS:
        raise ConfigError(f"{source} is of no known format", hint=f"--from {' or '.join(sorted(FORMATS))}")
    total, documents = FORMATS[kind](source, columns)
    if not total:
        raise ConfigError(f"{source} holds no documents")
    return total, documents


def fingerprint(source: Path, format: str | None, columns: Columns) -> str:
    """A text that changes when what `documents_of` gives may change."""
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()]
    return json.dumps([format, dict(columns), state])


def pictures_of(source: Path) -> tuple[int, Iterator[Picture]]:
    """(how many, the pictures of a folder): its path below the folder is an id, its name a title."""
    if not source.is_dir():
        raise ConfigError(f"{source} is not a folder of pictures")
    paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in _PICTURES and path.is_file()]

    def read() -> Iterator[Picture]:
        for path in paths:
            name = path.relative_to(source).as_posix()
            yield Picture(id=name, title=re.sub(r"[-_\s]+", " ", path.stem).strip(), data=path.read_bytes())

    return len(paths), read()


def _jsonl(source: Path, columns: Columns) -> tuple[int, Iterator[Document]]:
    with source.open("rb") as file:
        total = sum(1 for line in file if line.strip())

    def read() -> Iterator[Document]:
        with source.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row: Any = json.loads(line.decode())
                    json.dumps(row, ensure_ascii=False).encode()  # half a pair of UTF-16 is written as \\ud800
                except ValueError as error:  # a UnicodeDecodeError is one, and a UnicodeEncodeError
                    raise ConfigError(f"{source}, line {number}: {error}") from error
                if not isinstance(row, dict):
                    raise ConfigError(f"{source}, line {number}: not a JSON object")
                yield _document(cast("dict[str, Any]", row), columns, number, f"{source}, line {number}")

    return total, read()


def _parquet(source: Path, columns: Columns) -> tuple[int, Iterator[Document]]:
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise ConfigError("reading parquet needs pyarrow", hint="pip install pyarrow") from error
    try:
        table: Any = parquet.ParquetFile(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source} is not a parquet file: {error}") from error

    def read() -> Iterator[Document]:
        number = 0
        for batch in table.iter_batches(batch_size=2000):
            for row in batch.to_pylist():
                number += 1
                yield _document(cast("dict[str, Any]", row), columns, number, f"{source}, row {number}")

    return int(table.metadata.num_rows), read()


def _folder(
    source: Path, columns: Columns, suffixes: frozenset[str] = _PAGES | _TEXTS
) -> tuple[int, Iterator[Document]]:
    """A file is a document: its path below the folder is the id; HTML is read as a page."""
    if not source.is_dir():
        raise ConfigError(f"{source} is not a folder", hint=f"--from {' or '.join(sorted(FORMATS))}")
    paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in suffixes and path.is_file()]

    def read() -> Iterator[Document]:
        for path in paths:
            name = path.relative_to(source).as_posix()
            if path.suffix.lower() in _PAGES:
                page = page_of(Fetched(url=name, media_type="text/html", charset="", body=path.read_bytes()))
                yield Document(id=name, title=page.title or name, text=page.text)
            else:
                yield Document(id=name, title=path.stem, text=decoded(path.read_bytes()))

    return len(paths), read()


def _html(source: Path, columns: Columns) -> tuple[int, Iterator[Document]]:
    """The pages of a folder, and nothing else of it."""
    return _folder(source, columns, _PAGES)


def _document(row: Mapping[str, Any], columns: Columns, number: int, where: str) -> Document:
    """A row as a document; Search-R1's `contents` (title in quotes, a line, text) is read too."""
    if columns["text"] not in row and "contents" in row:
        title, _, text = str(row["contents"]).partition("\n")
        return Document(id=str(row.get(columns["id"], number)), title=unquoted(title.strip()), text=text)
    if columns["text"] not in row:
        hint = f"{nearest(columns['text'], row)}; name it with --text"
        raise ConfigError(f"{where}: there is no column {columns['text']!r}, only {', '.join(row)}", hint=hint)
    title = row.get(columns["title"])
    return Document(
        id=str(row.get(columns["id"], number)),
        title="" if title is None else str(title),
        text=str(row[columns["text"]] or ""),
        url=str(row.get("url") or ""),
    )


FORMATS: Mapping[str, Callable[[Path, Columns], tuple[int, Iterator[Document]]]] = {
    "jsonl": _jsonl,
    "parquet": _parquet,
    "dir": _folder,
    "html": _html,
}
