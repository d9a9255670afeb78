"""Places to recognize: gold is right at every level, a guess from the map is not, and rows of one's own are read."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from agent import ScriptedSampler, rollout
from envs import Message, Trajectory, assistant
from envs.find import find_taskset
from envs.task import Task, Taskset
from envs.tasksets import geolocate as module
from evals.check import check
from tools.errors import ConfigError
from tools.search.documents import Document
from tools.search.local import build
from tools.search.pictures import Picture, build_pictures
from tools.search.world import OUTLINES_FILE

SQUARE = {
    "transform": {"scale": [1, 1], "translate": [0, 40]},
    "arcs": [[[0, 0], [20, 0], [0, 20], [-20, 0], [0, -20]]],
    "objects": {"countries": {"geometries": [{"type": "Polygon", "arcs": [[0]]}]}},
}


def png(colour: str) -> bytes:
    data = io.BytesIO()
    PIL.Image.new("RGB", (60, 40), colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two countries of two provinces with forty airports, on one square of land."""
    folder = tmp_path_factory.mktemp("world")
    letters = "BCDFGHJKLMNPQRSTVWXZ"
    airports = [
        Document(
            id=f"airports/{country[0]}{letter}X",
            title=f"Airport ({country[0]}{letter}X)",
            text=f"Airport of {letter}ity, Up{province}, {country}.",
            info={
                "city": f"{letter}ity",
                "state": f"Up{province}",
                "country": country,
                "code": country.lower(),
                "at": [45.0 + n / 10, 5.0 + k],
            },
        )
        for k, country in enumerate(("Ardia", "Brolia"))
        for n, letter in enumerate(letters)
        for province in ("mar" if n % 2 else "nor",)
    ]
    build(airports, folder / "places.index", source="test")
    flags = [Picture(id=c, title=c, data=png(colour)) for c, colour in (("ardia", "red"), ("brolia", "blue"))]
    build_pictures(flags, folder / "flags.pictures")
    (folder / OUTLINES_FILE).write_text(json.dumps(SQUARE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLWEAVE_WORLD", str(folder))
        yield folder


def played(taskset: Taskset, script: Callable[[Task], tuple[Message, ...]]) -> list[Trajectory]:
    async def all_of_them() -> list[Trajectory]:
        return [
            await rollout(taskset.env(task), ScriptedSampler(script(task)), rubric=taskset.rubric)
            for task in taskset.tasks
        ]

    return asyncio.run(all_of_them())


def test_gold_is_right_at_every_level_and_wrong_answers_are_not() -> None:
    taskset = find_taskset("geolocate", {"n": 6})
    assert check(taskset).problems == ()
    for episode in played(taskset, lambda task: task.gold):
        assert episode.scores["geovista"] == 4 and episode.reward == 1
        assert [episode.scores[name] for name in ("correct", "state", "country", "within_3_km")] == [1] * 4
        assert episode.task.info["documents"][0] in episode.calls[0].result.data["hits"]


def test_what_is_answered_without_a_search_is_paid_by_its_level() -> None:
    taskset = find_taskset("geolocate", {"n": 4, "reward": "geovista"})
    said: dict[str, Callable[[dict[str, Any]], str]] = {
        "2.0": lambda place: f"Xanadu; {place['state']}; {place['country']}; 0, 0",
        "1.0": lambda place: f"unknown; unknown; {place['country']}",
        "0.0": lambda place: f"{place['city']}; unknown; Cordia",
        "4.0": lambda place: place["city"],
    }
    for worth, write in said.items():
        episodes = played(
            taskset, lambda task, write=write: (assistant(f"<answer>{write(task.info['place'])}</answer>"),)
        )
        assert [episode.reward for episode in episodes] == [float(worth)] * 4
        assert all(episode.scores["within_3_km"] == 0 for episode in episodes)


def test_maps_show_where_the_place_is_and_splits_share_no_city() -> None:
    taskset = find_taskset("geolocate", {"n": 3})
    assert taskset.blobs is not None
    for task in taskset.tasks:
        image, question = task.prompt[-1].content
        assert question == module.Text(text=module.MAP)
        picture = taskset.blobs.open(image)  # pyright: ignore[reportArgumentType]
        red = picture.getcolors(100_000) or []
        assert picture.size == (480, 420) and any(colour == (200, 30, 30) for _, colour in red), "the cross"
    more = find_taskset("geolocate", {"n": 6}).tasks
    assert more[:3] == taskset.tasks, "and the first tasks do not depend on how many there are"
    cities = {
        split: {task.answer for task in find_taskset("geolocate", {"n": 2, "split": split}).tasks}
        for split in ("train", "val", "test")
    }
    assert not cities["train"] & cities["val"] and not cities["train"] & cities["test"]


def test_photographs_of_ones_own_are_read_from_plain_columns_and_from_geovistabench(tmp_path: Path) -> None:
    (tmp_path / "lyon.png").write_bytes(png("green"))
    place = {"city": "Lyon", "state": "", "country": "France", "lat": 45.76, "lng": 4.84}
    rows = [
        {
            "image": "lyon.png",
            "city": "Lyon",
            "province": "Rhône",
            "country": "France",
            "latitude": "45.76",
            "lon": 4.8,
        },
        {"uid": "g1", "raw_image_path": "lyon.png", "metadata": json.dumps(place)},
        {"image": base64.b64encode(png("red")).decode(), "city": "Oslo", "country": "Norway"},
    ]
    (tmp_path / "photos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    taskset = find_taskset("geolocate", {"data": str(tmp_path / "photos.jsonl"), "search": "none"})
    assert [task.id for task in taskset.tasks] == ["photos-0", "g1", "photos-2"]
    assert [task.gold[-1].text for task in taskset.tasks] == [
        "<answer>Lyon; Rhône; France; 45.76, 4.8</answer>",
        "<answer>Lyon; unknown; France; 45.76, 4.84</answer>",
        "<answer>Oslo; unknown; Norway</answer>",
    ]
    assert check(taskset).problems == () and taskset.env(taskset.tasks[0]).tools == ()
    near = played(taskset, lambda task: (assistant("<answer>LYON; Rhone; france; 45.77N, 4.83</answer>"),))
    assert [episode.scores["within_3_km"] for episode in near] == [0, 0, 0]
    near = played(taskset, lambda task: (assistant("<answer>LYON; Rhone; france; 45.77, 4.83</answer>"),))
    assert [episode.scores["geovista"] for episode in near] == [4, 4, 0]
    assert [episode.scores["within_3_km"] for episode in near] == [1, 1, 0], "2.6 and 1.4 km; Oslo's is not told"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"city": "Lyon", "country": "France"}, "no column image"),
        ({"image": "none.png", "city": "Lyon", "country": "France"}, "no file none.png"),
        ({"image": "IMAGE", "country": "France"}, "no column city"),
        ({"image": "IMAGE", "city": "", "country": "France"}, "column city is empty"),
        ({"image": "IMAGE", "city": "Lyon"}, "no column country"),
        ({"image": "IMAGE", "metadata": "{"}, "metadata is no JSON"),
        ({"image": "IMAGE", "city": "Lyon", "country": "France", "lat": 45}, "no column lng or lon"),
        ({"image": "IMAGE", "city": "Lyon", "country": "France", "lat": 145, "lng": 4}, "are no degrees"),
        ({"image": "IMAGE", "city": "Lyon", "country": "France", "lat": "north", "lng": 4}, "are no degrees"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    good = {"image": base64.b64encode(png("red")).decode(), "city": "Oslo", "country": "Norway"}
    bad = {name: good["image"] if value == "IMAGE" else value for name, value in row.items()}
    (tmp_path / "photos.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    with pytest.raises(ConfigError, match=rf"photos.jsonl, row 2: .*{told}"):
        find_taskset("geolocate", {"data": str(tmp_path / "photos.jsonl"), "search": "none"})


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"split": "dev"}, "split is 'dev'|split"),
        ({"n": 0}, "at least 1 task"),
        ({"n": 1000}, "runs out of new places"),
        ({"data": "/nowhere/photos.jsonl"}, "no file or folder"),
        ({"search": "local:palces"}, "no part 'palces'"),
    ],
)
def test_mistakes_are_said_in_a_sentence(args: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find_taskset("geolocate", args)
