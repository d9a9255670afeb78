"""Cells that are Python and nothing else, run as `InteractiveShell.run_cell` runs them and several times faster.

`run_cell` tokenizes a cell twice and compiles each statement twice, to find magics, `!commands`, `?help`, a closing
semicolon and top-level await, and it builds a syntax tree to find the last expression. Most cells of a model have none
of the former, and their last statement is found in their text.
"""

# IPython has hardly any types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from types import CodeType
from typing import Any

from IPython.core.async_helpers import _pseudo_sync_runner as finished  # pyright: ignore[reportPrivateUsage]
from IPython.core.autocall import IPyAutocall
from IPython.core.history import HistoryManager
from IPython.core.macro import Macro

# Prompts that IPython strips though what follows them may parse with them: `In [1]: x` is an annotation, `...` a value.
# And ends of lines that only Python takes for such.
_UNUSUAL = re.compile(r"^\s*(?:In \[|\.\.\.)|\r(?!\n)", re.MULTILINE)
_WORD = re.compile(r"\s*(\w+)")
# Where the last statement begins, if that is the last line that is not indented, closes no bracket and goes on with no
# compound statement. Whether it is, is settled by compiling what is before it: nothing compiles that ends within a
# string, a bracket or a statement.
_LAST = re.compile(r".*^(?=[^\s)\]}#])(?!(?:elif|else|except|finally)\b)", re.MULTILINE | re.DOTALL)
_COMPOUND = re.compile(r"(?:if|for|while|with|try|def|class)\b")
_UNSURE = re.compile(r"(?:async|match)\b|@")


class History(HistoryManager):
    """Kept in memory."""

    _i = _ii = _iii = _i00 = ""  # pyright: ignore[reportAssignmentType] # plain attributes, see `shell.without_traits`

    def store_inputs(self, line_num: int, source: str, source_raw: str | None = None) -> None:
        super().store_inputs(line_num, source, source_raw)
        self.db_input_cache.clear()  # it waits for a database that there is not


def run_plain(shell: Any, code: str, transformers: int) -> bool:
    """Run a cell; False, with nothing done, when it may need what only `run_cell` does.

    `transformers`: how many input transformers the shell began with (`count_transformers`).
    """
    if shell.ast_node_interactivity != "last_expr" or count_transformers(shell) != transformers:
        return False
    if not code.strip() or _UNUSUAL.search(code) or (len(code.splitlines()) == 1 and _is_command(shell, code)):
        return False
    number = shell.execution_count
    try:
        parts = _compiled(shell, code if code.endswith("\n") else f"{code}\n", number)
    except Exception:  # not Python, or top-level await: run_cell will say which
        return False
    shell.execution_count = number + 1
    shell.events.trigger("pre_execute")
    shell.history_manager.store_inputs(number, code, code)
    with shell.display_trap:
        shell.last_execution_succeeded = not any(finished(shell.run_code(part)) for part in parts)
    shell.events.trigger("post_execute")
    return True


def count_transformers(shell: Any) -> int:
    """How many functions look at a cell before it is run, and so may change it or want to know of it."""
    inputs, events = shell.input_transformer_manager, shell.events.callbacks
    kinds = (inputs.cleanup_transforms, inputs.line_transforms, inputs.token_transformers)
    watching = events["pre_run_cell"], events["post_run_cell"], shell.input_transformers_post, shell.ast_transformers
    return sum(map(len, (*kinds, *watching)))


def _compiled(shell: Any, cell: str, number: int) -> list[CodeType]:
    """The code objects of a cell: its statements, and its last one, whose value is shown if it is an expression."""
    found = _LAST.match(cell)
    begin = found.end() if found else 0
    last = cell[begin:]
    if ";" in last or _UNSURE.match(last):
        raise ValueError("the last statement may be another than it seems")
    mode = "exec" if _COMPOUND.match(last) else "single"
    compiler = shell.compile
    flags = compiler.flags
    try:
        name = compiler.cache(cell, number, raw_code=cell)
        parts = [compiler(cell[:begin], name, "exec")] if begin else []
        return [*parts, compiler("\n" * cell.count("\n", 0, begin) + last, name, mode)]
    except BaseException:
        compiler.flags = flags
        raise


def _is_command(shell: Any, line: str) -> bool:
    """Does a line start with a name that IPython calls by itself: a magic, an alias, `exit`, a macro?"""
    if shell.autocall:
        return True
    word = _WORD.match(line)
    if word is None:
        return False
    name = word[1]
    value = shell.user_ns.get(name)
    return name in shell.magics_manager.magics["line"] or isinstance(value, IPyAutocall | Macro)
