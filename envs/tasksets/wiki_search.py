"""Questions about the countries of the world, to be looked up in an almanac that is searched offline.

Questions, answers and the searches that find them are made from the World Factbook of 2015 (public domain), which
`python -m tools.search world` indexes on the user's disk. Four kinds: one look-up; two, where the country is named by
its capital; a comparison of two countries, which a guess gets right half of the time; and facts the almanac does not
have, where the right answer is `unknown`. With a Python tool there is a fifth, differences that have to be computed.
Train, validation and test never ask about the same country first.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Literal, TypeAlias, get_args

from envs.env import Env, ToolEnv
from envs.message import assistant, system, user
from envs.rewards import correct, search_r1, tool_star
from envs.rewards.choice import rubric_of
from envs.rubric import Rubric
from envs.scoring import answer_line, exact_match, parse_number, same_number, tagged, token_f1
from envs.seed import derive_seed
from envs.task import Task, Taskset
from envs.tasksets.gold import Asked, calling
from tools.errors import ConfigError
from tools.record import record
from tools.search.cache import Mode
from tools.search.find import provider_for
from tools.search.local import LocalIndex
from tools.search.tool import SearchLimits, SearchTools
from tools.search.world import fact_id, world_index

Split: TypeAlias = Literal["train", "val", "test"]
Hops: TypeAlias = Literal["all", "one_hop", "two_hops", "comparison", "unanswerable", "computed"]
Form: TypeAlias = Literal["line", "tags"]
KINDS: tuple[Hops, ...] = ("one_hop", "two_hops", "comparison", "unanswerable")

ABOUT = "Look the answer up in the World Factbook of 2015."
ASKED = "a number without its unit, a name, or `unknown` if the Factbook does not say"
SYSTEM = {
    "line": f"{ABOUT} End with a line `Answer: <answer>`: {ASKED}.",
    "tags": f"{ABOUT} End with `<answer>...</answer>`: {ASKED}.",
}


@record
class Fact:
    """Something the almanac says of most countries."""

    place: tuple[str, str]
    """Section and heading."""
    words: str
    """How a question names it."""
    more: str
    """How a comparison asks for the larger; empty where that makes no sense."""
    pattern: str
    """Its first group is the value, in the text under the heading."""


FACTS = tuple(
    Fact(place=place, words=words, more=more, pattern=pattern)
    for place, words, more, pattern in (
        (
            ("Geography", "Coastline"),
            "length of the coastline in km",
            "the longer coastline",
            r"^([\d,.]+) km",
        ),
        (
            ("Geography", "Area"),
            "total area in sq km",
            "the larger total area",
            r"^total: ([\d,.]+) sq km",
        ),
        (
            ("Geography", "Elevation extremes"),
            "height of the highest point in metres",
            "the higher highest point",
            r"highest point: .*?([\d,]+) m\b",
        ),
        (
            ("People and Society", "Population"),
            "population",
            "the larger population",
            r"^([\d,]+)\b",
        ),
        (
            ("People and Society", "Life expectancy at birth"),
            "life expectancy at birth in years",
            "the higher life expectancy at birth",
            r"^total population: ([\d.]+) years",
        ),
        (
            ("Communications", "Internet country code"),
            "internet country code",
            "",
            r"^(\.[a-z]{2})\b",
        ),
        (
            ("Transportation", "Railways"),
            "total length of the railways in km",
            "the longer railways",
            r"^total: ([\d,.]+) km",
        ),
        (
            ("Transportation", "Roadways"),
            "total length of the roads in km",
            "the longer roads",
            r"^total: ([\d,.]+) km",
        ),
        (
            ("Transportation", "Waterways"),
            "length of the waterways in km",
            "the longer waterways",
            r"^([\d,.]+) km",
        ),
        (
            ("Transportation", "Merchant marine"),
            "number of ships in the merchant marine",
            "the larger merchant marine",
            r"^total: ([\d,]+)",
        ),
        (
            ("Transportation", "Airports"),
            "number of airports",
            "the larger number of airports",
            r"^([\d,]+)\b",
        ),
        (
            ("Transportation", "Heliports"),
            "number of heliports",
            "the larger number of heliports",
            r"^([\d,]+)\b",
        ),
        (
            ("Government", "Capital"),
            "name of the capital",
            "",
            r"^name: ([A-Z][\w' .-]+?)\s*(?:$|[;(])",
        ),
    )
)
CAPITAL = FACTS[-1]


@record
class Country:
    """What the almanac says of a country, by heading, and where."""

    code: str
    name: str
    values: Mapping[str, str]
    """Heading -> value, of `FACTS`."""


@record
class Question:
    """A question with what finds its answer."""

    kind: Hops
    text: str
    answer: str
    searches: tuple[str, ...]
    documents: tuple[str, ...]
    """The documents that hold the answer, one a search."""
    code: str = ""
    """What computes the answer from what was found."""
    missing: str = ""
    """Of an unanswerable question: the document that would hold the answer, and is not there."""


def wiki_search(
    split: Split = "train",
    n: int | None = None,
    kind: Hops = "all",
    seed: int = 0,
    search: str = "local:countries",
    replies: str | None = None,
    mode: Mode = "record",
    k: int = 3,
    python: bool = False,
    form: Form = "line",
    reward: Literal["correct", "search_r1", "tool_star"] = "correct",
) -> Taskset:
    """Questions about countries, answered by searching an almanac that lies on this machine.

    Args:
        split: `train`, `val` or `test`; they are about different countries.
        n: How many tasks; by default 400, or all where there are fewer. The first are the same for every `n`.
        kind: `one_hop`, `two_hops`, `comparison`, `unanswerable`, or all in turn; with `python` also `computed`.
        seed: Another seed gives other questions of the same split.
        search: Where the tool searches: `local:countries`, a file.index, `retriever=URL`, `ddgs`, ...
        replies: A file that records what the provider answers.
        mode: `record` asks for what the file lacks; `replay` asks nobody; `live` does not use the file.
        k: Hits a search shows.
        python: Give a Python tool too.
        form: How answers are asked for: a line `Answer: ...`, or `<answer>` tags as search agents are trained with.
        reward: 1 for a right answer, or the reward of a paper (`envs.rewards.search`), which reads tags.
    """
    if split not in get_args(Split) or kind not in get_args(Hops):
        raise ConfigError(f"there is no split {split!r} or kind {kind!r}", hint=f"{get_args(Split)}, {get_args(Hops)}")
    if kind == "computed" and not python:
        raise ConfigError("questions of the kind computed need a Python tool", hint="python=true")
    if reward != "correct" and form != "tags":
        raise ConfigError(f"the reward {reward} reads answers in tags", hint="form=tags")
    if n is not None and n < 1:
        raise ConfigError(f"n is {n}; a taskset needs at least 1 task")
    provider = provider_for(search, replies, mode)

    def env(task: Task) -> Env:
        found = SearchTools(provider, limits=SearchLimits(k=k, snippet_chars=300)).tools
        search_tool = tuple(tool for tool in found if tool.name == "search")
        if not python:
            return ToolEnv(task=task, tools=search_tool)
        from tools.python import PythonTool

        interpreter = PythonTool()
        return ToolEnv(task=task, tools=(*search_tool, interpreter.tool), resources=(interpreter,))

    stem = f"wiki-{split}-{kind}{'-python' if python else ''}-s{seed}"
    kinds = (kind,) if kind != "all" else (*KINDS, "computed") if python else KINDS
    questions = _questions(stem, split, kinds, n)
    tasks = tuple(_task(f"{stem}-{index}", question, form) for index, question in enumerate(questions))
    return Taskset(name="wiki_search", tasks=tasks, env=env, rubric=_rubric(form, reward))


def same_fact(given: str, expected: object) -> bool:
    """Numbers within 1% (the almanac's own rounding), names by SQuAD's normalised match."""
    right = str(expected)
    if parse_number(right) is not None:
        return same_number(given, right, tolerance=0.01)
    return exact_match(given, right) == 1.0


def _rubric(form: Form, reward: str) -> Rubric:
    read = answer_line if form == "line" else tagged
    paid = {"search_r1": search_r1(), "tool_star": tool_star(score=_f1_of_fact)}
    return rubric_of(correct(read=read, same=same_fact), read, reward, paid)


def _f1_of_fact(given: str, expected: str) -> float:
    """Token F1, with numbers right as numbers are: `2,389 km` is 2389."""
    return 1.0 if same_fact(given, expected) else token_f1(given, expected)


def _task(id: str, question: Question, form: Form) -> Task:
    asked: list[Asked] = [("search", {"query": query}) for query in question.searches]
    asked += [("python", {"code": question.code})] if question.code else []
    said = f"Answer: {question.answer}" if form == "line" else f"<answer>{question.answer}</answer>"
    return Task(
        id=id,
        prompt=(system(SYSTEM[form]), user(question.text)),
        answer=question.answer,
        gold=(*calling(asked), assistant(said)),
        info={"category": question.kind, "documents": list(question.documents)},
    )


def countries() -> tuple[Country, ...]:
    """The countries of the almanac that have a capital and most of the facts, in the order of their codes."""
    return _countries(world_index("countries"))


def split_of(country: Country) -> Split:
    """The split a country belongs to: 70% train, 10% val, 20% test."""
    bucket = derive_seed("wiki split", country.code) % 10
    return "test" if bucket < 2 else "val" if bucket == 2 else "train"


@cache
def _countries(index: LocalIndex) -> tuple[Country, ...]:
    found: dict[str, tuple[str, dict[str, str]]] = {}
    wanted = {fact.place: re.compile(fact.pattern, re.MULTILINE) for fact in FACTS}
    for document in index:
        _, code, section, heading = document.id.split("/", 3)
        pattern = wanted.get((section, heading))
        match = pattern.search(document.text) if pattern else None
        if match:
            value = match.group(1).strip()
            found.setdefault(code, (str(document.info["country"]), {}))[1][heading] = (
                value.replace(",", "") if value[0].isdigit() else value
            )
    whole = [(code, name, values) for code, (name, values) in found.items() if CAPITAL.place[1] in values]
    return tuple(
        Country(code=code, name=name, values=values) for code, name, values in sorted(whole) if len(values) > 5
    )


def _questions(stem: str, split: Split, kinds: Sequence[Hops], n: int | None) -> Iterator[Question]:
    """`n` different questions; question `i` depends on `stem`, `i` and the questions before it, never on `n`.

    By default 400, or as many as are found.
    """
    index = world_index("countries")
    asked = [country for country in countries() if split_of(country) == split]
    seen: set[str] = set()
    for number in range(400 if n is None else n):
        rng = random.Random(derive_seed(stem, number))
        for _ in range(200):
            question = _draw(rng, kinds[number % len(kinds)], asked)
            if question is not None and question.text not in seen and _is_found(index, question):
                break
        else:
            if n is None:
                return
            raise ConfigError(f"{stem} runs out of new questions after {number}", hint="ask for a smaller n")
        seen.add(question.text)
        yield question


def _draw(rng: random.Random, kind: Hops, countries: Sequence[Country]) -> Question | None:
    """One question of `kind`; None where the draw makes none."""
    one, fact = rng.choice(countries), rng.choice(FACTS)
    value = one.values.get(fact.place[1])
    document = fact_id(one.code, *fact.place)
    query = f"{one.name} {fact.place[1]}"
    if kind == "unanswerable":
        if value is not None or fact is CAPITAL:
            return None
        text = f"What is the {fact.words} of {one.name}?"
        return Question(kind=kind, text=text, answer="unknown", searches=(query,), documents=(), missing=document)
    if value is None:
        return None
    if kind == "one_hop":
        text = f"What is the {fact.words} of {one.name}?"
        return Question(kind=kind, text=text, answer=value, searches=(query,), documents=(document,))
    if kind == "two_hops":
        if fact is CAPITAL:
            return None
        capital = one.values[CAPITAL.place[1]]
        first = fact_id(one.code, *CAPITAL.place)
        text = f"What is the {fact.words} of the country whose capital is {capital}?"
        searches = (f"Capital name {capital}", query)
        return Question(kind=kind, text=text, answer=value, searches=searches, documents=(first, document))
    other = rng.choice(countries)
    theirs = other.values.get(fact.place[1])
    if not fact.more or theirs is None or other is one:
        return None
    ours, against = float(value), float(theirs)
    if abs(ours - against) <= 0.02 * max(ours, against):  # too close for an almanac
        return None
    searches = (query, f"{other.name} {fact.place[1]}")
    documents = (document, fact_id(other.code, *fact.place))
    if kind == "computed":
        larger, smaller = (one, other) if ours > against else (other, one)
        values = [country.values[fact.place[1]] for country in (larger, smaller)]
        return Question(
            kind=kind,
            text=f"By how much is the {fact.words} of {larger.name} larger than that of {smaller.name}?",
            answer=str(Decimal(values[0]) - Decimal(values[1])),
            searches=searches,
            documents=documents,
            code=f"print({values[0]} - {values[1]})",
        )
    return Question(
        kind=kind,
        text=f"Which country has {fact.more}, {one.name} or {other.name}?",
        answer=one.name if ours > against else other.name,
        searches=searches,
        documents=documents,
    )


def _is_found(index: LocalIndex, question: Question) -> bool:
    """Whether each of the question's own searches brings up its document among the first three."""
    if question.missing:
        return index.get(question.missing) is None
    return all(
        document in [hit.info["id"] for hit in index.search(query, 3)]
        for query, document in zip(question.searches, question.documents, strict=True)
    )
