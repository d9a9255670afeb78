"""A picture of something, which something it is, and a fact about it: flags, their countries, an almanac.

The flag is shown; the question names no country. A reverse image search over the flags of the world tells whose it is,
a text search in the World Factbook of 2015 the fact (`python -m tools.search world` has both, out of packages). The
picture shown is another size and compression than the one that is found. Flags that several territories share are left
out. The form of MMSearch-R1 (arXiv 2506.20670) and DeepMMSearch-R1 (arXiv 2510.12801), on a world that can be replayed.
"""

from __future__ import annotations

import io
import random
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from envs.env import Env, ToolEnv
from envs.message import Message, assistant, system
from envs.rewards import correct, mmsearch_r1
from envs.rewards.choice import rubric_of
from envs.scoring import tagged
from envs.seed import derive_seed
from envs.task import Task, Taskset
from envs.tasksets.gold import Asked, calling
from envs.tasksets.wiki_search import (
    ASKED,
    FACTS,
    Country,
    Fact,
    countries,
    same_fact,
    split_of,
)
from tools.content import BlobStore, Image, Text
from tools.errors import ConfigError
from tools.search.cache import Mode
from tools.search.find import provider_for
from tools.search.picture_tool import PictureSearchTool
from tools.search.pictures import PictureIndex, PictureProvider, on_white
from tools.search.tool import SearchLimits, SearchTools
from tools.search.world import fact_id, world_folder, world_index

Split: TypeAlias = Literal["train", "val", "test"]

SYSTEM = (
    "Find out whose flag is shown, and look the answer up in the World Factbook of 2015."
    f" End with `<answer>...</answer>`: {ASKED}."
)
SHOWN_WIDTH = 160
"""Pixels; the flags that are searched are 250 wide."""
SURE = 0.01
"""A flag is asked about only where the next most alike is at least so much further from what is shown."""


def multimodal_search(
    split: Split = "train",
    n: int | None = None,
    seed: int = 0,
    search: str = "local:countries",
    replies: str | None = None,
    mode: Mode = "record",
    whole: bool = False,
    reward: Literal["correct", "mmsearch_r1"] = "correct",
) -> Taskset:
    """Questions about the country whose flag is shown, answered by searching with the picture and then with words.

    Args:
        split: `train`, `val` or `test`; they are about different countries.
        n: How many tasks; by default 200, or all where there are fewer. The first are the same for every `n`.
        seed: Another seed gives other questions of the same split.
        search: Where words are searched: `local:countries`, a file.index, `retriever=URL`, ...
        replies: A file that records what the providers answer.
        mode: `record` asks for what the file lacks; `replay` asks nobody; `live` does not use the file.
        whole: The picture tool takes no argument, as in MMSearch-R1.
        reward: 1 for a right answer, or MMSearch-R1's, which pays less for what was searched.
    """
    if split not in get_args(Split):
        raise ConfigError(f"split is {split!r}; it must be one of {', '.join(get_args(Split))}")
    if n is not None and n < 1:
        raise ConfigError(f"n is {n}; a taskset needs at least 1 task")
    words = provider_for(search, replies, mode)
    blobs = BlobStore(world_folder() / "blobs")
    pictures = PictureProvider(_flags(world_folder()), blobs)

    def env(task: Task) -> Env:
        shown = [part for part in task.prompt[-1].content if isinstance(part, Image)]
        look = PictureSearchTool(pictures, shown, blobs, whole=whole).tool
        found = SearchTools(words, limits=SearchLimits(k=3, snippet_chars=300)).tools
        return ToolEnv(task=task, tools=(look, *(tool for tool in found if tool.name == "search")))

    asked = [country for country in countries() if split_of(country) == split and country.code in _sure(world_folder())]
    stem = f"flags-{split}-s{seed}"
    tasks: list[Task] = []
    seen: set[tuple[str, str]] = set()
    for index in range(200 if n is None else n):
        drawn = _draw(random.Random(derive_seed(stem, index)), asked, seen)
        if drawn is not None:
            tasks.append(_task(f"{stem}-{index}", *drawn, blobs, whole))
        elif n is None:
            break
        else:
            raise ConfigError(f"{stem} runs out of new questions after {index}", hint="ask for a smaller n")
    return Taskset(
        name="multimodal_search",
        tasks=tasks,
        env=env,
        rubric=rubric_of(correct(tagged, same_fact), tagged, reward, {"mmsearch_r1": mmsearch_r1()}),
        blobs=blobs,
    )


def shown_flag(code: str, folder: Path) -> bytes:
    """The flag as the model is shown it: on white, `SHOWN_WIDTH` wide, as JPEG."""
    flag = on_white(_flags(folder).picture(code))
    flag = flag.resize((SHOWN_WIDTH, round(SHOWN_WIDTH * flag.height / flag.width)))
    data = io.BytesIO()
    flag.save(data, "JPEG", quality=85)
    return data.getvalue()


def _draw(rng: random.Random, asked: list[Country], seen: set[tuple[str, str]]) -> tuple[Country, Fact] | None:
    """A question that is new and whose fact is found; None where there is none left."""
    for _ in range(500):
        country, fact = rng.choice(asked), rng.choice(FACTS)
        key = (country.code, fact.place[1])
        if key not in seen and fact.place[1] in country.values and _is_found(country, fact):
            seen.add(key)
            return country, fact
    return None


def _is_found(country: Country, fact: Fact) -> bool:
    found = world_index("countries").search(_words(country, fact), 3)
    return fact_id(country.code, *fact.place) in [hit.info["id"] for hit in found]


def _words(country: Country, fact: Fact) -> str:
    return f"{country.name} {fact.place[1]}"


def _task(id: str, country: Country, fact: Fact, blobs: BlobStore, whole: bool) -> Task:
    flag = blobs.put(shown_flag(country.code, world_folder()))
    look: Asked = ("image_search", {}) if whole else ("image_search_by_image", {"image": 1})
    answer = country.values[fact.place[1]]
    question = Message(
        role="user", content=(flag, Text(text=f"What is the {fact.words} of the country or territory with this flag?"))
    )
    return Task(
        id=id,
        prompt=(system(SYSTEM), question),
        answer=answer,
        gold=(*calling([look, ("search", {"query": _words(country, fact)})]), assistant(f"<answer>{answer}</answer>")),
        info={"country": country.name, "documents": [country.code, fact_id(country.code, *fact.place)]},
    )


@cache
def _flags(folder: Path) -> PictureIndex:
    return PictureIndex(folder / "flags.pictures")


@cache
def _sure(folder: Path) -> frozenset[str]:
    """The codes of the flags that are found by what is shown of them, with no other as near."""
    index = _flags(folder)
    sure: set[str] = set()
    for country in countries():
        try:
            first, second = index.by_image(shown_flag(country.code, folder), 2)
        except KeyError:  # a territory without a flag of its own
            continue
        assert first.score is not None and second.score is not None
        if first.info["id"] == country.code and first.score - second.score >= SURE:
            sure.add(country.code)
    return frozenset(sure)
