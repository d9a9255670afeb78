"""VLLMEngine against a real vLLM server: what it answers, and that it is what the model says in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from real_vllm import own_vllm, real_vllm
from vllm_format import shape
from vllm_server import VLLMServer

from agent import SamplingParams, rollout
from agent.chat import ChatSampler
from agent.dialects import dialect_named
from agent.engine import Engine, Generated, Request
from agent.local import TransformersEngine
from agent.models import load_model
from agent.renderer import Renderer
from agent.token_sampler import TokenSampler
from agent.vllm import VLLMEngine
from agent.vllm_weights import save_weights
from envs import Stop, Task, ToolEnv, Trajectory, user

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

RECORDED = json.loads((Path(__file__).parents[1] / "servers" / "vllm_replies.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-4
"""Between the log-probs of two engines on the same ids, both in float32 on a CPU; 1e-6 was measured."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_vllm(tmp_path_factory.mktemp("vllm") / "server.log") as address:
        yield address


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_model("tiny")


def test_the_recorded_replies_are_still_what_a_server_answers(url: str):
    with httpx2.Client(timeout=600) as client:
        for kept in RECORDED:
            if kept["path"] in ("/collective_rpc", "/reset_prefix_cache"):
                continue
            got = client.request("POST" if kept["request"] else "GET", url + kept["path"], json=kept["request"])
            assert got.status_code == kept["status"], kept["name"]
            if "events" in kept:
                lines = [line[6:] for line in got.text.splitlines() if line.startswith("data: ")]
                assert lines[-1] == "[DONE]"
                for line, event in zip(lines[:-1], kept["events"], strict=False):
                    assert shape(json.loads(line)) == shape(event), kept["name"]
            elif kept["reply"] is not None:
                assert shape(got.json()) == shape(kept["reply"]), kept["name"]


def follow_up() -> Callable[[Any], Any]:
    said = iter(["And 4+5?", "And a longer one, please: 123+456?"])

    async def answer(_: Any) -> Any:
        text = next(said, None)
        return None if text is None else user(text)

    return answer


def play(engine: Engine, tokenizer: Any) -> Trajectory:
    env = ToolEnv(task=Task(id="talk", prompt=(user("12*7=?"),)), user=follow_up())
    # An untrained model never ends its turn: a token that greedy decoding soon meets does it here.
    renderer = Renderer(tokenizer, dialect_named("hermes"))
    sampler = TokenSampler(renderer, _Stopping(engine))
    return asyncio.run(rollout(env, sampler, SamplingParams(max_tokens=24, temperature=0.0, seed=1)))


