"""What an evaluation costs beside the model: the same questions, the same server, `evals run` and its peers.

A stub server answers every chat request after a fixed time, with 64 connections allowed. 500 questions are asked 4
times each; every side keeps its log, scores the answers and prints nothing. Whole commands are measured, start-up and
all: wall time and the CPU of the client's processes, a sample. `evals list` is timed against bare Python.

Peers with pins of their own live in an environment of their own:

    python -m venv .peers && .peers/bin/pip install inspect_ai 'verifiers<0.2'
    python benchmarks/evals.py --peers .peers/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _common import Row, alternate, report, row

HERE = Path(__file__).parent
LATENCY_S = 0.05
CONNECTIONS = 64

OURS = """
from envs import Rubric, Task, Taskset, ToolEnv, user
from envs.rewards.answers import correct

def sums(n: int):
    tasks = [Task(id=f"s{i}", prompt=(user(f"What is {i} + {i + 1}?"),), answer=str(2 * i + 1)) for i in range(n)]
    return Taskset(name="sums", tasks=tasks, env=lambda task: ToolEnv(task=task),
                   rubric=Rubric(rewards={"correct": (correct(), 1.0)}))
"""

INSPECT = """
import os
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import match

@task
def sums():
    n = int(os.environ["SUMS"])
    rows = [Sample(id=f"s{i}", input=f"What is {i} + {i + 1}?", target=str(2 * i + 1)) for i in range(n)]
    return Task(dataset=MemoryDataset(rows), scorer=match(numeric=True))
"""

VERIFIERS = """
import asyncio, os, re
from pathlib import Path
import verifiers as vf
from datasets import Dataset
from verifiers.types import ClientConfig

def right(completion, answer, **_):
    found = re.findall(r"Answer: (\\d+)", completion[-1]["content"])
    return float(bool(found) and found[-1] == answer)

n, repeats, out = int(os.environ["SUMS"]), int(os.environ["REPEATS"]), os.environ["OUT"]
rows = [{"question": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(n)]
env = vf.SingleTurnEnv(eval_dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[right]))
client = ClientConfig(api_base_url=os.environ["URL"], api_key_var="LOCAL_API_KEY")
results = asyncio.run(env.evaluate(client=client, model="stub", sampling_args={"max_tokens": 512, "temperature": 0.0},
                                   num_examples=n, rollouts_per_example=repeats, max_concurrent=64,
                                   independent_scoring=True, on_progress=lambda *_: None,
                                   save_results=True, results_path=Path(out), state_columns=["trajectory"]))
rewards = [output["reward"] for output in results["outputs"]]
assert len(rewards) == n * repeats and min(rewards) == 1.0, (len(rewards), sum(rewards))
"""


def measured(command: Sequence[str], folder: Path | None = None, **environment: str) -> tuple[float, float]:
    """Wall and CPU seconds of a command, its children's CPU included. Raises what it said when it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment})
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return wall, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def ours(folder: Path, url: str, n: int, repeats: int) -> tuple[float, float]:
    """`evals run`, and a look at what it wrote."""
    (folder / "sums.py").write_text(OURS)
    out = folder / "ours"
    command = [sys.executable, "-m", "evals", "run", f"{folder}/sums.py:sums", "-a", f"n={n}", "-m", "openai:stub"]
    options = ["--base-url", url, "-k", str(repeats), "-c", str(CONNECTIONS), "--fresh", "-q", "--out", str(out)]
    found = measured([*command, *options])
    results = json.loads((out / "results.json").read_text())
    assert (results["scored"], results["accuracy"]) == (n * repeats, 1.0), results
    return found


def inspect_ai(python: str, folder: Path, url: str, n: int, repeats: int) -> tuple[float, float]:
    """`inspect eval` with its defaults, but for the display and the connections."""
    (folder / "sums_inspect.py").write_text(INSPECT)
    command = [str(Path(python).parent / "inspect"), "eval", "sums_inspect.py"]
    options = ["--model", "openai-api/local/stub", "--epochs", str(repeats), "--temperature", "0", "--display", "none"]
    options += ["--max-tokens", "512", "--max-connections", str(CONNECTIONS), "--log-dir", str(folder / "inspect")]
    secrets = {"LOCAL_BASE_URL": url, "LOCAL_API_KEY": "none", "SUMS": str(n)}
    found = measured([*command, *options], folder, **secrets)
    log = max((folder / "inspect").glob("*.eval"), key=lambda path: path.stat().st_mtime)
    check = (
        "import sys; from inspect_ai.log import read_eval_log as r; l = r(sys.argv[1], header_only=True); "
        "print(l.results.completed_samples, l.results.scores[0].metrics['accuracy'].value)"
    )
    said = subprocess.run([python, "-c", check, str(log)], capture_output=True, text=True, check=True).stdout.split()
    assert (int(said[0]), float(said[1])) == (n * repeats, 1.0), said
    return found


