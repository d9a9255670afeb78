"""The interpreter of a session: IPython's shell without terminal, history or sockets. One cell in, one report out."""

# IPython has hardly any types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import warnings
from importlib import import_module
from types import FrameType
from typing import Any, TextIO, cast

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.lib import pretty
from traitlets.config import Config

from .cell import History, count_transformers, run_plain

MAX_TEXT = 131_072
"""Characters of a value or a traceback. Two of that length fit into a frame, where one may take 12 bytes."""
SEED = 0
"""What a zygote is seeded with before it forks."""
handler_of: Any = import_module("_signal").getsignal
"""signal's own tries, and mostly fails, to make an enum of it."""
_PNG_LIMIT = 1_000_000
_TEXT_ONLY = frozenset({int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset})
_AS_REPR = cast("Any", pretty)._type_pprinters[int]  # how IPython shows a type that has no form of its own


class Report:
    """What the running cell has shown so far."""

    def __init__(self) -> None:
        self.result: str | None = None
        self.error: str | None = None
        self.error_name = ""
        self.images: list[bytes] = []
        self.image_bytes = 0
        self.dropped = 0


class Hook(DisplayHook):
    """Takes the value of the last expression."""

    def write_output_prompt(self) -> None:
        pass

    def quiet(self) -> bool:
        """True for a cell that ends in a semicolon; only one that has any is looked at token by token."""
        return ";" in cast("Any", self.shell).history_manager.input_hist_parsed[-1] and bool(super().quiet())

    def compute_format_data(self, result: Any) -> Any:
        """Numbers, text and containers have one form: asking the picture formatters too is half of a short cell."""
        kind = type(result)
        if kind in _TEXT_ONLY:
            text = cast("Any", cast("Shell", self.shell).display_formatter).formatters["text/plain"]
            return {"text/plain": repr(result) if text.type_printers.get(kind) is _AS_REPR else text(result)}, {}
        return super().compute_format_data(result)

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        shell = cast("Shell", self.shell)
        if not shell.take_picture(format_dict):
            shell.report.result = str(format_dict.get("text/plain", ""))[:MAX_TEXT]

    def finish_displayhook(self) -> None:
        sys.stdout.flush()


