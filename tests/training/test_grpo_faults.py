"""What may break while GRPO runs, broken for real: interpreters killed, the disk full, the trainer killed at random.

A tool that hangs is in test_peers_bugs.py, a reward that is no number in test_grpo.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agent.rollout import Limits
from envs import Stop, Trajectory
from envs.find import find_taskset
from envs.log import read_log
from training.files import read_json, read_metrics

ROOT = Path(__file__).parents[2]


def test_interpreters_killed_in_mid_step_are_replaced_and_the_run_goes_on(trainer_for: Any, tmp_path: Path) -> None:
    from tools.python.pool import _pools

    killed: list[int] = []

    def say(so_far: Trajectory) -> str:
        if so_far.steps:
            return f"Answer: {so_far.calls[-1].result.text}"
        if so_far.sample == 3 and not killed:  # as soon as there are any: in the first step or the second
            for session in [session for pool in _pools for session in pool._live]:
                if session.pid is not None:
                    killed.append(session.pid)
                    os.kill(session.pid, signal.SIGKILL)
        arguments = {"code": "print(1 + 1)"}
        return f"<tool_call>\n{json.dumps({'name': 'python', 'arguments': arguments})}\n</tool_call>"

    taskset = find_taskset("toy_arithmetic", {"n": 8})
    trainer = trainer_for(say, taskset=taskset, steps=3, limits=Limits(max_turns=3, call_timeout_s=300))
    trainer.train()
    episodes = list(read_log(tmp_path / "trajectories.jsonl"))
    assert len(episodes) == 24 and killed
    later = [t for t in episodes if t.info["step"] == 2]
    assert {call.result.text.strip() for t in later for call in t.calls} == {"2"}, "the pool is whole again"
    for t in episodes:
        assert t.stop is Stop.DONE or (t.stop is Stop.ERROR and t.reward is None and t.error)
    lost = [call for t in episodes for call in t.calls if "died" in call.result.text]
    assert len(lost) <= len(killed) and all(call.outcome != "ok" for call in lost), "told to the model, as no result"


PROGRAM = """
import importlib.util, json, os, resource, signal, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("toys", sys.argv[1])
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agent.dialects import dialect_named
from agent.local import TransformersEngine
from agent.renderer import Renderer
from agent.rollout import Limits
from agent.sampler import SamplingParams
from agent.token_sampler import TokenSampler
from training.files import last_checkpoint
from training.grpo import make_trainer
from training.recipe import GRPO

torch.set_num_threads(1)
tokenizer = toys.tiny_tokenizer()
shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)

async def share_of_even_ids(env, trajectory):
    ids = [token for step in trajectory.steps if step.tokens for token in step.tokens.completion]
    return sum(token % 2 == 0 for token in ids) / len(ids)

def train(out, steps=5):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **shape))
    def sampler(trained):
        engine = TransformersEngine(trained, tokenizer, max_batch=1, own_thread=False)
        return TokenSampler(Renderer(tokenizer, dialect_named("hermes")), engine)
    trainer = make_trainer(
        GRPO(steps=steps, tasks_per_step=2, group_size=3, micro_batch_size=3, lr=1e-2, checkpoint_every=2,
             concurrency=1, params=SamplingParams(max_tokens=4), limits=Limits(max_turns=1), trl={"bf16": False}),
        model=model, tokenizer=tokenizer, taskset=toys.toy_taskset(reward=share_of_even_ids), make_sampler=sampler,
        out=out, seed=3,
    )
    checkpoint = last_checkpoint(out)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        trainer.close()
    weights = {name: p.detach().double().sum().item().hex() for name, p in trainer.model.named_parameters()}
    (out / "weights.json").write_text(json.dumps(weights))
"""

WHOLE = '''
import random, time
from dataclasses import replace

from training.recipe import Collect, Evaluate, HeldOut
from training.recipes.quickstart import quickstart
from training.run import run

def serial():
    "The quickstart, its model and its live interpreter, in small and one episode after another."
    recipe = quickstart(n=6, gold=16, sft_steps=8, grpo_steps=6, tasks_per_step=2, group_size=3)
    changed = []
    for stage in recipe.stages:
        if isinstance(stage, GRPO):
            shape = {f"{sys.argv[2]}/mine.py:even": {}}  # nothing is solved so soon; this differs within a group
            stage = replace(stage, concurrency=1, checkpoint_every=2, held_out=HeldOut(every=3, n=4, keep_best=False),
                            shape=shape)
        elif isinstance(stage, Collect | Evaluate):
            stage = replace(stage, concurrency=1)
        else:
            stage = replace(stage, checkpoint_every=3)
        changed.append(stage)
    return replace(recipe, stages=tuple(changed))

def size(out):
    return sum(path.stat().st_size for path in out.glob("*/[!.]*.jsonl"))

def child(out):
    pid = os.fork()
    if pid == 0:
        try:
            run(serial(), out)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid

calm, out = Path(sys.argv[2]) / "calm", Path(sys.argv[2]) / "killed"
calm.mkdir(), out.mkdir()
(Path(sys.argv[2]) / "mine.py").write_text("""
def even(group):
    ids = [[token for step in episode.steps for token in step.tokens.completion] for episode in group.episodes]
    return [sum(token % 2 == 0 for token in said) / len(said) for said in ids]
