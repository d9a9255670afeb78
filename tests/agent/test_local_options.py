"""How a model is run, as a person types it: adapters, number type, device, threads, and a vLLM server in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm_server import VLLMServer

from agent.__main__ import main as agent
from agent.adapters import without_peft_warnings
from agent.cli import run
from agent.models import dialect_of, load_model, model_folder, sampler_for, tokenizer_folder
from agent.token_sampler import TokenSampler
from envs.log import read_log
from evals.__main__ import cli
from tools.errors import ConfigError


def evals(*words: object) -> int:
    return run(cli, [str(word) for word in words])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLWEAVE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters for tiny that change what it says, saved as PEFT saves them."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapters")
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    with without_peft_warnings():
        get_peft_model(load_model("tiny")[0], settings).save_pretrained(folder)
    return folder


def test_a_folder_of_adapters_is_the_model_they_change(adapters: Path, tmp_path: Path) -> None:
    base, (model, tokenizer) = load_model("tiny")[0], load_model(str(adapters))
    with without_peft_warnings():
        from peft import PeftModel

        expected: Any = PeftModel.from_pretrained(base, adapters)
    ids = torch.tensor([tokenizer.encode("12*7=?")])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, expected(ids).logits, atol=1e-5)
        with expected.disable_adapter():
            assert not torch.allclose(model(ids).logits, expected(ids).logits, atol=1e-2)
    assert tokenizer_folder(str(adapters)) == model_folder("tiny") and dialect_of(str(adapters)) == "hermes"
    out = tmp_path / "out"
    options = ("--max-tokens", 8, "--threads", 1, "--dtype", "bfloat16", "--device", "cpu", "-q", "--json")
    assert evals("run", "toy_arithmetic", "--model", adapters, *options, "-n", 1, "--out", out) == 0
    (played,) = read_log(out / "samples.jsonl")
    assert played.steps[0].tokens is not None and played.steps[0].tokens.logprobs
    assert evals("view", out, "--bundle", tmp_path / "page.html") == 0
    assert "=?<|im_end|>" in "".join(texts(tmp_path / "page.html"))


def texts(page: Path) -> list[str]:
    data = json.loads(page.read_text().partition('type="application/json">')[2].partition("</script>")[0])
    return data["episodes"][0]["sequences"][0]["texts"]


def test_the_number_type_reaches_the_weights_and_the_threads_reach_torch() -> None:
    before = torch.get_num_threads()
    try:
        sampler = sampler_for("tiny", dtype="bfloat16", threads=1, device="cpu")
        assert isinstance(sampler, TokenSampler)
        engine: Any = sampler.engine
        assert engine.model.dtype is torch.bfloat16 and engine.autocast is None and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("spec", "options", "complaint"),
    [
        ("tiny", {"dtype": "int8"}, "'int8' is no torch type"),
        ("tiny", {"device": "cuda:7"}, "nothing can be put on the device 'cuda:7'"),
        ("tiny", {"device": "toaster"}, "nothing can be put on the device 'toaster'"),
        ("tiny", {"threads": 0}, "threads is 0"),
        ("openai:gpt", {"device": "cpu"}, "device is for a model in this process, and openai:gpt is none"),
        ("gold", {"dtype": "auto"}, "dtype is for a model in this process, and gold is none"),
    ],
)
def test_what_cannot_be_is_one_sentence(spec: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        sampler_for(spec, **options)
    assert "\n" not in str(caught.value)


def test_adapters_without_their_model_say_what_is_missing(tmp_path: Path) -> None:
    config = tmp_path / "adapter_config.json"
    for text, complaint in [
        ("{}", "does not say which model its adapters are for"),
        ("[", "is no JSON object"),
        (json.dumps({"base_model_name_or_path": "/nowhere/at/all"}), "for /nowhere/at/all, which is not there"),
    ]:
        config.write_text(text)
        with pytest.raises(ConfigError, match=complaint):
            load_model(str(tmp_path))
    config.write_text(json.dumps({"base_model_name_or_path": model_folder("tiny"), "peft_type": "LORA"}))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_model(str(tmp_path))


@pytest.fixture(scope="module")
def server() -> Iterator[VLLMServer]:
    with VLLMServer(*load_model("tiny"), root=model_folder("tiny")) as running:
        yield running


def test_agent_talks_to_a_vllm_server_at_its_usual_temperature(
    server: VLLMServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    words = ("12*7=?", "--model", f"vllm:{server.url}", "--max-tokens", "12", "--tools", "none", "--save", str(log))
    assert agent([*words, "--thinking-budget", "4"]) == 3, capfd.readouterr().err  # untrained: it never ends
    sent = server.requests[-1]
    assert (sent["temperature"], sent["stream"], len(sent["prompt"]) > 10) == (0.7, True, True)
    (said,) = read_log(log)
    assert said.steps[0].tokens is not None and len(said.steps[0].tokens.completion) == 12
    assert all(value != value for value in said.steps[0].tokens.logprobs), "those of temperature 0.7 are not known"
    assert said.answer == capfd.readouterr().out.removesuffix("\n")


@pytest.mark.parametrize("named", [True, False])
def test_evals_measure_a_vllm_server_and_show_its_tokens(server: VLLMServer, tmp_path: Path, named: bool) -> None:
    out = tmp_path / "out"
    model = ("--model", "tiny", "--base-url", f"vllm:{server.url}") if named else ("--model", f"vllm:{server.url}")
    options = ("--max-tokens", 8, "--request-timeout", 300, "-q", "--json")
    assert evals("run", "toy_arithmetic", *model, *options, "-n", 2, "--out", out) == 0
    for played in read_log(out / "samples.jsonl"):
        assert played.steps[0].tokens is not None and all(p < 0 for p in played.steps[0].tokens.logprobs)
    assert "=?<|im_end|>" in "".join(texts(out / "report.html"))
    assert evals("view", out, "--bundle", tmp_path / "page.html") == 0
    assert "=?<|im_end|>" in "".join(texts(tmp_path / "page.html"))
