"""Real word problems and real function calls, from the packages that ship them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from agent import ScriptedSampler, rollout
from envs import Taskset, assistant
from envs.find import find_taskset, held_out
from envs.message import Message
from envs.tasksets.bfcl import CATEGORIES, bfcl, is_right, tool_of_record
from envs.tasksets.math_word import math_word, split_of, steps_of
from envs.trajectory import Trajectory
from evals.check import check
from tools import ConfigError, ToolCall

needs_templates = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="pip install 'toolweave[tasks]'"
)
needs_records = pytest.mark.skipif(
    importlib.util.find_spec("bfcl_eval") is None, reason="pip install --no-deps bfcl-eval"
)


def play(taskset: Taskset, index: int, *script: Message) -> Trajectory:
    task = taskset.tasks[index]
    return asyncio.run(rollout(taskset.env(task), ScriptedSampler(script), rubric=taskset.rubric))


@pytest.mark.parametrize(
    ("working", "answer", "steps"),
    [
        ("2 x 3 = 6 pens", 6, ["2 * 3"]),
        ("135 clam / 15 clam/minute = 9 minutes", 9, ["135 / 15"]),
        ("$1,000 * 20% = $200", 200, ["1000 * 20 / 100"]),
        ("He has 5. 2 * (3 + 4) = 14", 14, ["2 * (3 + 4)"]),
        ("3 + 4 = 7\nso 7 - 2 = 5", 5, ["3 + 4", "7 - 2"]),
        ("3 + 4 = 8", 8, None),  # a slip
        ("3 + 4 = 7", 9, None),  # not the answer
        ("y = x + 120", 120, None),
        ("1/0 = 3, 9 ** 9 ** 9 ** 9 = 3", 3, None),
    ],
)
def test_sums_are_read_from_worked_solutions_or_not_at_all(working: str, answer: int, steps: list[str] | None) -> None:
    assert steps_of(working, Fraction(answer)) == steps


@needs_templates
def test_word_problems_repeat_and_their_splits_share_no_template() -> None:
    train, test = math_word("train", n=60), math_word("test", n=30)
    assert math_word("train", n=20).tasks == train.tasks[:20]
    assert math_word("train", n=5, seed=1).tasks[0].prompt != train.tasks[0].prompt
    templates = [{task.info["template"] for task in taskset.tasks} for taskset in (train, test)]
    assert not templates[0] & templates[1] and len(templates[0]) > 20
    assert {split_of(template) for template in templates[1]} == {"test"}
    assert len({task.prompt[1].text for task in train.tasks}) == 60
    assert held_out("math_word") == {"split": "test"}


@needs_templates
def test_word_problems_score_right_with_the_tool_and_without() -> None:
    found = check(math_word("all", n=6))
    assert found.problems == () and "6 gold" in found.summary
    bare = math_word("all", n=40, tools=False)
    assert bare.env(bare.tasks[0]).tools == ()
    assert check(bare).problems == ()
    shown = [task.gold[0].tool_calls for task in math_word("all", n=100).tasks]
    assert sum(map(bool, shown)) > 80
    with pytest.raises(ConfigError, match="split='dev' does not fit"):
        find_taskset("math_word", {"split": "dev"})
    assert len(math_word("val", n=150).tasks) == 150


def record_folder(root: Path) -> Path:
    """Two records in BFCL's format, written by us."""
    function = {
        "name": "math.area",
        "description": "Area.",
        "parameters": {
            "type": "dict",
            "properties": {"w": {"type": "float"}, "tags": {"type": "array", "items": {"type": "string"}}},
            "required": ["w"],
        },
    }
    question = [[{"role": "user", "content": "How large?"}]]
    (root / "possible_answer").mkdir(parents=True)
    rows = {"id": "simple_python_0", "question": question, "function": [function]}
    right = {"id": "simple_python_0", "ground_truth": [{"math.area": {"w": [2.5, 3], "tags": ["", ["Red one"]]}}]}
    (root / "BFCL_v4_simple_python.json").write_text(json.dumps(rows) + "\n")
    (root / "possible_answer" / "BFCL_v4_simple_python.json").write_text(json.dumps(right) + "\n")
    (root / "BFCL_v4_irrelevance.json").write_text(json.dumps({**rows, "id": "irrelevance_0"}) + "\n")
    return root


def call(name: str = "math_area", **arguments: object) -> Message:
    return assistant(tool_calls=[ToolCall(id="c", name=name, raw="", arguments=arguments)])