""")
assert os.waitpid(child(calm), 0)[1] == 0
whole = size(calm)
dice = random.Random(int(sys.argv[3]))
kills = []
for moment in sorted(dice.randrange(whole * 95 // 100) for _ in range(10)):
    pid = child(out)
    while True:
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise SystemExit(f"it ended before its logs held {moment} bytes, or failed")
        if size(out) >= moment:
            time.sleep(dice.random() * 0.3)  # between the lines too: in a step, a checkpoint, a log
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills.append(sorted(path.parent.name for path in out.glob("*/done.json")))
            break
        time.sleep(0.002)
assert os.waitpid(child(out), 0)[1] == 0
(Path(sys.argv[2]) / "kills.json").write_text(json.dumps(kills))
'''

FULL = """
out = Path(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if sys.argv[3] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    train(out, steps=2)
except Exception as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(3)
"""


def run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = folder / "program.py"
    path.write_text(PROGRAM + program)
    toys = str(Path(__file__).parent / "conftest.py")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, str(path), toys, *arguments], capture_output=True, text=True, env=env)


def keys(out: Path) -> list[tuple[int, str, int]]:
    return [(t.info["step"], t.task.id, t.sample) for t in read_log(out / "trajectories.jsonl")]


def said(log: Path) -> list[Any]:
    """What was sampled in each episode, and what came of it; the order they ended in is that of a serial run."""
    return [
        (t.task.id, t.sample, t.seed, t.stop, t.reward, t.info.get("step"), [step.tokens for step in t.steps])
        for t in read_log(log)
    ]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_ten_random_points_it_ends_in_the_very_same_weights(tmp_path: Path, seed: int) -> None:
    """The quickstart, serial and on one thread, bit for bit: the same tasks, seeds, steps; nothing sampled is lost."""
    done = run(tmp_path, WHOLE, str(tmp_path), str(seed))
    assert done.returncode == 0, done.stderr[-3000:]
    kills = json.loads((tmp_path / "kills.json").read_text())
    assert len(kills) == 10 and len({len(stages) for stages in kills}) >= 3, "they fell into several stages"
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for stage in ("sft", "grpo", "sft-no-tool"):
        ours, theirs = (load_file(out / stage / "model/model.safetensors") for out in (killed, calm))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours), stage
        steps = [[(row["step"], row.get("loss")) for row in read_metrics(out / stage)] for out in (killed, calm)]
        assert steps[0] == steps[1], stage
    cold, warm = (load_file(calm / stage / "model/model.safetensors") for stage in ("sft", "grpo"))
    assert any(not torch.equal(cold[name], warm[name]) for name in cold), "there was something to lose"
    for log in ("collect/kept.jsonl", "grpo/trajectories.jsonl", "grpo/held_out.jsonl"):
        assert said(killed / log) == said(calm / log), log
    played = keys(killed / "grpo")
    assert len(played) == len(set(played)) == 6 * 2 * 3
    assert (killed / "grpo/advantages.jsonl").read_text() == (calm / "grpo/advantages.jsonl").read_text()
    rows = [[{**row, "seconds": 0} for row in read_json(out / "report.json")["rows"]] for out in (killed, calm)]
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk_stops_the_run_in_one_sentence_and_freed_it_goes_on(tmp_path: Path) -> None:
    """No file may grow beyond a limit, as on a full disk, while the second step's episodes are logged."""
    out, calm = tmp_path / "full", tmp_path / "calm"
    out.mkdir(), calm.mkdir()
    assert run(tmp_path, FULL, str(calm), "0").returncode == 0
    log = calm / "trajectories.jsonl"
    limit = int(log.stat().st_size * 0.75)
    stopped = run(tmp_path, FULL, str(out), str(limit))
    assert stopped.returncode == 3, stopped.stderr[-2000:]
    last = stopped.stderr.strip().splitlines()[-1]
    assert "ConfigError" in last and "trajectories.jsonl could not be written" in last
    before = len(keys(out))
    assert 6 <= before < 12
    again = run(tmp_path, FULL, str(out), "0")
    assert again.returncode == 0, again.stderr[-2000:]
    assert sorted(keys(out)) == sorted(keys(calm))


def test_a_step_whose_episodes_all_stopped_for_a_dropped_reason_is_lost_and_the_run_goes_on(
    trainer_for: Any, toys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_for(lambda _: toys.call_text(1, 1), stops={"limits": "drop"}, limits=Limits(max_turns=2))
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.state.global_step == 2
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())
    assert "no episode of step 0 is trained on: stopped by max_turns, which is dropped" in caplog.text
