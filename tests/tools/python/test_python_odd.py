"""Code that breaks what runs it: an observation each time, and the next call gets an answer."""

from __future__ import annotations

import asyncio
import io

import PIL.Image
import pytest
from sandboxes import needs

from tools.errors import ConfigError
from tools.python import PythonTool, SessionLimits
from tools.python.jupyter import JupyterSession
from tools.python.zygote import ZygoteSession

LIMITS = SessionLimits(timeout_s=300, grace_s=60, memory_mb=700, output_mb=1, processes=32)

STREAM = "import sys\nclass S:\n    def write(self, text): pass\n    def flush(self): raise {}\nsys.{} = S()"

# The code, how it ends, and what the model reads of it.
ODD: dict[str, tuple[str, str, str]] = {
    "fifty megabytes": ("#" * 50_000_000, "error", "at most 1000000 are accepted"),
    "five thousand brackets": ("(" * 5000 + ")" * 5000, "error", "too many nested parentheses"),
    "endless print": ("while True: print('x' * 1_000_000)", "output", "wrote more than 1 MB"),
    "endless write": ("import os\nwhile True: os.write(1, b'y' * 65536)", "output", "wrote more than 1 MB"),
    "an abort": ("import os; os.abort()", "died", "The state was lost"),
    "another program in its place": ("import os; os.execv('/bin/true', ['true'])", "died", "The state was lost"),
    "no descriptors": ("import os; os.closerange(0, 1000)", "died", "The state was lost"),
    "no json": ("import json; json.dumps = json.loads = None", "died", "The state was lost"),
    "an end within repr": ("class R:\n    def __repr__(self): import os; os._exit(0)\nR()", "died", "exit code 0"),
    "a stream that raises": (STREAM.format("RuntimeError('no')", "stdout"), "ok", "(no output)"),
    "a stream that exits": (STREAM.format("SystemExit", "stderr"), "ok", "(no output)"),
    "no streams": ("import sys; sys.stdout = sys.stderr = None", "ok", "(no output)"),
    "a name of five megabytes": ("raise type('E' * 5_000_000, (Exception,), {})('x')", "error", "EEE: x"),
    "text that JSON makes long": (
        "import sys\nsys.displayhook('\U0001f600' * 300_000)\nraise ValueError('\U0001f600' * 300_000)",
        "error",
        "\U0001f600",
    ),
    "an error that cannot be told": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E()",
        "error",
        "unprintable E object",
    ),
    "an error that is none": ("raise GeneratorExit", "error", "GeneratorExit"),
    "half a character": ("print('\\ud800')", "ok", "?"),
    "bytes that are no text": ("import sys; n = sys.stdout.buffer.write(b'\\xff\\x00z')", "ok", "\ufffdz"),
    "a question": ("input('name? ')", "error", "EOFError"),
    "an end": ("exit()", "ok", "The session goes on"),
    "no folder": ("import os; os.mkdir('d'); os.chdir('d'); os.rmdir('../d')", "ok", "(no output)"),
    "a recursion without end": (
        "import sys; sys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)",
        "",
        "700 MB of memory",
    ),
    "forks without end": ("import os\nwhile True: os.fork()", "", "32 processes"),
}


@pytest.mark.parametrize("name", ODD)
def test_it_is_an_observation_and_the_next_call_is_answered(name: str) -> None:
    needs("full")  # and nowhere else should it be run
    code, ending, said = ODD[name]

    async def play() -> None:
        python = PythonTool(timeout_s=300, limits=LIMITS, isolation="full", profile="bare")
        try:
            result = await python.tool.fn(code=code)
            assert result.data["ending"] == ending or not ending
            assert said in result.text
            assert result.is_error is (ending != "ok")
            again = await python.tool.fn(code="print(6 * 7, flush=True)\n6 * 7")
            assert again.text.endswith("42")
        finally:
            await python.close()

    asyncio.run(play())


@pytest.mark.parametrize("kind", [ZygoteSession, JupyterSession])
def test_a_picture_with_a_good_header_and_broken_pixels_is_named_and_costs_no_session(
    kind: type[ZygoteSession | JupyterSession],
) -> None:
    whole = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 50).save(whole, "PNG")
    broken = whole.getvalue()[:60] + bytes(len(whole.getvalue()) - 60)

    async def play() -> str | None:
        session = kind(LIMITS)
        await session.start()
        try:
            with pytest.raises(ConfigError, match="cannot be bound"):
                await session.put_images({"image_1": broken})
            return (await session.execute("6 * 7")).result
        finally:
            await session.close()

    if kind is ZygoteSession:
        needs("full")
    assert asyncio.run(play()) == "42"
