"""One recipe over several processes: `accelerate launch --config_file $(training accelerate NAME) -m training run ...`.

Every process runs the same command. Stages that train run in all of them; the others run in the first, and the rest
wait for what it leaves. The first alone holds the run folder and writes its files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tools.errors import ConfigError, nearest

CONFIGS = Path(__file__).parent / "accelerate"
TICK_S = 0.2


def rank() -> int:
    """This process's number, 0 when there is only one."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes run this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def known_configs() -> dict[str, str]:
    """Name and first comment line of every accelerate config that comes with the package."""
    return {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        for path in sorted(CONFIGS.glob("*.yaml"))
    }


def config_path(name: str) -> Path:
    """The file of a shipped config. Raises `ConfigError` with the nearest names."""
    known = known_configs()
    if name not in known:
        raise ConfigError(f"there is no accelerate config {name!r}", hint=nearest(name, known))
    return CONFIGS / f"{name}.yaml"


def token() -> str:
    """The same in all processes of one launch, and in no other launch at the same time."""
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    parent = str(os.getppid()) if "LOCAL_RANK" in os.environ else ""
    return " ".join([parent, *(os.environ.get(name, "") for name in names)])


def announce(out: Path) -> None:
    """The first process says that the run folder is settled, so that the others may look at it."""
    if world() > 1:
        (out / ".launch").write_text(token(), encoding="utf-8")


def wait_for(there: Callable[[], bool]) -> None:
    """Return when `there()`. There is no limit: a launcher ends all processes when one fails."""
    while not there():
        time.sleep(TICK_S)


def wait_for_launch(out: Path) -> None:
    """Wait until the first process of this launch has announced the run folder."""
    path = out / ".launch"
    wait_for(lambda: path.exists() and path.read_text(encoding="utf-8") == token())
