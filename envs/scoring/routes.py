"""Routes on a transit map: reading one, checking it against the network, finding a shortest one."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from tools.errors import ConfigError
from tools.record import record

Lines: TypeAlias = Mapping[str, Sequence[str]]
"""The stops of each line, in order."""


@record
class Leg:
    """A ride on one line."""

    line: str
    start: str
    end: str


def plain(name: str) -> str:
    """A name as ReasonMap compares it (`tools.py: clean_string`): no case, spaces, hyphens, commas, stars, "metro" and
    parentheses.

    >>> plain("Metro Line-1 (Red)")
    'line1'
    """
    name = re.sub(r"[Mm]etro|[,*\n]", "", name)
    return re.sub(r"[\s-]+", "", re.sub(r"[(（][^)）]*[)）]", "", name)).lower()


def read_lines(network: Any) -> dict[str, tuple[str, ...]]:
    """The lines of a row's `json` column. Raises `ConfigError` where it is none."""
    lines = cast(dict[str, Any], network) if isinstance(network, dict) else {}
    if not lines or not all(isinstance(stops, list) for stops in lines.values()):
        raise ConfigError("the column json is no network", hint='it must be {"Line 1": ["Stop A", "Stop B"], ...}')
    return {line: tuple(map(str, stops)) for line, stops in lines.items()}


def read(text: str) -> list[Leg]:
    """The legs of a route in ReasonMap's form: blocks of `Route Name`, `Departure Stop`, `Arrival Stop`, `--` between.

    >>> read("Route Name: Line 1\\nDeparture Stop: A\\nArrival Stop: B")
    [Leg(line='Line 1', start='A', end='B')]
    """
    found: list[Leg] = []
    for block in re.split(r"^\s*--+\s*$|--(?=\s*Route Name)", text, flags=re.MULTILINE):
        fields = [
            re.search(rf"{label}\s*:\s*(.+)", block) for label in ("Route Name", "Departure Stop", "Arrival Stop")
        ]
        said = [field.group(1).strip() for field in fields if field]
        if len(said) == 3:
            found.append(Leg(line=said[0], start=said[1], end=said[2]))
    return found


def write(legs: Sequence[Leg]) -> str:
    """The form that `read` reads."""
    return "\n--\n".join(
        f"Route Name: {leg.line}\nDeparture Stop: {leg.start}\nArrival Stop: {leg.end}" for leg in legs
    )


def is_right(text: str, lines: Lines, start: str, end: str) -> bool:
    """Whether a route leads from `start` to `end`: each leg's stops lie on its line, each begins where the last ended.

    As ReasonMap judges it, any route that is correct counts, not only a shortest one; stops on one line count as joined
    whatever lies between.
    """
    legs = read(text)
    stops = {plain(line): {plain(stop) for stop in names} for line, names in lines.items()}
    if not legs or plain(legs[0].start) != plain(start) or plain(legs[-1].end) != plain(end):
        return False
    joined = all(plain(a.end) == plain(b.start) for a, b in itertools.pairwise(legs))
    return joined and all(
        plain(leg.start) != plain(leg.end) and {plain(leg.start), plain(leg.end)} <= stops.get(plain(leg.line), set())
        for leg in legs
    )


def shortest(lines: Lines, start: str, end: str) -> list[Leg] | None:
    """A route with the fewest legs; None where there is none, and from a stop to itself.

    >>> shortest({"1": ["a", "b"], "2": ["b", "c"]}, "a", "c")
    [Leg(line='1', start='a', end='b'), Leg(line='2', start='b', end='c')]
    """
    if plain(start) == plain(end):
        return None
    routes: deque[tuple[str, list[Leg]]] = deque([(start, [])])
    seen = {plain(start)}
    while routes:
        at, legs = routes.popleft()
        for line, stops in lines.items():
            if plain(at) not in {plain(stop) for stop in stops}:
                continue
            for stop in stops:
                if plain(stop) == plain(end) and plain(stop) != plain(at):
                    return [*legs, Leg(line=line, start=at, end=end)]
                if plain(stop) not in seen:
                    seen.add(plain(stop))
                    routes.append((stop, [*legs, Leg(line=line, start=at, end=stop)]))
    return None