class _Stopping:
    """An engine that ends each completion after its length in tokens, as if the model had closed its turn."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.max_context = engine, engine.max_context

    async def generate(self, request: Request, on_ids: Any = None) -> Any:
        made = await self.engine.generate(request, on_ids)
        return replace(made, finish="stop")


def test_one_episode_through_three_engines_has_the_same_ids_and_log_probs(url: str, tiny: tuple[Any, Any]):
    local = TransformersEngine(*tiny)
    with VLLMServer(*tiny) as server:
        played = [
            play(engine, tiny[1]) for engine in (local, VLLMEngine(url, tiny[1]), VLLMEngine(server.url, tiny[1]))
        ]
    local.close()
    rows = [episode.sequences() for episode in played]
    assert [len(episode.steps) for episode in played] == [3, 3, 3]
    for row in rows[1:]:
        assert [one.token_ids for one in row] == [one.token_ids for one in rows[0]]
        assert [one.loss_mask for one in row] == [one.loss_mask for one in rows[0]]
        for one, other in zip(row, rows[0], strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=TOLERANCE)


def test_stops_streams_and_seeds_hold_on_the_real_thing(url: str, tiny: tuple[Any, Any]):
    engine = VLLMEngine(url, tiny[1])
    prompt = tuple(tiny[1].encode("3+4=?", add_special_tokens=False))

    async def main() -> None:
        free = await engine.generate(Request(prompt=prompt, max_tokens=12, seed=5))
        assert free == await engine.generate(Request(prompt=prompt, max_tokens=12, seed=5))
        assert free.token_ids != (await engine.generate(Request(prompt=prompt, max_tokens=12, seed=6))).token_ids
        heard: list[int] = []
        streamed = await engine.generate(Request(prompt=prompt, max_tokens=12, seed=5), heard.extend)
        assert tuple(heard) == streamed.token_ids == free.token_ids
        end = free.token_ids[4]
        cut = await engine.generate(Request(prompt=prompt, max_tokens=12, seed=5, stop_ids=frozenset({end})))
        assert cut.token_ids == free.token_ids[: free.token_ids.index(end) + 1] and cut.finish == "stop"
        words = tiny[1].decode(list(free.token_ids[4:6]))
        cut = await engine.generate(Request(prompt=prompt, max_tokens=12, seed=5, stop_strings=(words,)))
        assert cut.finish == "stop" and words in tiny[1].decode(list(cut.token_ids))
        assert cut.token_ids == free.token_ids[: len(cut.token_ids)]
        many = [Request(prompt=prompt, max_tokens=6, seed=seed) for seed in range(16)]
        assert len({reply.token_ids for reply in await asyncio.gather(*map(engine.generate, many))}) > 8

    asyncio.run(main())


def test_thinking_is_closed_by_the_words_put_in_and_the_answer_goes_on_from_them(url: str, tiny: tuple[Any, Any]):
    renderer = Renderer(tiny[1], dialect_named("hermes"), prefix="<think>\n")
    env = ToolEnv(task=Task(id="t", prompt=(user("12*7=?"),)))
    local = TransformersEngine(*tiny)
    params = SamplingParams(max_tokens=30, temperature=0.0, thinking_budget=6, last_thought="So")
    here, there = (
        asyncio.run(rollout(env, TokenSampler(renderer, engine), params)).steps[0].tokens
        for engine in (local, VLLMEngine(url, tiny[1]))
    )
    local.close()
    assert here is not None and there is not None
    assert there.inserted == here.inserted == ((6, 6 + len(renderer.written("So\n</think>\n\n"))),)
    assert there.completion == here.completion and len(there.completion) == 30
    assert there.logprobs == pytest.approx(here.logprobs, abs=TOLERANCE)


def test_attempts_at_one_task_share_its_prefill(url: str, tiny: tuple[Any, Any]):
    engine = VLLMEngine(url, tiny[1])
    prompt = tuple(tiny[1].encode("a story of its own, told once and again: " * 20, add_special_tokens=False))

    def cached() -> float:
        lines = httpx2.get(f"{url}/metrics", timeout=60).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:prefix_cache_hits_total{"))

    async def main() -> None:
        before = cached()
        await asyncio.gather(*(engine.generate(Request(prompt=prompt, max_tokens=2, seed=seed)) for seed in range(8)))
        # All but the last, unfinished block, for at least those that did not run together with the first.
        assert cached() - before >= len(prompt) - 128
        before = cached()
        await engine.generate(Request(prompt=prompt, max_tokens=2, seed=9))
        assert cached() - before >= len(prompt) - 128

    asyncio.run(main())


def test_a_server_that_was_killed_and_started_again_finishes_what_it_was_asked(tiny: tuple[Any, Any], tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = [Request(prompt=tuple(tiny[1].encode("12*7=?")), max_tokens=1500, seed=seed) for seed in range(4)]

    heard: list[list[int]] = [[] for _ in asked]
    began = threading.Event()

    def listen(ids: list[int]) -> Callable[[Any], None]:
        return lambda more: (ids.extend(more), began.set())[1]

    async def all_of(engine: VLLMEngine) -> list[Generated]:
        work = [engine.generate(one, listen(ids)) for one, ids in zip(asked, heard, strict=True)]
        return list(await asyncio.gather(*work))

    with ThreadPoolExecutor() as pool:
        with own_vllm(tmp_path / "first.log", port) as server:
            engine = VLLMEngine(f"http://127.0.0.1:{port}", tiny[1], patience_s=3000.0, timeout_s=3000.0)
            replies = pool.submit(asyncio.run, all_of(engine))
            began.wait()
            os.killpg(server.pid, signal.SIGKILL)
        assert not replies.done()
        with own_vllm(tmp_path / "second.log", port):
            finished = replies.result()
    assert [len(reply.token_ids) for reply in finished] == [1500] * 4
    assert [tuple(ids) for ids in heard] == [reply.token_ids for reply in finished], "no token was heard twice"


def test_cancelling_frees_the_server(url: str, tiny: tuple[Any, Any]):
    engine = VLLMEngine(url, tiny[1])
    prompt = tuple(tiny[1].encode("tell me all", add_special_tokens=False))

    async def running(client: Any) -> float:
        lines = (await client.get(f"{url}/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running{"))

    async def main() -> None:
        async with httpx2.AsyncClient(timeout=600) as client:
            heard = asyncio.Event()
            task = asyncio.create_task(
                engine.generate(Request(prompt=prompt, max_tokens=2000, seed=1), lambda ids: heard.set())
            )
            await heard.wait()
            assert await running(client) == 1
            task.cancel()
            while await running(client):
                await asyncio.sleep(0.2)

    asyncio.run(main())


def test_new_weights_come_from_files_without_a_restart(url: str, tiny: tuple[Any, Any], tmp_path: Path):
    other = load_model("tiny:7")
    save_weights(other[0], tmp_path / "1")
    save_weights(tiny[0], tmp_path / "2")
    prompt = tuple(tiny[1].encode("5*5=?", add_special_tokens=False))
    asked = Request(prompt=prompt, max_tokens=8, temperature=0.0)
    engine = VLLMEngine(url, tiny[1])

    async def main() -> list[Any]:
        first = await engine.generate(asked)
        await engine.refresh(1, folder=str(tmp_path / "1"))
        second = await engine.generate(asked)
        await engine.refresh(2, folder=str(tmp_path / "2"))
        return [first, second, await engine.generate(asked)]

    replies = asyncio.run(main())
    for (model, tokenizer), version, reply in zip((tiny, other, tiny), (0, 1, 2), replies, strict=True):
        local = TransformersEngine(model, tokenizer)
        here = asyncio.run(local.generate(asked))
        local.close()
        assert (reply.token_ids, reply.policy_version) == (here.token_ids, version)
        assert reply.logprobs == pytest.approx(here.logprobs, abs=TOLERANCE)


def test_a_conversation_that_outgrows_the_context_ends_as_such(url: str, tiny: tuple[Any, Any]):
    engine = VLLMEngine(url, tiny[1])
    assert engine.max_context == tiny[0].config.max_position_embeddings
    env = ToolEnv(task=Task(id="long", prompt=(user("word " * 3000),)))
    played = asyncio.run(rollout(env, TokenSampler(Renderer(tiny[1], dialect_named("hermes")), engine)))
    assert played.stop is Stop.MAX_CONTEXT


def test_the_chat_door_of_the_same_server_returns_ids_too(url: str):
    sampler = ChatSampler("tiny", f"{url}/v1", return_token_ids=True)
    env = ToolEnv(task=Task(id="chat", prompt=(user("12*7=?"),)))
    played = asyncio.run(rollout(env, sampler, SamplingParams(max_tokens=6, seed=1)))
    tokens = played.steps[0].tokens
    assert tokens is not None and len(tokens.completion) == len(tokens.logprobs) == 6
    assert played.steps[0].usage["completion"] == 6