def verifiers(python: str, folder: Path, url: str, n: int, repeats: int) -> tuple[float, float]:
    """verifiers' in-process evaluation, with its results saved."""
    (folder / "sums_verifiers.py").write_text(VERIFIERS)
    out = {
        "SUMS": str(n),
        "REPEATS": str(repeats),
        "URL": url,
        "OUT": str(folder / "verifiers"),
        "LOCAL_API_KEY": "none",
    }
    return measured([python, str(folder / "sums_verifiers.py")], **out)


def has(python: str, package: str) -> str | None:
    """The version of `package` in that interpreter's environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return said.stdout.strip() if said.returncode == 0 else None


def time_runs(peers: str, n: int, repeats: int, rounds: int) -> tuple[list[Row], list[str]]:
    """Every side in turns; the best of each. Rows, and what was left out."""
    server = subprocess.Popen(
        [sys.executable, str(HERE / "_chat_stub.py"), "--latency", str(LATENCY_S)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
    sides = {"evals run": lambda folder: ours(folder, url, n, repeats)}
    left_out: list[str] = []
    for name, side in (("inspect_ai", inspect_ai), ("verifiers", verifiers)):
        version = has(peers, name)
        if version is None or (name == "verifiers" and not version.startswith("0.1")):
            left_out.append(f"{name} ({'not installed' if version is None else version} in {peers}; see --help)")
        else:
            sides[f"{name} {version}"] = lambda folder, side=side: side(peers, folder, url, n, repeats)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    try:
        for _ in range(rounds):
            for name, side in sides.items():
                with tempfile.TemporaryDirectory() as folder:
                    wall, cpu = side(Path(folder))
                found[name].append((wall, cpu))
                print(f"{name}: {wall:.1f} s wall, {cpu:.1f} s CPU", file=sys.stderr, flush=True)
    finally:
        server.kill()
        server.wait()
    best = {name: [min(values) for values in zip(*runs, strict=True)] for name, runs in found.items()}
    samples = n * repeats
    ideal = samples * LATENCY_S / CONNECTIONS
    rows = [
        row(what, peer, best["evals run"][at] / samples * 1e3, best[peer][at] / samples * 1e3, "ms a sample")
        for peer in best
        if peer != "evals run"
        for at, what in enumerate(("wall", "CPU"))
    ]
    wall = best["evals run"][0]
    rows.append(row("wall", "the server's latency alone", wall / samples * 1e3, ideal / samples * 1e3, "ms a sample"))
    return rows, left_out


def time_list(repeats: int) -> Row:
    """`evals list` beside bare Python."""
    quiet = {"stdout": subprocess.DEVNULL, "check": True}
    seconds = alternate(
        {
            "list": lambda: subprocess.run([sys.executable, "-m", "evals", "list"], **quiet),
            "pass": lambda: subprocess.run([sys.executable, "-c", "pass"], **quiet),
        },
        repeats,
    )
    return row("evals list", "python -c pass", seconds["list"], seconds["pass"], "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 questions twice, one round: under a minute")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs; the best counts")
    peers = os.environ.get("EVALS_PEERS", sys.executable)
    about = "interpreter that has the peers (or EVALS_PEERS; default: this one)"
    parser.add_argument("--peers", default=peers, metavar="PYTHON", help=about)
    asked = parser.parse_args()
    size = (100, 2, 1) if asked.quick else (500, 4, asked.rounds)
    rows, left_out = time_runs(asked.peers, *size)
    rows.append(time_list(3 if asked.quick else 10))
    for name in left_out:
        print(f"not measured: {name}", file=sys.stderr)
    peers_found = {name: version for name in ("inspect_ai", "verifiers") if (version := has(asked.peers, name))}
    report("evals", rows, ["openai"], peers_found)


if __name__ == "__main__":
    main()
