"""VLLMEngine against a local server that answers like vLLM's, over real HTTP, with a real tiny model behind it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from safetensors.torch import load_file
from vllm_client import ask, engine_for, request
from vllm_format import shape
from vllm_server import Fault, VLLMServer

from agent import SamplingParams, rollout
from agent.engine import Generated, ServerError
from agent.local import TransformersEngine
from agent.models import load_model, model_folder, sampler_for
from agent.token_sampler import TokenSampler
from agent.vllm import VLLMEngine
from agent.vllm_reply import means_context_full
from agent.vllm_weights import save_weights, shares_output, with_own_output
from envs import Task, ToolEnv, user
from tools.errors import ConfigError


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_model("tiny")


@pytest.fixture
def server(tiny: tuple[Any, Any]) -> Iterator[VLLMServer]:
    with VLLMServer(*tiny) as running:
        yield running


def test_ids_and_log_probs_are_those_of_the_model_behind_the_server(tiny: tuple[Any, Any], server: VLLMServer):
    local = TransformersEngine(*tiny)
    asked = [request(tiny, temperature=0.0), request(tiny, "a longer prompt", seed=11), request(tiny, top_k=5)]
    for one in asked:
        (here,), (there,) = ask(local, one), ask(engine_for(server), one)
        assert there.token_ids == here.token_ids and there.finish == here.finish
        assert there.logprobs == pytest.approx(here.logprobs, abs=1e-5)
    local.close()


def test_every_setting_is_sent_so_that_none_comes_from_the_servers_defaults(tiny: tuple[Any, Any], server: VLLMServer):
    asked = request(tiny, top_p=0.9, top_k=7, seed=2**62 + 5, stop_ids=frozenset({9, 4}), stop_strings=("</code>",))
    ask(engine_for(server), asked)
    sent = server.requests[-1]
    expected = {"prompt": list(asked.prompt), "max_tokens": 8, "temperature": 1.0, "top_p": 0.9, "top_k": 7}
    assert {name: sent[name] for name in expected} == expected
    assert (sent["seed"], sent["stop_token_ids"], sent["stop"]) == (2**62 + 5, [4, 9], ["</code>"])
    assert sent["min_p"] == 0 and sent["repetition_penalty"] == 1 and sent["ignore_eos"] is True
    assert sent["skip_special_tokens"] is False and sent["include_stop_str_in_output"] is True


def test_a_stop_id_and_a_stop_string_end_the_completion_and_stay_in_it(tiny: tuple[Any, Any], server: VLLMServer):
    engine = engine_for(server)
    (free,) = ask(engine, request(tiny))
    (at_id,) = ask(engine, request(tiny, stop_ids=frozenset({free.token_ids[3]})))
    first = free.token_ids.index(free.token_ids[3])
    assert (at_id.token_ids, at_id.finish) == (free.token_ids[: first + 1], "stop")
    text = tiny[1].decode([free.token_ids[5]])
    (at_text,) = ask(engine, request(tiny, stop_strings=(text,)))
    assert at_text.finish == "stop" and text in tiny[1].decode(list(at_text.token_ids))
    assert at_text.token_ids == free.token_ids[: len(at_text.token_ids)]


def test_streamed_ids_are_the_ids_returned(tiny: tuple[Any, Any], server: VLLMServer):
    heard: list[int] = []
    (streamed,) = ask(engine_for(server), request(tiny), on_ids=heard.extend)
    (whole,) = ask(engine_for(server), request(tiny))
    assert tuple(heard) == streamed.token_ids == whole.token_ids
    assert streamed.logprobs == whole.logprobs
    assert [sent.get("stream") for sent in server.requests] == [None, True, None, False]


def test_a_cancelled_completion_is_dropped_by_the_server(tiny: tuple[Any, Any], server: VLLMServer):
    engine = engine_for(server)
    server.faults.append(Fault(hang=True))

    async def main() -> None:
        server.began.clear()
        task = asyncio.create_task(engine.generate(request(tiny)))
        await asyncio.to_thread(server.began.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.aborted.wait, 60)

    asyncio.run(main())
    assert engine.servers.all[0].running == 0


def test_least_busy_first_but_a_prompt_stays_where_its_beginning_is_cached(tiny: tuple[Any, Any]):
    with VLLMServer(*tiny) as first, VLLMServer(*tiny) as second:
        engine = engine_for(first, second)
        counts = [len(first.requests), len(second.requests)]
        short = [request(tiny, f"{i}+{i}=?") for i in range(8)]
        ask(engine, *short)
        assert [len(first.requests) - counts[0], len(second.requests) - counts[1]] == [4, 4]
        long = request(tiny, "the same long story " * 20, max_tokens=4)
        before: list[int] = []
        for turn in range(3):
            counts = [len(first.requests), len(second.requests)]
            ask(engine, *[replace(long, seed=turn * 10 + i) for i in range(4)])  # attempts at one task
            went = [len(first.requests) - counts[0], len(second.requests) - counts[1]]
            assert sorted(went) == [0, 4]
            if turn:
                assert went == before
            before = went
            (reply,) = ask(engine, long)
            long = replace(long, prompt=(*long.prompt, *reply.token_ids, *long.prompt[:70]))  # and the next turn


def test_new_weights_wait_for_what_runs_and_are_named_in_what_follows(tiny: tuple[Any, Any], server: VLLMServer):
    engine = engine_for(server)
    held = threading.Event()
    server.unclean_resets = 2
    server.on_reload = lambda folder: held.set()

    async def main() -> tuple[Generated, Generated]:
        server.began.clear()
        before = asyncio.create_task(engine.generate(request(tiny, max_tokens=40)))
        await asyncio.to_thread(server.began.wait)
        refresh = asyncio.create_task(engine.refresh(7, folder="/weights/7"))
        await asyncio.sleep(0)
        after = asyncio.create_task(engine.generate(request(tiny)))
        await refresh
        return await before, await after

    before, after = asyncio.run(main())
    assert (before.policy_version, after.policy_version) == (0, 7)
    assert server.orders[0] == (
        "/collective_rpc",
        {"method": "reload_weights", "kwargs": {"weights_path": "/weights/7"}},
    )
    assert [path for path, _ in server.orders] == ["/collective_rpc"] + ["/reset_prefix_cache"] * 3
    assert len(server.requests[-1]["prompt"]) == len(request(tiny).prompt)
    asyncio.run(engine.refresh(8, reload=False))
    assert server.orders[-1][0] == "/reset_prefix_cache" and engine.policy_version == 8


def test_a_server_that_takes_no_orders_is_named_with_the_remedy(tiny: tuple[Any, Any]):
    with VLLMServer(*tiny, dev_mode=False) as server:
        engine = engine_for(server, patience_s=0.0)
        with pytest.raises(ConfigError, match="does not take orders") as caught:
            asyncio.run(engine.refresh(1))
        assert "VLLM_SERVER_DEV_MODE=1" in str(caught.value.hint)
        with pytest.raises(ServerError, match="weights of version 1"):
            ask(engine, request(tiny))


def test_health_tells_the_well_from_the_dead(tiny: tuple[Any, Any]):
    with VLLMServer(*tiny) as first, VLLMServer(*tiny) as second:
        engine = engine_for(first, second)
        second.kill()
        assert asyncio.run(engine.health()) == {first.url: "ok", second.url: "does not answer"}


@pytest.mark.parametrize("spec", ["vllm:{url}", "base"])
def test_vllm_and_an_address_after_model_or_base_url_is_a_sampler_that_records_ids(
    tiny: tuple[Any, Any], server: VLLMServer, spec: str
):
    server.root = model_folder("tiny")
    if spec == "base":
        sampler = sampler_for("tiny", base_url=f"vllm:{server.url}/v1", dialect="inline")
    else:
        sampler = sampler_for(f"vllm:{server.url}")
    assert isinstance(sampler, TokenSampler) and isinstance(sampler.engine, VLLMEngine)
    assert sampler.renderer.dialect.name == ("inline" if spec == "base" else "hermes")
    env = ToolEnv(task=Task(id="t", prompt=(user("12*7=?"),)))
    played = asyncio.run(rollout(env, sampler, SamplingParams(max_tokens=4, seed=1)))
    assert len(played.sequences()[0].token_ids) > 4


def test_a_server_that_wants_a_key_is_shown_the_one_of_the_environment(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with VLLMServer(*tiny, root=model_folder("tiny"), api_key="sk-here") as server:
        with pytest.raises(ConfigError, match="refused the API key") as caught:
            sampler_for(f"vllm:{server.url}")
        assert "set OPENAI_API_KEY" in str(caught.value.hint)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-here")
        sampler = sampler_for(f"vllm:{server.url}")
        played = asyncio.run(
            rollout(ToolEnv(task=Task(id="t", prompt=(user("1+1=?"),))), sampler, SamplingParams(max_tokens=2))
        )
        assert played.error is None and len(played.steps) == 1
        with pytest.raises(ConfigError, match="refused the API key"):
            VLLMEngine(server.url, api_key="sk-other")


def test_a_model_that_only_the_server_has_is_asked_for(server: VLLMServer):
    with pytest.raises(ConfigError, match="no such model here to take the tokenizer from") as caught:
        sampler_for(f"vllm:{server.url}")
    assert "--base-url vllm:URL" in str(caught.value.hint)


RECORDED = json.loads((Path(__file__).parents[1] / "servers" / "vllm_replies.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kept", RECORDED, ids=[kept["name"] for kept in RECORDED])
def test_the_local_server_answers_as_a_real_one_did(server: VLLMServer, kept: dict[str, Any]):
    if kept["name"] in ("too much", "bad id"):
        pytest.skip("the engine never sends it")
    with httpx2.Client(timeout=60) as client:
        got = client.request("POST" if kept["request"] else "GET", server.url + kept["path"], json=kept["request"])
    if kept["path"] == "/reset_prefix_cache":
        got = httpx2.post(server.url + kept["path"])
    assert got.status_code == kept["status"]
    if "events" in kept:
        lines = [line[6:] for line in got.text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        for line, event in zip(lines[:-1], kept["events"], strict=False):
            assert without_trimmings(shape(json.loads(line))) == without_trimmings(shape(event))
    elif kept["reply"] is not None:
        assert without_trimmings(shape(got.json())) == without_trimmings(shape(kept["reply"]))
    if kept["status"] == 400:
        assert means_context_full(got.json()["error"]["message"]) and means_context_full(
            kept["reply"]["error"]["message"]
        )


def without_trimmings(value: dict[str, Any]) -> dict[str, Any]:
    """Without what nobody reads: the server's name for its build, and null fields of a first event."""
    return {key: inner for key, inner in value.items() if key != "system_fingerprint"}


