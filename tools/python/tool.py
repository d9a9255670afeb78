"""The `python` tool: one interpreter per episode, leased from a pool of warm ones."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, final, get_args

from tools.content import BlobStore, Content, Text
from tools.errors import ConfigError, nearest
from tools.python.isolation import TIERS, Tier, choose_tier, obstacle_to, wanted_minimum
from tools.python.jupyter import JupyterSession
from tools.python.pool import Pool
from tools.python.session import CellResult, Session, SessionDied, SessionLimits
from tools.python.text import Cut, plain, shortened, without_fence
from tools.python.zygote import ZygoteSession
from tools.tool import ToolResult, tool_of

log = logging.getLogger(__name__)

Backend: TypeAlias = Literal["auto", "zygote", "jupyter"]

SESSIONS = "TOOLWEAVE_PYTHON_SESSIONS"
"""Environment variable: how many sessions the processes of one node may have together, in each pool."""

_shared: dict[tuple[object, ...], Pool] = {}
_lock = threading.Lock()

_ATTEMPTS = 10
"""How many sessions in a row may die before a call has begun."""

_LOST = "Note: the earlier Python process was lost; this is a new, empty one."


def shared_pool(
    backend: Backend = "auto",
    *,
    isolation: Tier | Literal["auto"] = "auto",
    minimum: Tier | None = None,
    profile: str = "science",
    limits: SessionLimits | None = None,
    fresh: bool = False,
) -> Pool:
    """The process-wide pool for these settings, made on first use.

    `auto` takes the sandboxed zygote in the best isolation tier of this machine, and plain Jupyter kernels, with a
    warning, where there is none. `minimum` (or the environment variable `TOOLWEAVE_PYTHON_MINIMUM`) turns that warning
    into a `ConfigError`, as naming a backend or a tier does.
    """
    limits = limits or SessionLimits()
    if backend not in ("auto", "zygote", "jupyter"):
        raise ConfigError(f"there is no Python backend {backend!r}", hint="known: auto, zygote, jupyter")
    minimum = minimum or wanted_minimum()
    if minimum is not None and minimum not in TIERS:
        raise ConfigError(f"there is no isolation tier {minimum!r}", hint=nearest(minimum, TIERS))
    key = (backend, isolation, minimum, profile, limits, fresh)
    with _lock:
        if key not in _shared or _shared[key].closed:
            _shared[key] = _new_pool(backend, isolation, minimum, profile, limits, fresh)
        return _shared[key]


def sessions_per_process(usual: int) -> int:
    """How many sessions a pool of this process may have: the node's, shared out among the processes that torchrun or
    accelerate started on it. Raises `ConfigError` when the environment variable is no number."""
    said = os.environ.get(SESSIONS) or str(usual)
    if not said.isdecimal() or int(said) < 1:
        raise ConfigError(f"{SESSIONS} is {said!r}, and must be a number of sessions, 1 or more")
    return max(1, int(said) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))


def _new_pool(
    backend: Backend,
    isolation: Tier | Literal["auto"],
    minimum: Tier | None,
    profile: str,
    limits: SessionLimits,
    fresh: bool,
) -> Pool:
    def jupyter() -> Session:
        return JupyterSession(limits)

    if backend == "jupyter":
        if minimum not in (None, "none"):
            raise ConfigError(f"the jupyter backend isolates nothing, and tier {minimum} is asked for")
        if isolation not in ("auto", "none"):
            raise ConfigError(f"the jupyter backend isolates nothing, and tier {isolation} is asked for")
        return Pool(jupyter, size=sessions_per_process(16), fresh=fresh)
    strict = backend == "zygote" or isolation != "auto" or minimum is not None
    try:
        tier = choose_tier(isolation, minimum)
    except ConfigError as error:
        if strict:
            raise
        log.warning("%s; falling back to plain Jupyter kernels, which isolate nothing (%s)", error, error.hint)
        return Pool(jupyter, size=sessions_per_process(16), fresh=fresh)
    size, kernels = sessions_per_process(256), sessions_per_process(16)  # a kernel takes fifteen times the memory
    otherwise: list[tuple[str, Callable[[], Session], int]] = []
    if isolation == "auto" and tier == "full" != minimum and obstacle_to("landlock") is None:
        landlock = functools.partial(ZygoteSession, limits, tier="landlock", profile=profile)
        otherwise.append(("tier landlock", landlock, size))
    if not strict:
        otherwise.append(("plain Jupyter kernels, which isolate nothing", jupyter, kernels))
    make = functools.partial(ZygoteSession, limits, tier=tier, profile=profile)
    return Pool(make, size=size, spare=4, fresh=fresh, otherwise=otherwise)


@final
class PythonTool:
    """A stateful Python interpreter for one episode, as the tool `python(code)`.

    It is leased on the first call and given back by `close`, so an episode that never calls costs nothing. What the
    model's code does wrong is an observation with `is_error`; what it prints, then the value of its last expression, is
    the result.

    >>> import asyncio
    >>> async def example():
    ...     python = PythonTool()
    ...     first = await python.tool.fn(code="x = 6")
    ...     second = await python.tool.fn(code="print('hm'); x * 7")
    ...     await python.close()
    ...     return first.text, second.text
    >>> asyncio.run(example())
    ('(no output)', 'hm\\n42')

    `timeout_s`: wall time of one call; `max_chars`: length of one observation, cut as `cut` says; `images`: PNG or JPEG
    bytes bound to the names given, also those added to it later, before the next call; `blobs`: where pictures that the
    code shows are kept (without it they are only counted); `fresh`: never reuse an interpreter, where the backend would
    do so.
    """

    def __init__(
        self,
        timeout_s: float = 10.0,
        max_chars: int = 4000,
        *,
        cut: Cut = "middle",
        blobs: BlobStore | None = None,
        images: Mapping[str, bytes] | None = None,
        variables: Mapping[str, Any] | None = None,
        backend: Backend = "auto",
        isolation: Tier | Literal["auto"] = "auto",
        profile: str = "science",
        limits: SessionLimits | None = None,
        fresh: bool = False,
        pool: Pool | None = None,
    ) -> None:
        if cut not in get_args(Cut):
            raise ConfigError(f"there is no cut {cut!r}", hint=f"known: {', '.join(get_args(Cut))}")
        if not (timeout_s > 0 and max_chars > 0):
            raise ConfigError(f"timeout_s={timeout_s} and max_chars={max_chars} must both be more than 0")
        self.timeout_s = timeout_s
        self.max_chars = max_chars
        self.cut: Cut = cut
        self.blobs = blobs
        self.images = dict(images or {})
        self.variables = dict(variables or {})
        self.pool = pool
        self._choose = functools.partial(
            shared_pool, backend, isolation=isolation, profile=profile, limits=limits, fresh=fresh
        )
        self.tool = tool_of(self.python)
        self._session: Session | None = None
        self._bound: set[str] = set()
        self._lost = False
        self._closed = False

    async def python(self, code: str) -> ToolResult:
        """Run Python code and see what it prints. Variables are kept; the value of the last expression is shown.

        Args:
            code: Python source code.
        """
        result, note = await self.run(code)
        return self.told(result, note, *self._kept(result))

    async def run(self, code: str) -> tuple[CellResult, str]:
        """Run code in the episode's session; what it did, and what the model must be told of the session."""
        if self._closed:
            raise RuntimeError("this PythonTool was closed with its episode")
        attempts = 0
        while True:
            try:
                session, note = await self._ready()
                result = await session.execute(without_fence(code), self.timeout_s)
                break
            except SessionDied:  # it died since the last call: what was in it is gone, and the code has not run
                await self._give_back()
                self._lost = True
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise
        if result.state_lost:
            await self._give_back()  # the next call gets another; this result has already told the model
        return result, note

    async def close(self) -> None:
        """Give the interpreter back. Safe to call twice."""
        self._closed = True
        await self._give_back()

    async def _ready(self) -> tuple[Session, str]:
        """The episode's session, and what the model must be told of it."""
        if self.pool is None:  # the first of a process tries out the sandbox: not on the event loop
            self.pool = await asyncio.to_thread(self._choose)
        if self._session is None:
            self._session = await self.pool.acquire()
            self._bound = set[str]()
            if self.variables:
                await self._session.put(self.variables)
        for name in [name for name in self.images if name not in self._bound]:
            await self._session.put_images({name: self.images[name]})  # one message each: a message has a size limit
            self._bound.add(name)
        lost, self._lost = self._lost, False
        return self._session, _LOST if lost else ""

    async def _give_back(self) -> None:
        session, self._session = self._session, None
        if session is not None and self.pool is not None:
            await self.pool.release(session)

    def told(self, result: CellResult, note: str, pictures: Sequence[Content], problem: str) -> ToolResult:
        """The result as the model reads it: output, value, traceback, notes, pictures."""
        body = [result.text.rstrip("\n"), result.result, _short(result.error), problem]
        text = shortened("\n".join(part for part in body if part), self.max_chars, self.cut)
        said = "\n".join(part for part in (note, text, result.note) if part)
        content: tuple[Content, ...] = (Text(text=said or "(no output)"),) if said or not pictures else ()
        return ToolResult(
            content=(*content, *pictures),
            is_error=result.ending != "ok",
            data={"ending": result.ending, "state_lost": result.state_lost},
        )

    def _kept(self, result: CellResult) -> tuple[list[Content], str]:
        if not result.images:
            return [], ""
        if self.blobs is None:
            return [], f"({len(result.images)} picture(s) shown; this tool returns text only)"
        kept: list[Content] = []
        for data in result.images:
            try:
                kept.append(self.blobs.put(data))
            except ValueError:
                return kept, "(a picture could not be read)"
        return kept, ""


def _short(error: str | None, most: int = 1500) -> str:
    """A traceback a model can use: its end says what and where."""
    return shortened(plain(error).strip(), most) if error else ""
