"""What the person sees while an episode runs: text as it is sampled, calls as they start, results as they come back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TextIO, final

from agent.event import CallFinished, CallStarted, Event, Observed, Sampled, TextDelta
from envs.message import Message
from envs.trajectory import CallRecord
from tools.content import BlobStore, Image
from tools.errors import ConfigError
from tools.tool import ToolCall

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

MARKS = ("<tool_call>", "<code>")
"""Where a call begins in raw text. From there on the text is held back: the call is shown when it is read."""

MAX_LINES = 20
"""Lines of one result on the screen; the journal keeps all."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """`text` without control characters: what a model or a page says must not steer the terminal.

    Half a surrogate pair, which no encoding carries, becomes a question mark.

    >>> visible("a\\x1b[2Jb")
    'a[2Jb'
    """
    text = text.encode("utf-8", "replace").decode()
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


@final
class Screen:
    """Draws the events of `rollout()` on a rich console: plain text where it is no terminal or NO_COLOR is set."""

    def __init__(self, console: Console, blobs: BlobStore | None = None, text_file: TextIO | None = None) -> None:
        """`blobs` holds the pictures; the model's text goes to `text_file`, by default where all else goes."""
        self.console = console
        self.blobs = blobs
        self.text_file = text_file
        self._held = ""
        self._in_call = False
        self._shown = ""
        self._status: Status | None = None

    def on_event(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case Observed(messages=messages):
                for message in messages:
                    if message.role == "user":  # a tool's are shown beside its call
                        self._show_images(message.content)
                if messages and messages[-1].role in ("tool", "user"):
                    self.busy("thinking")
            case TextDelta(text=text):
                self._stream(text)
            case Sampled(step=step):
                self._finish_text(step.action)
            case CallStarted(call=call):
                self.idle()
                self._show_call(call)
                self.busy(f"running {visible(call.name)}")
            case CallFinished(call=done):
                self.idle()
                self._show_result(done)
            case _:
                pass

    def busy(self, what: str) -> None:
        """Say that something is going on, where that can be taken back."""
        if self.console.is_terminal and self._status is None:
            self._status = self.console.status(f"[dim]{what}[/]", spinner="dots", spinner_style="dim")
            self._status.start()

    def idle(self) -> None:
        """Take back what `busy` said."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def settle(self) -> None:
        """After an interruption: end the line, and show what was held back."""
        self.idle()
        if self._held:
            self._write(self._held)
        self._end_line()

    def say(self, message: Message) -> None:
        """Print a message of an earlier conversation."""
        if message.role == "user":
            self.note(f"> {message.text}")
        elif message.role == "assistant":
            self._finish_text(message)
            for call in message.tool_calls:
                self._show_call(call)
        elif message.role == "tool":
            self._lines(message.text, "dim")
            self._show_images(message.content)

    def note(self, text: str, style: str = "dim") -> None:
        """A remark of the program's own."""
        self.idle()
        self.console.print(visible(text), style=style, markup=False, highlight=False, soft_wrap=True)

    def error(self, text: str) -> None:
        """An error, in one sentence."""
        self.note(f"error: {text}", style="red")

    def _stream(self, text: str) -> None:
        self._held += text
        if self._in_call:
            return
        found = [at for mark in MARKS if (at := self._held.find(mark)) >= 0]
        ready = min(found) if found else len(self._held) - _partial_mark(self._held)
        if ready:
            self._write(self._held[:ready])
            self._held = self._held[ready:]
        if found:
            self._in_call = True
            self._newline()
            self.busy("writing a call")

    def _finish_text(self, action: Message) -> None:
        """Show what was not streamed: all of it, or an end that turned out to be no call."""
        self.idle()
        if action.reasoning and not self._shown and not self._held:
            self._lines(action.reasoning, "dim italic")
        if not self._shown and not self._held:
            self._write(action.text)
        elif self._held and not action.tool_calls:
            self._write(self._held)
        self._end_line()

    def _write(self, text: str) -> None:
        text = visible(text)
        if not self._shown:
            text = text.lstrip("\n")
        if not text:
            return
        self.idle()
        self._shown += text
        file = self.text_file or self.console.file
        file.write(text)
        file.flush()

    def _newline(self) -> None:
        if self._shown and not self._shown.endswith("\n"):
            self._write("\n")

    def _end_line(self) -> None:
        self._newline()
        self._held, self._shown, self._in_call = "", "", False

    def _show_call(self, call: ToolCall) -> None:
        from rich.padding import Padding
        from rich.syntax import Syntax

        arguments = dict(call.arguments or {})
        code = arguments.get("code")
        name = visible(call.name) or "a call that could not be read"
        if call.arguments is None:
            self.note(f"  {name}")
            self._lines(call.raw, "dim")
            return
        others = {key: value for key, value in arguments.items() if not (key == "code" and isinstance(code, str))}
        self.note(f"  {name}{_listed(others)}", style="cyan")
        if not isinstance(code, str):
            return
        if self.console.is_terminal and not self.console.no_color:
            shown = Syntax(visible(code).strip("\n"), "python", theme="ansi_dark", background_color="default")
            self.console.print(Padding(shown, (0, 0, 0, 4)))
        else:
            self._lines(code, "")

    def _show_result(self, done: CallRecord) -> None:
        result = done.result
        style = "red" if result.is_error else "green"
        if done.outcome == "cancelled":
            self.note("  interrupted", style="red")
            return
        if done.outcome == "crashed":
            self.note("  the tool failed", style="red")
            return
        if result.text:
            self._lines(result.text, style, bullet="→ ")
        self._show_images(result.content)

    def _show_images(self, content: tuple[Any, ...]) -> None:
        for part in content:
            if not isinstance(part, Image):
                continue
            self.note(f"    {part.width}x{part.height} picture {self._path_of(part)}")
            if self.console.is_terminal and not self.console.no_color and self.blobs is not None:
                from agent.repl.pictures import show

                try:
                    show(self.console, self.blobs.open(part))
                except ConfigError as error:
                    self.error(str(error))

    def _path_of(self, image: Image) -> str:
        if self.blobs is None or self.blobs.root is None:
            return image.sha256[:12]
        return str(next(iter(self.blobs.root.glob(f"{image.sha256}.*")), image.sha256[:12]))

    def _lines(self, text: str, style: str, bullet: str = "") -> None:
        lines = visible(text).strip("\n").split("\n")
        for index, line in enumerate(lines[:MAX_LINES]):
            lead = bullet if index == 0 else " " * len(bullet)
            self.note(f"    {lead}{line}", style=style)
        if len(lines) > MAX_LINES:
            self.note(f"    [{len(lines) - MAX_LINES} more lines]")


def _listed(arguments: dict[str, Any]) -> str:
    """Arguments as `(a=1, b='x')`; long values are cut."""
    if not arguments:
        return ""
    shown = ", ".join(
        f"{key}={text if len(text := repr(value)) <= 80 else text[:77] + '...'}" for key, value in arguments.items()
    )
    return f"({shown})"


def _partial_mark(text: str) -> int:
    """How many characters at the end of `text` may be the beginning of a mark.

    >>> _partial_mark("so <tool"), _partial_mark("a < b")
    (5, 0)
    """
    longest = max(map(len, MARKS)) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in MARKS):
            return size
    return 0