def test_function_calls_are_compared_and_never_run(tmp_path: Path) -> None:
    taskset = bfcl("simple_python,irrelevance", data=str(record_folder(tmp_path)))
    assert check(taskset).problems == ()
    for script, score in (
        (call(w=3), 1.0),
        (call(w=2.5, tags=["red-one"]), 1.0),
        (call(w=2.5, tags=["blue"]), 0.0),
        (call(w=4), 0.0),
        (call("area", w=3), 0.0),
        (assistant("2.5"), 0.0),
        (assistant(tool_calls=[ToolCall(id="c", name="math_area", raw="{", error="not JSON")]), 0.0),
    ):
        assert play(taskset, 0, script).scores["correct"] == score
    assert play(taskset, 1, assistant("None of them fits.")).scores["correct"] == 1.0
    episode = play(taskset, 1, call(w=3))
    assert episode.scores == {"correct": 0.0, "calls": 1.0} and episode.calls[0].result.text == "noted"


def test_what_is_wrong_with_the_records_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no category 'simpel'"):
        bfcl("simpel", data=str(record_folder(tmp_path / "a")))
    with pytest.raises(ConfigError, match="there is no folder"):
        bfcl(data=str(tmp_path / "b"))
    with pytest.raises(ConfigError, match=r"there is no file .*BFCL_v4_multiple"):
        bfcl("multiple", data=str(tmp_path / "a"))
    (tmp_path / "a" / "possible_answer" / "BFCL_v4_simple_python.json").write_text("")
    with pytest.raises(ConfigError, match="has no answer to simple_python_0"):
        bfcl("simple_python", data=str(tmp_path / "a"))


@needs_records
def test_gold_calls_of_the_real_records_are_right_but_for_four_that_contradict_themselves() -> None:
    tasks = bfcl("all").tasks
    assert len(tasks) == 3491 and {task.info["category"] for task in tasks} == set(CATEGORIES)
    wrong = {t.id for t in tasks if t.gold and not is_right(t.gold[0].tool_calls, t.answer, t.info["functions"])}
    live = {"live_simple_106-63-0", "live_simple_112-68-0", "live_multiple_862-181-3", "live_multiple_964-207-0"}
    assert wrong == live
    names = {tool_of_record(function).name for task in tasks for function in task.info["functions"]}
    assert all(name.replace("_", "a").replace("-", "a").isalnum() and len(name) <= 64 for name in names)
    assert len(bfcl(each=3).tasks) == 15


PARITY = """
import copy, json, random, sys, types
for name, content in {  # only reached for other languages and for models' spellings of names; they import half of PyPI
    "bfcl_eval.constants.model_config": {"MODEL_CONFIG_MAPPING": type("Any", (dict,), {"__missing__":
        lambda self, key: types.SimpleNamespace(underscore_to_dot=False)})()},
    "bfcl_eval.eval_checker.ast_eval.type_convertor.java_type_converter": {"java_type_converter": None},
    "bfcl_eval.eval_checker.ast_eval.type_convertor.js_type_converter": {"js_type_converter": None},
}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content)
from bfcl_eval.constants.enums import Language
from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
from envs.scoring import calls_match
from envs.tasksets.bfcl import bfcl

def spoilt(rng, calls):
    calls = copy.deepcopy(calls)
    name, given = rng.choice(calls)
    key = rng.choice(list(given) or [""])
    value = given.get(key)
    change = rng.randrange(6)
    if change == 0: calls.pop()
    elif change == 1: calls.append(calls[0])
    elif change == 2: given["more"] = 1
    elif change == 3: given.pop(key, None)
    else: given[key] = rng.choice([str(value), [value], None, "", [], {}, True, 1, 1.0, "x", [1], ["x"], {"a": 1}])
    return calls

rng, compared, right = random.Random(0), 0, 0
for task in bfcl("all").tasks:
    if task.answer["calls"] != "match": continue
    plain = lambda name: name.replace(".", "_")
    functions = [{**f, "name": plain(f["name"])} for f in task.info["functions"]]
    truth = [{plain(name): v for name, v in one.items()} for one in task.answer["right"]]
    gold = [(call.name, dict(call.arguments)) for call in task.gold[0].tool_calls]
    for calls in (gold, gold[::-1], *(spoilt(rng, gold) for _ in range(4))):
        theirs = ast_checker(functions, [{n: a} for n, a in calls], truth, Language.PYTHON, task.info["category"], "x")
        assert calls_match(calls, truth, functions) == theirs["valid"], (task.id, calls, theirs)
        compared, right = compared + 1, right + theirs["valid"]
print(compared, right)
"""


@needs_records
def test_our_comparison_of_calls_agrees_with_the_leaderboards_own() -> None:
    done = subprocess.run([sys.executable, "-c", PARITY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compared, right = map(int, done.stdout.split())
    assert compared > 10_000 and 3_000 < right < compared / 2
