"""The quick way to run a cell does what IPython's own way does, and leaves to it what it must."""

from __future__ import annotations

import asyncio
import re

import pytest

from tools.python.session import CellResult, SessionLimits
from tools.python.zygote import ZygoteSession

LIMITS = SessionLimits(timeout_s=120, processes=32)

CELLS = [
    "x = 20\nx + 1",
    "_ * 2",
    "_, __, ___",
    "In[-1], _i, _ii, len(In)",
    "Out[2]",
    "get_ipython().execution_count",
    "'a;b'",
    "1;",
    "for k in range(3): print(k); k;",
    "# only a comment",
    "   ",
    "  indented = 1\n  indented + 1",
    "def f(n):\n    return 1 / n\nprint('before')\nf(0)",
    "f(",
    "return 3",
    "print('runs first')\nreturn 3",
    "undefined_name",
    "raise SystemExit(3)",
    "raise KeyboardInterrupt",
    "assert False, 'no'",
    "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('second') from error",
    "from __future__ import annotations\ndef g(a: missing): pass\ng.__annotations__",
    "def h(a: missing_too): pass",
    "3.0, 1e100, float('nan'), -0.0",
    "[list(range(40)), {'a': {1, 2}}, ('x',)]",
    "b'bytes', 'quote\\'s', 'new\\nline'",
    "print('no newline', end='')",
    "import sys; print('error', file=sys.stderr)",
    "class A:\n    def __repr__(self): return 'an A'\nA()",
    "class B:\n    def __repr__(self): raise ValueError('no repr')\nB()",
    "None",
    "...",
    "5\n...\n6",
    "In [1]: 7",
    ">>> 8 + 1",
    "%precision 2",
    "3.14159",
    "%who_ls int",
    "pwd = 'shadowed'\npwd",
    "pwd",
    "exit",
    "!echo from the shell",
    "lines = !echo caught\nlines",
    "import asyncio\nawait asyncio.sleep(0)\n9",
    "abs?",
    "%%capture out\nprint('hidden')",
    "out.stdout",
    "from IPython.display import display\ndisplay(10)\n11",
    "a = 1\x0cb = 2",
    "s = '''\n%magic in a string\n!not a command\n'''\nlen(s)",
    "\ud800",
    "x\u2028y",
    "del x\nx",
    "get_ipython().last_execution_succeeded",
    "if True:\n    7\nelse:\n    8",
    "for k in range(2): k",
    "try:\n    1 / 0\nexcept ZeroDivisionError:\n    print('caught')\nfinally:\n    print('finally')",
    "import functools\n@functools.cache\ndef f():\n    return 1",
    "@print\nclass C: pass",
    "[\n1,\n2,\n]",
    "print(\n1\n)\n# the end",
    's = """\nfor x in\n"""\ns',
    's = """\nif\n"""',
    "'''\nclass of text'''",
    "x = 1\r\nx + 1\r\n1 / 0",
    "x = 1\rx + 1",
    "match = 3\nmatch",
    "match 3:\n    case 3: 4",
    "async def later(): return 5",
    "x = 1 + \\\n2\nx",
    "x = (\n1 +\n2)\n\n\nundefined + x",
    "a, b = 1, 2\na\nb",
    "'doc'\n__doc__",
    "from __future__ import annotations\n5",
    "if True:\n\t6\n7",
    "x: int = 5\nx",
    "lambda: 3\n4",
    "with open('f', 'w') as f: f.write('x')",
    "2; 3",
    "x = 2; x\n",
    "'\\d'",
    "global g\ng = 3\ng",
    "x = 4\nglobal x",
    "if = 3\n4",
    "while False: pass\nelse: 5",
    "1\n  # a comment that is indented",
    "type = 3\ntype",
]

SLOW = """
import ast
class Same(ast.NodeTransformer):
    def visit(self, node): return node
get_ipython().ast_transformers.append(Same())
"""


def played(first: str) -> list[CellResult]:
    async def play() -> list[CellResult]:
        session = ZygoteSession(LIMITS, profile="bare")
        await session.start()
        try:
            return [await session.execute(code) for code in (first, *CELLS)]
        finally:
            await session.close()

    return asyncio.run(play())


def said(result: CellResult) -> tuple[str, str | None, str, str]:
    """What can be compared: addresses and the hash in a cell's name differ, though nothing else does."""
    return tuple(
        re.sub(r"0x[0-9a-f]+|<ipython-input-\d+-[0-9a-f]+>", "-", part) if part is not None else None
        for part in (result.text, result.result, result.error, result.ending)
    )  # pyright: ignore[reportReturnType]


def test_plain_cells_say_what_they_say_in_ipython() -> None:
    quick, slow = played("pass\n" * 5), played(SLOW)
    differing = [
        (code, said(ours), said(theirs))
        for code, ours, theirs in zip(["", *CELLS], quick, slow, strict=True)
        if said(ours) != said(theirs)
    ]
    assert not differing


@pytest.mark.parametrize(
    ("code", "plain"),
    [
        ("1 + 1", True),
        ("import math\nfor k in range(2):\n    k\nelse:\n    math\nmath.pi", True),
        ("if True:\n    print(\n        1\n    )\nelse:\n    pass", True),
        ("%who", False),
        ("await x", False),
        ("pwd", False),
    ],
)
def test_only_python_is_run_the_quick_way(code: str, plain: bool) -> None:
    async def play() -> None:
        session = ZygoteSession(LIMITS, profile="bare")
        await session.start()
        watch = "import sys\nseen = []\nsys.setprofile(lambda f, e, a: seen.append(f.f_code.co_name))"
        await session.execute(f"{watch}")
        await session.execute(code)
        assert (await session.execute("sys.setprofile(None)\n'run_cell_async' in seen")).result == str(not plain)
        await session.close()

    asyncio.run(play())