def test_weights_that_a_server_would_load_in_part_are_refused_and_those_we_write_are_whole(
    tiny: tuple[Any, Any], server: VLLMServer, tmp_path: Path
):
    engine = engine_for(server)
    with pytest.raises(ConfigError, match="shares its embedding with its output layer"):
        asyncio.run(engine.refresh(1, folder=model_folder("tiny")))
    assert engine.policy_version == 0 and server.orders == []
    save_weights(tiny[0], tmp_path / "written")
    copied = with_own_output(model_folder("tiny"), tmp_path / "copied")
    for folder in (tmp_path / "written", copied):
        assert not shares_output(folder)
        weights = load_file(folder / "model.safetensors")
        assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    assert (copied / "tokenizer.json").exists()
    asyncio.run(engine.refresh(1, folder=str(copied)))
    assert engine.policy_version == 1


def complaint(tokenizer: Any, *urls: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        VLLMEngine(urls, tokenizer, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_setup_is_one_sentence_before_anything_is_sampled(tiny: tuple[Any, Any], server: VLLMServer):
    other = load_model("tiny")[1]
    other.add_tokens(["<|other|>"])
    assert "splits text into other token ids" in complaint(other, server.url)
    assert "does not answer" in complaint(tiny[1], "http://127.0.0.1:9")
    assert "is no server's address" in complaint(tiny[1], "localhost:8000")
    assert "serves tiny, not 'huge'" in complaint(tiny[1], server.url, model="huge")
    with VLLMServer(*tiny, with_ids=False) as old:
        assert "returns no token ids, which training needs" in complaint(tiny[1], old.url)
    with VLLMServer(*tiny, processed=True) as odd:
        assert "do not serve the same model the same way" in complaint(tiny[1], server.url, odd.url)


def test_log_probs_that_would_not_be_the_policys_own_are_refused(tiny: tuple[Any, Any], server: VLLMServer):
    with pytest.raises(ConfigError, match="those of temperature 1"):
        ask(engine_for(server), request(tiny, temperature=0.7))
    with VLLMServer(*tiny, processed=True) as processed:
        engine = engine_for(processed)
        ask(engine, request(tiny, temperature=0.7))
        with pytest.raises(ConfigError, match="after top-p, top-k"):
            ask(engine, request(tiny, top_p=0.9))
