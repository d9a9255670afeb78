"""Errors meant for a person, and the nearest-name helper their messages use.

ConfigError            what the user asked for cannot be done: one sentence, exit code 1, no traceback
ToolError (tool.py)    the model's mistake: shown to the model, the episode goes on
anything else          our bug or the machine's: ends that episode as data, with its traceback
"""

from __future__ import annotations

import difflib
import sysconfig
import textwrap
import traceback
from collections.abc import Iterable
from pathlib import Path

_LONGEST_LIST = 800
"""Characters of known names in one hint."""


class ConfigError(Exception):
    """A request that cannot be carried out: says what was wrong, what was seen and, as `hint`, what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.episode: object | None = None
        """The trajectory that was running, if any: whoever keeps a log writes it before the run stops."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names what `name` may have meant.

    >>> nearest("arithmatic", ["arithmetic", "maze"])
    'did you mean arithmetic?'
    >>> nearest("zzz", ["arithmetic", "maze"])
    'known: arithmetic, maze'
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    names = textwrap.shorten(", ".join(options), _LONGEST_LIST, placeholder=f" ... ({len(options)} in all)")
    return f"known: {names or 'none'}"


def in_one_line(error: BaseException) -> str:
    """Kind, message and place of an error in code that somebody else wrote: `KeyError: 'x' (mine.py:12)`.

    The place is the innermost line of the user's own code, where there is one: that is the line to mend, even where a
    library it called is what raised. A syntax error's place is where the text is wrong.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if not _is_library(frame.filename)] or frames
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {message}' if message else ''}{place}"


def _is_library(filename: str) -> bool:
    """True for a file of Python's, of an installed package, or of ours."""
    root = Path(__file__).parents[1]
    ours = [str(root / name) for name in ("tools", "envs", "agent", "evals", "training")]
    places = sysconfig.get_paths()
    return Path(filename).is_relative_to(places["stdlib"]) or any(
        Path(filename).is_relative_to(folder) for folder in (places["purelib"], places["platlib"], *ours)
    )
