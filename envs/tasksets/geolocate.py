"""Where on earth is this? A picture in, city, state and country out, scored level by level as GeoVista does.

Photographs are yours: a data file with pictures and places (GeoVistaBench's columns, or plain ones). Without one, there
are maps drawn from packages (`python -m tools.search world`): a cross on outlines of countries, a flag, and the code of
an airport, which a search in the gazetteer tells the place of. The map alone gives the country away, the search the
city. The form and the reward of GeoVista (arXiv 2511.15705), on a world that can be replayed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from envs.env import Env, ToolEnv
from envs.message import Message, assistant, system
from envs.rewards import final_text, geovista, has_answer, tool_calls, tool_errors
from envs.row_pictures import images_of
from envs.rows import Row, read_rows
from envs.rubric import RewardFn, Rubric
from envs.scoring import haversine_km, parse_number, tagged
from envs.seed import derive_seed
from envs.task import Task, Taskset
from envs.tasksets.gold import calling
from envs.trajectory import Trajectory
from tools.content import BlobStore, Image, Text
from tools.errors import ConfigError
from tools.search.atlas import INK, Atlas
from tools.search.cache import Mode
from tools.search.documents import Document
from tools.search.find import provider_for
from tools.search.pictures import PictureIndex
from tools.search.tool import SearchLimits, SearchTools
from tools.search.world import OUTLINES_FILE, world_folder, world_index
from tools.tool import Tool

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Split: TypeAlias = Literal["train", "val", "test"]

SYSTEM = (
    "Find out where on earth this is; search for what the picture tells you. End with"
    " `<answer>city; state or province; country; latitude, longitude</answer>`; say `unknown` for what you cannot tell."
)
PHOTO = "Where on earth was this picture taken?"
MAP = "Which place does the cross mark? Below the map are the flag of its country and the code of its airport."
NEAR_KM = 3.0
"""What GeoVistaBench counts as the same place."""
_LEVELS = ("city", "state", "country")
_IMAGE = ("image", "images", "preview", "raw_image_path", "photo", "picture")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "city": ("city",),
    "state": ("state", "province", "region"),
    "country": ("country",),
    "lat": ("lat", "latitude"),
    "lng": ("lng", "lon", "longitude"),
}


def geolocate(
    data: str = "",
    split: Split = "train",
    n: int | None = None,
    seed: int = 0,
    search: str = "local:places",
    replies: str | None = None,
    mode: Mode = "record",
    reward: Literal["correct", "geovista"] = "correct",
) -> Taskset:
    """Places to recognize, in photographs of yours or on maps drawn offline.

    Args:
        data: A parquet, jsonl, json, csv or tsv file or a folder of them: a picture a row (`image`), its place in
            `city`, `state`, `country`, `lat` and `lng` or, as GeoVistaBench has it, in `metadata`. Maps if left out.
        split: Of maps: `train`, `val` or `test`, which share no city. Of a folder: the files that are named so.
        n: How many tasks; by default 200 maps, or all rows. The first tasks are the same for every `n`.
        seed: Another seed gives other maps of the same split.
        search: Where the tool searches: `local:places`, a file.index, `ddgs`, ...; `none` for no tool.
        replies: A file that records what the provider answers.
        mode: `record` asks for what the file lacks; `replay` asks nobody; `live` does not use the file.
        reward: 1 for the right city; or GeoVista's: 4 for the city, 2 the state, 1 the country.
    """
    if split not in get_args(Split):
        raise ConfigError(f"split is {split!r}; it must be one of {', '.join(get_args(Split))}")
    if n is not None and n < 1:
        raise ConfigError(f"n is {n}; a taskset needs at least 1 task")
    provider = None if search == "none" else provider_for(search, replies, mode)

    def env(task: Task) -> Env:
        tools: tuple[Tool, ...] = ()
        if provider is not None:
            found = SearchTools(provider, limits=SearchLimits(k=3, snippet_chars=300)).tools
            tools = tuple(tool for tool in found if tool.name == "search")
        return ToolEnv(task=task, tools=tools)

    if data:
        blobs = BlobStore()
        tasks = list(_of_rows(Path(data).expanduser(), split, n, blobs))
    else:
        blobs = BlobStore(world_folder() / "blobs")
        tasks = list(_of_maps(split, 200 if n is None else n, seed, blobs))
    return Taskset(name="geolocate", tasks=tasks, env=env, rubric=_rubric(reward), blobs=blobs)


def place_of(text: str) -> dict[str, str] | None:
    """The place that an answer names; None without one.

    >>> place_of("<answer>Lyon; unknown; France; 45.76, 4.84</answer>")
    {'city': 'Lyon', 'state': '', 'country': 'France', 'at': '45.76, 4.84'}
    """
    answer = tagged(text)
    if answer is None:
        return None
    parts = [part.strip() for part in answer.split(";")]
    named = dict(zip((*_LEVELS, "at"), [*parts, "", "", "", ""], strict=False))
    return {level: "" if said.lower() == "unknown" else said for level, said in named.items()}


def within(km: float = NEAR_KM) -> RewardFn:
    """1 for an answer whose coordinates are at most `km` from the place, as GeoVistaBench counts; 0 without any."""

    async def reward(env: Env, trajectory: Trajectory) -> float:
        given, right = place_of(final_text(trajectory)), trajectory.task.info["place"].get("at")
        numbers = [parse_number(part) for part in given["at"].split(",")] if given and right else []
        if len(numbers) != 2 or None in numbers:
            return 0.0
        lat, lng = (float(cast(Any, number)) for number in numbers)
        return float(abs(lat) <= 90 and abs(lng) <= 360 and haversine_km((lat, lng), right) <= km)

    return reward


def _rubric(reward: str) -> Rubric:
    paper = reward == "geovista"
    return Rubric(
        rewards={
            "correct": (geovista(place_of, "city"), 0.0 if paper else 1.0),
            "geovista": (geovista(place_of), 1.0 if paper else 0.0),
            "state": (geovista(place_of, least=2), 0.0),
            "country": (geovista(place_of, least=1), 0.0),
            "within_3_km": (within(), 0.0),
            "tool_calls": (tool_calls(), 0.0),
            "tool_errors": (tool_errors(), 0.0),
            "has_answer": (has_answer(tagged), 0.0),
        }
    )


def _of_rows(source: Path, split: str, n: int | None, blobs: BlobStore) -> Iterator[Task]:
    count = 0
    for number, row in enumerate(read_rows(source, split)):
        if count == n:
            return
        shown = images_of(row, next((name for name in _IMAGE if row.has(name)), "image"), store=blobs)
        count += 1
        yield _task(str(row.get("uid", "id", default=f"{source.stem}-{number}")), shown, PHOTO, _place(row), ())
    if not count:
        raise ConfigError(f"{source} holds no rows")


def _place(row: Row) -> dict[str, Any]:
    """City, state, country and, where they are told, coordinates."""
    said: Any = row.get("metadata")
    try:
        told = json.loads(said) if isinstance(said, str) and said.strip() else said
        found = {**row.values, **cast("dict[str, Any]", told)} if isinstance(told, dict) else row.values
    except ValueError as error:
        raise ConfigError(f"{row.where}: the column metadata is no JSON: {error}") from error
    inside = Row(found, row.where, row.folder)
    place: dict[str, Any] = {"city": inside.text("city"), "country": inside.text("country")}
    place["state"] = str(inside.get(*_COLUMNS["state"]) or "")
    if inside.has(*_COLUMNS["lat"]):
        lat, lng = (parse_number(inside.text(*_COLUMNS[name])) for name in ("lat", "lng"))
        if lat is None or lng is None or abs(lat) > 90 or abs(lng) > 360:
            raise ConfigError(f"{row.where}: latitude and longitude are no degrees", hint="for example 45.76 and 4.84")
        place["at"] = [float(lat), float(lng)]
    return place


def _of_maps(split: Split, n: int, seed: int, blobs: BlobStore) -> Iterator[Task]:
    asked = [place for place in _airports(world_folder()) if _split_of(place) == split]
    stem = f"maps-{split}-s{seed}"
    seen: set[str] = set()
    for index in range(n):
        rng = random.Random(derive_seed(stem, index))
        for _ in range(200):
            airport = rng.choice(asked)
            if airport.id not in seen and _is_found(airport):
                break
        else:
            raise ConfigError(f"{stem} runs out of new places after {index}", hint="ask for a smaller n")
        seen.add(airport.id)
        place = {key: airport.info[key] for key in (*_LEVELS, "at")}
        gold = calling([("search", {"query": _words(airport)})])
        shown = blobs.put_image(_map_of(airport, rng))
        yield _task(f"{stem}-{index}", (shown,), MAP, place, gold, airport.id)


def _task(
    id: str, shown: tuple[Image, ...], question: str, place: Mapping[str, Any], gold: tuple[Message, ...], *known: str
) -> Task:
    said = "; ".join(place[level] or "unknown" for level in _LEVELS)
    if "at" in place:
        said += "; {}, {}".format(*place["at"])
    return Task(
        id=id,
        prompt=(system(SYSTEM), Message(role="user", content=(*shown, Text(text=question)))),
        answer=place["city"],
        gold=(*gold, assistant(f"<answer>{said}</answer>")),
        info={"place": dict(place), "documents": list(known)},
    )


@cache
def _airports(folder: Path) -> tuple[Document, ...]:
    """The airports whose country has a flag, whose province is known, and whose city has one plain name."""
    flags = set(_flags(folder).ids())
    return tuple(
        place
        for place in world_index("places", folder)
        if place.info["state"] not in ("", place.info["city"])
        and place.info["code"] in flags
        and all(c.isalpha() or c in " '.-" for c in place.info["city"])
    )


def _split_of(place: Document) -> Split:
    """The split a city belongs to: 70% train, 10% val, 20% test."""
    bucket = derive_seed("geolocate split", f"{place.info['city']}, {place.info['country']}") % 10
    return "test" if bucket < 2 else "val" if bucket == 2 else "train"


def _words(airport: Document) -> str:
    return airport.id.removeprefix("airports/")


def _is_found(airport: Document) -> bool:
    return airport.id in [hit.info["id"] for hit in world_index("places").search(_words(airport), 3)]


def _map_of(airport: Document, rng: random.Random) -> PILImage:
    """A map with a cross somewhere on it and, below, the flag and the code."""
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    folder = world_folder()
    lat, lon = airport.info["at"]
    centre = max(-80.0, min(80.0, lat + rng.uniform(-4, 4))), lon + rng.uniform(-5, 5)
    chart = _atlas(folder).drawn(centre, (lat, lon))
    picture = PIL.Image.new("RGB", (chart.width, chart.height + 60), "white")
    picture.paste(chart)
    flag = _flags(folder).picture(airport.info["code"]).convert("RGBA")
    flag.thumbnail((90, 48))
    picture.paste(flag, (16, chart.height + 6), flag)
    pen = PIL.ImageDraw.Draw(picture)
    code = airport.id.removeprefix("airports/")
    pen.text((130, chart.height + 8), code, fill=INK, font=PIL.ImageFont.load_default(40))
    return picture


@cache
def _atlas(folder: Path) -> Atlas:
    return Atlas(folder / OUTLINES_FILE)


@cache
def _flags(folder: Path) -> PictureIndex:
    return PictureIndex(folder / "flags.pictures")
