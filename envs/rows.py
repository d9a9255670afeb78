"""Rows of a data set on disk, in parquet, jsonl, json, csv or tsv; few in memory at a time where the format allows."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast, final

from tools.errors import ConfigError, nearest

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")

_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "testmini")
_SAME = {"validation": {"validation", "valid", "val", "dev"}, "dev": {"validation", "valid", "val", "dev"}}
_NOT_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "package.json")


@final
class Row:
    """One row, and where it stands; columns are found by any of several names, whatever their case."""

    def __init__(self, values: Mapping[str, Any], where: str, folder: Path) -> None:
        self.values = values
        self.where = where
        """For messages: `test.parquet, row 3`, counted from 1."""
        self.folder = folder
        """What relative paths in the row are relative to."""
        self._names = {name.lower(): name for name in values}

    def has(self, *names: str) -> bool:
        """Whether one of the columns is there and holds something."""
        return self.get(*names) not in (None, "")

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of the columns that is there, or `default`."""
        found = next((self._names[name.lower()] for name in names if name.lower() in self._names), None)
        return default if found is None else self.values[found]

    def need(self, *names: str) -> Any:
        """The first of the columns that is there. Raises `ConfigError`, listing the columns found, without one."""
        if not any(name.lower() in self._names for name in names):
            raise self.without(names)
        return self.get(*names)

    def text(self, *names: str) -> str:
        """A column that must hold text (or a number). Raises `ConfigError` where it is missing or empty."""
        value = self.need(*names)
        if value is None or not str(value).strip():
            raise self.empty(*names)
        return str(value).strip()

    def items(self, *names: str) -> list[Any]:
        """A column that must hold a list, also one written as JSON. Raises `ConfigError` for anything else."""
        value = self.need(*names)
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                pass  # said below
        if not isinstance(value, list):
            raise ConfigError(f"{self.where}: the column {self.name_of(names)} is no list: {str(value)[:60]!r}")
        return cast(list[Any], value)

    def name_of(self, names: Iterable[str]) -> str:
        """The column's name as the file writes it."""
        return next(self._names[name.lower()] for name in names if name.lower() in self._names)

    def empty(self, *names: str) -> ConfigError:
        """The error for a column that holds nothing."""
        return ConfigError(f"{self.where}: the column {self.name_of(names)} is empty")

    def without(self, names: Iterable[str]) -> ConfigError:
        """The error for a missing column: the names looked for, the names found, the nearest."""
        names = list(names)
        close = nearest(names[0], self.values)
        guess = f"; {close}" if close.startswith("did you mean") else ""
        return ConfigError(
            f"{self.where}: there is no column {' or '.join(names)}",
            hint=f"columns found: {', '.join(self.values) or 'none'}{guess}",
        )


def read_rows(source: Path, split: str = "", within: str = "") -> Iterator[Row]:
    """Every row of `source`, a file or a folder.

    Of a folder, the files whose path names `within` (a configuration) where any does, and of these the ones whose name
    says `split`. Raises `ConfigError` when there is none, naming the splits found, and for a damaged file.
    """
    files, folder = files_of(source, split, within), source if source.is_dir() else source.parent
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            for number, values in enumerate(_READERS[file.suffix.lower()](file), 1):
                yield Row(values, f"{name}, row {number}", file.parent)
        except UnicodeDecodeError as error:
            wrong = error.object[error.start]
            raise ConfigError(
                f"{file} is not UTF-8: it holds the byte 0x{wrong:02x}", hint="save it as UTF-8"
            ) from error


