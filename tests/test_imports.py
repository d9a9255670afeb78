"""Policy: `tools envs evals agent` import with the base install alone, commands start light, an import does no more."""

from __future__ import annotations

import ast
import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIGHT = ("tools", "envs", "agent", "evals")
NOT_HERE = {
    "agent.local": "the engine that runs torch in this process",
    "tools.python.inside.figures": "a matplotlib backend: matplotlib itself loads it, in a sandbox",
}
"""Modules that need an extra, each with the reason; nothing may import them at its top level."""
HEAVY = ("torch", "transformers", "trl", "openai", "rich", "PIL", "scipy", "numpy", "pandas", "matplotlib", "langgraph")


def modules(package: str) -> list[str]:
    """Dotted names of a package's modules, itself first."""
    paths = (path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / package).rglob("*.py")))
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if name not in NOT_HERE]


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new interpreter where a warning is an error."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


TRAINING = ("torch", "transformers", "tokenizers", "trl", "accelerate", "datasets", "peft", "gguf", "numpy", "pandas")
EXTRAS = (*TRAINING, "matplotlib", "scipy", "langgraph", "av", "ddgs", "vllm")
BASE_INSTALL = f"""
import importlib, importlib.abc, sys
class BaseInstall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError("an extra brings " + name, name=name)
sys.meta_path.insert(0, BaseInstall())
"""


@pytest.mark.parametrize("package", LIGHT)
def test_a_light_package_imports_with_the_base_install(package: str) -> None:
    done = python(BASE_INSTALL + f"for name in {modules(package)!r}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


def test_the_hook_that_hides_the_extras_works() -> None:
    done = python(BASE_INSTALL + "import torch.nn")
    assert "an extra brings torch" in done.stderr


@pytest.mark.parametrize("package", ["agent", "evals", "training"])
def test_a_command_line_starts_without_heavy_libraries(package: str) -> None:
    done = python(f"import sys, {package}.__main__; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


WATCHED = """
import importlib, sys, threading
seen = []
def watch(event, args):
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append((event, args[0]))
    if event in ("socket.connect", "subprocess.Popen", "os.mkdir", "os.rename", "os.remove", "os.putenv"):
        seen.append((event, str(args)))
sys.addaudithook(watch)
"""


@pytest.mark.parametrize("package", [*LIGHT, "training.__main__"])
def test_importing_has_no_side_effects(package: str) -> None:
    names = modules(package) if package in LIGHT else [package]
    done = python(
        WATCHED + f"for name in {names!r}: importlib.import_module(name)\n"
        "print(seen, [thread.name for thread in threading.enumerate()])"
    )
    assert (done.stdout, done.stderr) == ("[] ['MainThread']\n", "")


def test_the_watch_sees_files_threads_and_processes(tmp_path: Path) -> None:
    code = f"import os, subprocess; open({str(tmp_path / 'a')!r}, 'w'); os.putenv('A', 'b'); subprocess.run(['true'])\n"
    done = python(WATCHED + code + "print([event for event, _ in seen])")
    assert all(event in done.stdout for event in ("open", "os.putenv", "subprocess.Popen")), done.stderr


def third_party(folder: str) -> set[str]:
    """Top-level names that the modules under `folder` import, ours and the standard library's left out."""
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
    helpers = {path.stem for path in (ROOT / folder).rglob("*.py")}
    return found - set(sys.stdlib_module_names) - {*LIGHT, "training"} - helpers


@pytest.mark.parametrize("folder", [*LIGHT, "training", "tests", "benchmarks"])
def test_what_is_imported_is_a_declared_dependency(folder: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {re.split(r"[\s<>=!~;\[]", line)[0].lower().replace("_", "-") for line in lines}
    elsewhere = {"skimage": ["scikit-image"], "sklearn": ["scikit-learn"], "Stemmer": ["PyStemmer"]}
    owners = {**elsewhere, **importlib.metadata.packages_distributions()}
    undeclared = {
        name
        for name in third_party(folder)
        if not {owner.lower().replace("_", "-") for owner in (name, *owners.get(name, []))} & declared
    }
    assert undeclared == set()