class Publisher(DisplayPublisher):
    """Takes what `display` shows."""

    def publish(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        shell = cast("Shell", self.shell)
        if not shell.take_picture(data):
            print(str(data.get("text/plain", ""))[:MAX_TEXT])

    def clear_output(self, wait: bool = False) -> None:
        pass


class Shell(InteractiveShell):
    """IPython semantics; pictures are collected; tracebacks are plain text."""

    report: Report
    image_side: int
    max_images: int
    max_image_bytes = 16 * 2**20

    def __init__(self, **kwargs: Any) -> None:
        self.report = Report()
        self.image_side, self.max_images = 2048, 10
        super().__init__(**kwargs)
        formats = cast("Any", self.display_formatter)
        formats.active_types = ["text/plain", "image/png", "image/jpeg"]
        # By name, so that nothing is imported. The bytes may be JPEG: the receiver goes by the magic number.
        formats.formatters["image/png"].for_type_by_name("PIL.Image", "Image", self._encoded)

    def init_user_ns(self) -> None:
        super().init_user_ns()
        self.user_ns.pop("open", None)  # IPython's own `open` would stand in every traceback

    def init_history(self) -> None:
        self.history_manager = History(shell=self, parent=self)
        self.history_manager.enabled = False

    def system(self, cmd: str) -> None:
        """`!command`, its output going where print's goes. (IPython's own needs a pseudo-terminal.)"""
        sys.stdout.flush()
        command = self.var_expand(cmd, depth=1)
        code = subprocess.call(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL)
        self.user_ns["_exit_code"] = code

    def ask_exit(self) -> None:
        print("The session goes on: exit() does nothing here.")

    def enable_gui(self, gui: str | None = None) -> None:
        pass

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: str | list[str]) -> None:
        text = stb if isinstance(stb, str) else self.InteractiveTB.stb2text(stb)
        self.report.error, self.report.error_name = text[-MAX_TEXT:], _name(etype)

    def take_picture(self, data: dict[str, Any]) -> bool:
        """Keep the picture of a display bundle, if it has one."""
        encoded = data.get("image/png") or data.get("image/jpeg")
        if isinstance(encoded, str):
            import base64

            encoded = base64.b64decode(encoded)
        if not encoded:
            return False
        self.keep(encoded)
        return True

    def keep(self, encoded: bytes) -> None:
        """Keep one encoded picture, within the limits."""
        report = self.report
        if len(report.images) < self.max_images and report.image_bytes + len(encoded) <= self.max_image_bytes:
            report.images.append(encoded)
            report.image_bytes += len(encoded)
        else:
            report.dropped += 1

    def _encoded(self, picture: Any) -> bytes:
        """A Pillow image, scaled to the side limit; PNG, or JPEG where PNG is large."""
        if max(picture.size) > self.image_side:
            picture = picture.copy()
            picture.thumbnail((self.image_side, self.image_side))
        buffer = io.BytesIO()
        if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I"):
            picture = picture.convert("RGB")
        picture.save(buffer, format="PNG")
        if buffer.tell() > _PNG_LIMIT:
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, format="JPEG", quality=90)
        return buffer.getvalue()

    def collect_figures(self) -> None:
        """Keep and close the open matplotlib figures."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        try:
            for number in pyplot.get_fignums():
                figure = pyplot.figure(number)
                buffer = io.BytesIO()
                dpi = min(figure.get_dpi(), self.image_side / max(figure.get_size_inches()))
                figure.savefig(buffer, format="png", dpi=dpi)
                self.keep(buffer.getvalue())
        finally:
            pyplot.close("all")


def _name(kind: type[BaseException]) -> str:
    return kind.__name__[:200]


def without_traits(owner: object, *names: str) -> None:
    """Make plain attributes of some that IPython declares as traits and nobody configures or observes.

    A short cell reads them seventy times, and a trait is a function in Python: half of the time of the cell.
    """
    for name in names:
        if hasattr(owner, name):  # not every IPython has all of them
            setattr(type(owner), name, getattr(owner, name))


class Interpreter:
    """A shell with its streams and its interrupt handling."""

    def __init__(self) -> None:
        os.environ["MPLBACKEND"] = f"module://{__package__}.figures"
        config = Config()
        config.InteractiveShell.colors = "nocolor"
        config.InteractiveShell.xmode = "Plain"
        config.HistoryManager.enabled = False
        config.HistoryManager.hist_file = ":memory:"
        self.shell = Shell.instance(config=config, displayhook_class=Hook, display_pub_class=Publisher)
        cast("Any", self.shell).builtin_trap.__enter__()  # for good: `display` is there between cells too, for threads
        history = self.shell.history_manager
        without_traits(self.shell, "execution_count", "last_execution_succeeded", "history_manager")
        without_traits(self.shell, "display_formatter", "display_trap", "magics_manager", "input_transformer_manager")
        without_traits(self.shell.displayhook, "shell")
        without_traits(history, "shell", "outputs", "output_hist_reprs", "input_hist_parsed", "input_hist_raw")
        without_traits(history, "db_input_cache")
        warnings.filterwarnings("ignore", "To exit: use", UserWarning)  # IPython's, for a terminal
        self.transformers = count_transformers(self.shell)
        self.busy = False
        self.streams()

    def streams(self) -> None:
        """Point print at descriptor 1, by the line, so that what was printed before a crash is not lost."""
        raw = io.BufferedWriter(io.FileIO(1, "w", closefd=False), 65536)
        self.out = io.TextIOWrapper(raw, "utf-8", "replace", line_buffering=True, write_through=False)
        self.err = io.TextIOWrapper(raw, "utf-8", "replace", line_buffering=True, write_through=True)
        sys.stdout, sys.stderr = cast("TextIO", self.out), cast("TextIO", self.err)
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr

    def begin(self, work: str, seed: int, image_side: int, max_images: int) -> None:
        """The first thing in a new session: a home, seeds, interrupts."""
        os.environ.update(HOME=work, TMPDIR=work)
        tempfile.tempdir = None
        self.shell.image_side, self.shell.max_images = image_side, max_images
        random.seed(seed)  # it seeds itself anew at a fork, which numpy does not
        if seed != SEED:
            self.seed_numpy(seed)
        self.catch_interrupts()

    def seed_numpy(self, seed: int = SEED) -> None:
        """Seed numpy's own generator, where numpy is loaded."""
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)

    def catch_interrupts(self) -> None:
        """KeyboardInterrupt within cells only: one that comes late must not hit the loop around them."""

        def on_interrupt(number: int, frame: FrameType | None) -> None:
            if self.busy:
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, on_interrupt)

    def run(self, code: str) -> dict[str, Any]:
        """Run one cell. What it returns holds all but the output stream and the bytes of the pictures."""
        self.shell.report = report = Report()
        try:
            self.busy = True
            if not run_plain(self.shell, code, self.transformers):
                self.shell.run_cell(code, store_history=True)
            self.shell.collect_figures()
        except KeyboardInterrupt:
            report.error, report.error_name = "KeyboardInterrupt", "KeyboardInterrupt"
        except BaseException as error:
            report.error_name = _name(type(error))
            report.error = f"{report.error_name}: {error}"[:MAX_TEXT]
        finally:
            self.busy = False
        self._tidy()
        return {
            "result": report.result,
            "error": report.error,
            "error_name": report.error_name,
            "sizes": [len(image) for image in report.images],
            "dropped": report.dropped,
        }

    def _tidy(self) -> None:
        """Undo what a cell may have done to the parts that the next report needs."""
        try:
            self.out.flush()
            self.err.flush()
            if sys.stdout is not self.out or sys.stderr is not self.err:
                sys.stdout.flush()
                sys.stderr.flush()
        except BaseException:  # they are the code's own, or closed
            self.streams()
        if handler_of(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None, signal.default_int_handler):
            self.catch_interrupts()