def rows_of(data: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a file or folder, or of the `train` split of a data set on the hub, as tasksets to train on name it.

    A hub id is fetched: whoever names one asks for it. Raises `ConfigError` where `data` is neither, and for a file
    that cannot be read.
    """
    path = Path(data).expanduser()
    if path.suffix.lower() in SUFFIXES or path.exists():
        if not path.exists():
            raise ConfigError(f"there is no data {data}")
        return (row.values for row in read_rows(path))
    return _from_the_hub(data)


def files_of(source: Path, split: str = "", within: str = "") -> list[Path]:
    """The data files that `read_rows` reads, in order of name."""
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"{source} is not a data file", hint=f"one of {', '.join(SUFFIXES)}")
        return [source]
    if not source.is_dir():
        hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", str(source))
        raise ConfigError(
            f"there is no file or folder {source}", hint=f"to fetch it from the hub: hf:{source}" if hub_id else None
        )
    inside = [path for path in sorted(source.rglob("*")) if _is_data(path.relative_to(source)) and path.is_file()]
    if not inside:
        raise ConfigError(f"{source} holds no data file", hint=f"looked for {', '.join(SUFFIXES)}")
    if within:
        inside = [path for path in inside if within.lower() in path.relative_to(source).as_posix().lower()] or inside
    named = {path: _splits_of(path.relative_to(source)) for path in inside}
    found = {one for splits in named.values() for one in splits}
    if not split or not found:
        return _one_format(inside)
    wanted = _SAME.get(split, {split})
    chosen = [path for path in inside if named[path] & wanted]
    if not chosen:
        raise ConfigError(f"{source} has no file of split {split!r}", hint=f"splits found: {', '.join(sorted(found))}")
    return _one_format(chosen)


def refuse_other_split(source: Path, split: str) -> None:
    """Raise `ConfigError` where `source` is one file, and by its name of another split than the one asked for."""
    named = _splits_of(Path(source.name)) if source.is_file() else set[str]()
    if named and not named & _SAME.get(split, {split}):
        raise ConfigError(
            f"{source} is of split {' and '.join(sorted(named))}, not {split!r}", hint="give the folder, or no split"
        )


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in SUFFIXES and path.name not in _NOT_DATA and not hidden


def _splits_of(path: Path) -> set[str]:
    words = set(re.split(r"[^a-z0-9]+", path.as_posix().lower()))
    return words & set(_SPLITS)


def _one_format(files: list[Path]) -> list[Path]:
    """The same rows are often stored twice, as parquet and as tsv: the first format of `SUFFIXES` that is there."""
    suffix = min((path.suffix.lower() for path in files), key=SUFFIXES.index)
    return [path for path in files if path.suffix.lower() == suffix]


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{path} is a parquet file, which needs pyarrow", hint="pip install pyarrow") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # pyright: ignore[reportUnknownMemberType]
            for batch in file.iter_batches(batch_size=16):  # pyright: ignore
                yield from batch.to_pylist()  # pyright: ignore
    except pyarrow.lib.ArrowException as error:  # pyright: ignore
        raise ConfigError(f"{path} cannot be read as parquet: {error}") from error


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield _object(json.loads(line), f"{path} line {number}")
                except json.JSONDecodeError as error:
                    raise ConfigError(f"{path} line {number} is not JSON: {error}") from error


def _json(path: Path) -> Iterator[Mapping[str, Any]]:
    """A list of objects, an object of objects by id, an object around one list, or JSON lines under this name."""
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _jsonl(path)
            return
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if isinstance(value, dict):
        entries = cast(dict[str, Any], value)
        lists: list[Any] = [entry for entry in entries.values() if isinstance(entry, list)]
        if entries and all(isinstance(entry, dict) for entry in entries.values()):
            value = [{"id": key, **cast(dict[str, Any], entry)} for key, entry in entries.items()]
        elif len(lists) == 1:
            value = lists[0]
    if not isinstance(value, list):
        raise ConfigError(f"{path} is no list of rows", hint="a list of objects, or one object for each id")
    for number, row in enumerate(cast(list[Any], value), 1):
        yield _object(row, f"{path} entry {number}")


def _separated(separator: str) -> Callable[[Path], Iterator[Mapping[str, Any]]]:
    def read(path: Path) -> Iterator[Mapping[str, Any]]:
        csv.field_size_limit(sys.maxsize)  # a picture in base64 has megabytes
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=separator)
            for row in rows:
                if None in row or None in row.values():
                    raise ConfigError(f"{path} line {rows.line_num} has another number of fields than its first line")
                yield row

    return read


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is no object with columns: {str(value)[:60]!r}")
    return cast(dict[str, Any], value)


def _from_the_hub(name: str) -> Iterator[Mapping[str, Any]]:
    """All rows; whoever names a data set of the hub asks for it to be fetched."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise ConfigError(
            f"{name!r} is no file, and no data set of the hub", hint="a .jsonl or .parquet, or OWNER/NAME"
        )
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(f"fetching {name} needs datasets", hint="pip install 'toolweave[train]'") from error
    try:
        found: Any = datasets.load_dataset(name, split="train")  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:
        raise ConfigError(f"the data set {name} could not be fetched: {error}", hint="give a file instead") from error
    yield from found


_READERS: Mapping[str, Callable[[Path], Iterator[Mapping[str, Any]]]] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
}
