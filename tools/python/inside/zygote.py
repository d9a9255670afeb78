"""The zygote: a process with one thread and the libraries loaded, which forks a confined interpreter for every session.

It reads requests from a seqpacket socket and answers on it; descriptors travel as SCM_RIGHTS:

    {"op": "fork", "id", "work", "seed", ...limits} + session socket, output pipe   ->   {"op": "forked", "id"} + pidfd
                                                       later   {"op": "exit", "id", "status", "cpu"}

It ends when the socket does. Nothing here may start a thread or an event loop before `fork`.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

from . import kernel_api as api
from .confine import always_limit, confine
from .frames import Frames, pack
from .program import run_program
from .shell import Interpreter

_WARM_UP = (
    "print('x'); 1 + 1",
    "1 / 0",
    "import math, json, re, itertools, collections, datetime\n[math.sqrt(i) for i in range(3)]",
)
_WARM_UP_OF = {
    "numpy": "import numpy.random, numpy.linalg; numpy.linalg.inv(numpy.eye(2)); repr(numpy.arange(3.0))",
    "sympy": "import sympy; sympy.solve(sympy.symbols('x')**2 - 1); str(sympy.integrate(sympy.symbols('x')))",
    "PIL.Image": "import PIL.Image, PIL.ImageDraw; PIL.Image.init(); PIL.Image.new('RGB', (2, 2))",
    "matplotlib.pyplot": "import matplotlib.pyplot as plt; plt.plot([1, 2])",
    "scipy": "import scipy.optimize, scipy.linalg",
}

_ROOM_FOR_FDS = socket.CMSG_SPACE(8)


class Zygote:
    """State of the process between requests."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control = control
        self.settings = settings
        self.tier: str = settings["tier"]
        self.children: dict[int, int] = {}
        self.to_load: list[str] = list(settings["modules"])
        self.failed: dict[str, str] = {}
        self.loaded = False
        always_limit()
        at_once, self.program = api.seccomp_programs(shared_pids=self.tier != "full")
        if self.tier != "none":
            api.no_new_privileges()
            api.seccomp(at_once)
        self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if self.tier == "full" else -1
        self.interpreter = Interpreter()
        self.warm(_WARM_UP)
        self.woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def warm(self, cells: tuple[str, ...]) -> None:
        """Run cells so that a child's first cell finds every path walked, then forget them."""
        quiet = os.open("/dev/null", os.O_WRONLY)
        kept = os.dup(1)
        os.dup2(quiet, 1)
        try:
            for cell in cells:
                self.interpreter.run(cell)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            os.close(quiet)
        shell = self.interpreter.shell
        shell.reset(new_session=True)
        shell.report = type(shell.report)()
        self.interpreter.seed_numpy()
        gc.collect()
        gc.freeze()  # a collection in a child would touch, and so copy, every page

    def loop(self) -> None:
        """Serve until the other side is gone; load the profile's modules while there is nothing to do."""
        self.say({"op": "up"})
        while True:
            wait = None if self.loaded else 0.0
            ready, _, _ = select.select([self.control, self.woken], [], [], wait)
            if self.woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.woken, 4096)
                self.reap()
            if self.control in ready and not self.serve():
                self.end_all()
                return
            if not ready and not self.loaded:
                self.load()

    def load(self) -> None:
        """Import one module of the profile, or say that all have been; what is not installed is simply not there."""
        if not self.to_load:
            self.loaded = True
            api.use_huge_pages()
            self.say({"op": "loaded", "missing": self.failed})
            return
        name = self.to_load.pop(0)
        try:
            importlib.import_module(name)
            self.warm((_WARM_UP_OF.get(name, "pass"),))
        except ImportError as error:
            self.failed[name] = str(error)
        except Exception:
            self.failed[name] = traceback.format_exc(limit=1)

    def serve(self) -> bool:
        """One request. False at the end of the socket."""
        try:
            data, fds, _, _ = socket.recv_fds(self.control, 65536, 8)
        except InterruptedError:
            return True
        if not data:
            return False
        request = json.loads(data)
        try:
            pid = self.fork(request, fds)
        except OSError as error:
            self.say({"op": "failed", "id": request["id"], "error": str(error)})
            return True
        finally:
            for fd in fds:
                os.close(fd)
        self.children[pid] = request["id"]
        pidfd = os.pidfd_open(pid)
        self.say({"op": "forked", "id": request["id"]}, pidfd)
        os.close(pidfd)
        return True

    def fork(self, request: dict[str, Any], fds: list[int]) -> int:
        """Fork a child into a pid namespace of its own, where the tier has those."""
        if self.tier == "full":
            api.setns(self.own_pids, api.CLONE_NEWPID)
            api.unshare(api.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            self.become_session(request, fds)
        return pid

    def become_session(self, request: dict[str, Any], fds: list[int]) -> NoReturn:
        """In the child: take the session's descriptors, confine, run cells until told to stop."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if self.tier != "full":
                os.setsid()
                api.adopt_orphans()
            api.die_with_parent()
            channel, output = fds
            nothing = os.open("/dev/null", os.O_RDONLY)
            for source, target in ((nothing, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            link = os.dup2(channel, 3 if channel != 3 else 4, inheritable=False)
            api.close_all_but((0, 1, 2, link))
            channel_socket = socket.socket(fileno=link)
            try:
                work = self.settings["work"] if self.tier == "full" else request["work"]
                confine(self.tier, work, request, self.settings["readable"], self.program)
                self.interpreter.begin(work, request["seed"], request["image_side"], request["images"])
            except Exception as error:
                channel_socket.sendall(pack({"op": "failed", "id": 0, "error": f"{type(error).__name__}: {error}"}))
                os._exit(1)
            SessionLoop(channel_socket, self.interpreter).run()
            code = 0
        except Exception:
            os.write(2, traceback.format_exc(limit=-3).encode())
        finally:
            os._exit(code)

    def reap(self) -> None:
        """Collect dead children; the rest of a process group goes before its number can be given out again."""
        while self.children:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            pid = found.si_pid
            if pid in self.children and self.tier != "full":
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            identity = self.children.pop(pid, None)
            if identity is not None:
                cpu = usage.ru_utime + usage.ru_stime
                self.say({"op": "exit", "id": identity, "status": os.waitstatus_to_exitcode(status), "cpu": cpu})

    def end_all(self) -> None:
        """The manager is gone: end every session, and whatever its code has started. In tier `full` the end of this
        process, the first of its pid namespace, does that."""
        while self.tier != "full" and (beneath := api.children()):
            for pid in beneath:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            for pid in beneath:  # what it started is a child of this process then, and meets the next round
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def say(self, message: dict[str, Any], *fds: int) -> None:
        """Answer on the control socket."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.control, [json.dumps(message).encode()], list(fds))


class SessionLoop:
    """The child's conversation with the manager: a request, a cell, a report."""

    def __init__(self, channel: socket.socket, interpreter: Interpreter) -> None:
        self.channel = channel
        self.interpreter = interpreter
        self.pid = os.getpid()
        self.work = self.root = os.getcwd()
        self.fds: list[int] = []
        self.branches: set[int] = set()

    def run(self) -> None:
        """Serve until the socket ends."""
        frames = Frames()
        self.channel.sendall(pack({"op": "ready", "id": 0}))
        while True:
            try:
                data, extra, _, _ = self.channel.recvmsg(1 << 16, _ROOM_FOR_FDS, socket.MSG_CMSG_CLOEXEC)
            except KeyboardInterrupt:
                continue
            if not data:
                return
            for _, _, packed in extra:
                self.fds += array.array("i", packed)
            for message, blob in frames.feed(data):
                self.answer(message, blob)

    def answer(self, message: dict[str, Any], blob: bytes) -> None:
        """Do one request."""
        reply: dict[str, Any] = {"op": "done", "id": message["id"]}
        images = b""
        if message["op"] == "execute":
            reply |= self.interpreter.run(blob.decode())
            if os.getpid() != self.pid:
                os._exit(0)  # the code forked and its child came back here: the parent answers, not the child
            images = b"".join(self.interpreter.shell.report.images)
        elif message["op"] == "run":
            report, images = self.program(message, blob)
            reply |= report
        elif message["op"] == "put":
            reply |= self.put(message, blob)
        elif message["op"] == "fork":
            reply |= self.branch()
        self.channel.sendall(pack(reply, images))

    def program(self, message: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        """Run another program, which an interrupt ends."""
        self.interpreter.busy = True
        try:
            return run_program(message, blob)
        except (OSError, KeyboardInterrupt) as error:
            return {"error": f"{type(error).__name__}: {error}", "error_name": None}, b""
        finally:
            self.interpreter.busy = False

    def branch(self) -> dict[str, Any]:
        """Fork: the child goes on as a session of its own, with the descriptors that came with the request."""
        for pid in list(self.branches):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self.branches.discard(pid)
        channel, output = self.fds
        self.fds = []
        try:
            pid = os.fork()
        except OSError as error:
            return {"error": str(error)}
        finally:
            if os.getpid() == self.pid:
                os.close(channel)
                os.close(output)
        if pid:
            self.branches.add(pid)
            return {"pid": pid}
        self.become_branch(channel, output)

    def become_branch(self, channel: int, output: int) -> NoReturn:
        """In the child of `branch`."""
        try:
            self.pid = os.getpid()
            self.branches = set()
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            self.channel.close()
            self.channel = socket.socket(fileno=channel)
            try:
                self.copy_files()
            except OSError as error:
                self.channel.sendall(pack({"op": "failed", "id": 0, "error": f"its files were not copied: {error}"}))
                os._exit(1)
            self.run()
        finally:
            os._exit(0)

    def copy_files(self) -> None:
        """A working directory of its own, with what was in the one it came from."""
        import shutil
        import tempfile

        here = os.path.relpath(os.getcwd(), self.root)
        target = tempfile.mkdtemp(prefix=".branch-", dir=self.work)
        hidden = shutil.ignore_patterns(".branch-*")
        shutil.copytree(self.root, target, symlinks=True, ignore=hidden, dirs_exist_ok=True)
        self.root = target
        os.environ.update(HOME=target, TMPDIR=target)
        tempfile.tempdir = None
        inside = os.path.join(target, here)
        os.chdir(inside if not here.startswith("..") and os.path.isdir(inside) else target)

    def put(self, message: dict[str, Any], blob: bytes) -> dict[str, Any]:
        """Bind names to JSON values, bytes and pictures."""
        try:
            values: dict[str, Any] = dict(message["values"])
            at = 0
            for name, kind, size in message["blobs"]:
                data = blob[at : at + size]
                at += size
                values[name] = _picture(data) if kind == "image" else data
            self.interpreter.shell.push(values)  # pyright: ignore[reportUnknownMemberType]
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "error_name": type(error).__name__}
        return {"error": None}


def _picture(data: bytes) -> Any:
    import io

    import PIL.Image

    picture = PIL.Image.open(io.BytesIO(data), formats=["PNG", "JPEG"])
    picture.load()
    return picture


def main() -> None:
    """`argv`: the number of the control socket's descriptor, and the settings as JSON."""
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    sys.argv[1:] = []
    if settings["tier"] == "full":
        api.die_with_parent()
        # A pid and user namespace of its own gives this process the right to make one more pid namespace per session.
        api.new_user_namespace(api.CLONE_NEWPID)
        child = os.fork()
        if child:
            control.close()
            os.waitpid(child, 0)
            os._exit(0)
        api.die_with_parent()
    else:
        api.adopt_orphans()  # it outlives the manager long enough to end all that is beneath it
    Zygote(control, settings).loop()
    os._exit(0)
