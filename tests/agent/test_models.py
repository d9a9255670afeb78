"""Specs: from what a user writes after --model to folders, models and samplers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import HumanSampler, SamplingParams, ScriptedSampler, rollout
from agent.chat import ChatSampler
from agent.dialects import dialect_named
from agent.human import action_of
from agent.model_cache import TEMPLATE, read_facts
from agent.models import dialect_of, load_model, model_folder, sampler_for, save_dialect
from agent.renderer import Renderer
from agent.tiny import tiny_folder, tiny_model, tiny_tokenizer
from agent.token_sampler import TokenSampler
from envs import Message, Task, ToolEnv, answer_to, assistant, system, user
from envs.tasksets.arithmetic import toy_arithmetic
from tools import Text, Tool, ToolCall, ToolResult, tool
from tools.errors import ConfigError
from tools.python import PythonTool

TOKENIZER = tiny_tokenizer()


@tool
def python(code: str) -> str:
    """Run Python code — and see it."""
    return code


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLWEAVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def complaint(spec: str, ask: Any = model_folder) -> str:
    with pytest.raises(ConfigError) as caught:
        ask(spec)
    assert "\n" not in str(caught.value)
    return f"{caught.value} | {caught.value.hint}"


# --- the tiny model


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights_only(tmp_path: Path, tiny: Path) -> None:
    again, other = digests(tiny_model(tmp_path / "again")), digests(tiny_model(tmp_path / "other", seed=1))
    assert again == digests(tiny)
    assert {name for name in again if again[name] != other[name]} == {"model.safetensors", "toolweave.json"}


def test_making_a_tiny_model_leaves_torchs_random_state_alone(tmp_path: Path) -> None:
    import torch

    before = torch.get_rng_state()
    tiny_model(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


@given(st.text(max_size=60))
def test_every_text_comes_back_exactly_from_the_tiny_tokenizer(text: str) -> None:
    ids = TOKENIZER.encode(text, split_special_tokens=True)
    assert TOKENIZER.decode(ids) == text
    assert not {0, 1, 2} & set(ids)


def test_a_digit_is_one_token_and_a_format_string_is_one_token() -> None:
    assert TOKENIZER.tokenize("120*37") == ["1", "2", "0", "*", "3", "7"]
    assert len(TOKENIZER.encode('<tool_call>\n{"name": "python", "arguments": {"code": "print(')) == 3
    assert TOKENIZER.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]


def test_a_loaded_tiny_tokenizer_encodes_as_the_one_that_was_saved(tiny: Path) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tiny)
    text = "Compute 12*7.\n  x = 3\n\tnaïve £ 你好 <tool_call>\n"
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert json.loads((tiny / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize("dialect", ["hermes", "inline"])
def test_a_toy_episode_is_short_in_tiny_tokens(dialect: str) -> None:
    task = toy_arithmetic(n=1).tasks[0]
    renderer = Renderer(TOKENIZER, dialect_named(dialect))
    assert len(renderer.start(task.prompt, [PythonTool().tool]).ids) < 50


def test_a_tiny_model_samples_an_episode(tiny: Path) -> None:
    sampler = sampler_for(str(tiny), dialect=None, threads=1)
    assert isinstance(sampler, TokenSampler)
    task = Task(id="t", prompt=(user("12*7=?"),))
    trajectory = asyncio.run(rollout(ToolEnv(task=task), sampler, SamplingParams(max_tokens=5, seed=1)))
    assert trajectory.error is None and trajectory.sampled_tokens > 0


# --- the cache


def test_a_cached_model_is_built_once_and_a_damaged_one_again(cache: Path) -> None:
    folder = tiny_folder(3)
    assert folder.parent == cache / "models"
    assert model_folder("tiny:3") == str(folder)
    built = (folder / "model.safetensors").stat().st_mtime_ns
    assert tiny_folder(3) == folder and (folder / "model.safetensors").stat().st_mtime_ns == built
    (folder / "config.json").unlink()
    assert (tiny_folder(3) / "config.json").is_file()
    assert not list(folder.parent.glob("*.partial"))


def test_a_copy_of_an_older_version_is_named_and_left_alone(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = cache / "models" / "tiny5-00000000"
    older.mkdir(parents=True)
    assert tiny_folder(5) != older and older.is_dir()
    assert str(older) in capsys.readouterr().err


def test_processes_that_want_the_same_model_build_it_once(cache: Path) -> None:
    code = """
import sys, pathlib
from agent.model_cache import cached_folder, write_facts
def build(folder):
    with open(sys.argv[1], "a") as file:
        file.write("built\\n")
    import time; time.sleep(0.3)
    (folder / "config.json").write_text("{}")
    write_facts(folder, dialect="hermes")
print(cached_folder("shared", [1], build))
"""
    tally = cache.parent / "tally"
    command = [sys.executable, "-c", code, str(tally)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    folders = {process.communicate(timeout=60)[0] for process in running}
    assert len(folders) == 1 and tally.read_text() == "built\n"


def test_a_cache_that_cannot_be_written_says_so(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert "TOOLWEAVE_CACHE" in complaint("tiny")


# --- specs


def test_a_hub_id_comes_back_unchanged() -> None:
    assert model_folder("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"


def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no model folder" in complaint(str(tmp_path / "nothing"))
    assert "no model folder ./nothing" in complaint("./nothing")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert "no model folder runs/demo" in complaint("runs/demo")  # not taken for a hub id


def test_a_name_that_is_almost_known_gets_the_nearest() -> None:
    assert "did you mean smollm2?" in complaint("smolm2")
    assert "whole number" in complaint("tiny:one")
    assert "needs a model's name" in complaint("openai:", sampler_for)


def test_a_folder_without_a_model_names_the_checkpoints_inside_it(tmp_path: Path, tiny: Path) -> None:
    assert "no config.json" in complaint(str(tmp_path))
    shutil.copytree(tiny, tmp_path / "sft" / "checkpoint-10")
    assert str(tmp_path / "sft" / "checkpoint-10") in complaint(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "which model its adapters are for" in complaint(str(tmp_path))
    (tmp_path / "a_file").touch()
    assert "is a file" in complaint(str(tmp_path / "a_file"))


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path, tiny: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "base"))
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in complaint(str(folder), load_model)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("[INST] {{ messages[0].content }} [/INST]", "where chatml writes"),
        ("{{ raise_exception('no') }}", "cannot render"),
    ],
)
def test_a_template_that_cannot_be_written_exactly_is_refused(
    tmp_path: Path, tiny: Path, template: str, problem: str
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "other"))
    (folder / "chat_template.jinja").write_text(template)
    assert problem in complaint(str(folder), load_model)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny, tmp_path / "mixed")
    tokenizer = load_model(str(tiny))[1]
    tokenizer.add_tokens([f"<|other{number}|>" for number in range(2000)])
    tokenizer.save_pretrained(tmp_path / "mixed")
    with pytest.raises(ConfigError, match="do not match: the tokenizer has") as caught:
        load_model(str(tmp_path / "mixed"))
    assert "saved with the model" in str(caught.value.hint)


def test_a_folder_with_missing_or_broken_files_is_one_sentence(tmp_path: Path, tiny: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "broken"))
    (folder / "model.safetensors").unlink()
    assert "cannot be loaded" in complaint(str(folder), load_model)
    (folder / "model.safetensors").write_bytes(b"half a file")
    assert "cannot be loaded" in complaint(str(folder), load_model)
    (folder / "config.json").write_text("{")
    assert "cannot be loaded" in complaint(str(folder), load_model)


def test_a_hub_id_that_cannot_be_fetched_is_one_sentence() -> None:
    said = complaint("nobody/nothing", load_model)  # the tests run in the hub's offline mode
    assert "nobody/nothing is no folder here" in said and "HF_HUB_OFFLINE" in said
    assert "gold plays without weights" in complaint("gold") and "openai:x plays without" in complaint("openai:x")


def test_an_unknown_type_name_is_refused(tiny: Path) -> None:
    assert "float33" in complaint(str(tiny), lambda spec: load_model(spec, dtype="float33"))
    model, _ = load_model(str(tiny), dtype="bfloat16", device="cpu")
    assert str(model.dtype) == "torch.bfloat16"


def test_a_folder_remembers_its_dialect(tmp_path: Path, tiny: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "trained"))
    origin = read_facts(folder)["origin"]
    save_dialect(folder, "inline")
    assert dialect_of(str(folder)) == "inline" and read_facts(folder)["origin"] == origin
    sampler = sampler_for(str(folder))
    assert isinstance(sampler, TokenSampler) and sampler.renderer.dialect.name == "inline"
    served = sampler_for(str(folder), base_url="http://127.0.0.1:9/v1")
    assert isinstance(served, ChatSampler) and served.dialect is not None and served.dialect.name == "inline"
    chosen = sampler_for(str(folder), dialect="hermes", base_url="http://127.0.0.1:9/v1")
    assert isinstance(chosen, ChatSampler) and chosen.dialect is not None and chosen.dialect.name == "hermes"
    assert dialect_of("smollm2") == dialect_of("tiny:4") == "hermes"
    assert dialect_of("owner/name") is None
    (folder / "toolweave.json").write_text("[1]")
    assert "not an object" in complaint(str(folder), dialect_of)


def test_samplers_that_need_no_model(tiny: Path) -> None:
    assert isinstance(sampler_for("gold"), ScriptedSampler)
    assert isinstance(sampler_for("human"), HumanSampler)
    at_a_server = sampler_for("name", base_url="http://127.0.0.1:9/v1")
    assert isinstance(at_a_server, ChatSampler) and at_a_server.dialect is None
    assert "no dialect" in complaint(str(tiny), lambda spec: sampler_for(spec, dialect="hermse"))
    assert "threads" in complaint(str(tiny), lambda spec: sampler_for(spec, threads=0))


def test_importing_specs_and_caches_loads_no_heavy_library() -> None:
    code = (
        "import sys, agent.models, agent.embedded, agent.tiny, agent.human\n"
        "print([m for m in ('torch', 'transformers', 'tokenizers', 'llm', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


# --- a person as the model


def test_a_typed_line_is_an_answer_or_a_call() -> None:
    assert action_of("Answer: 4", (python,)).text == "Answer: 4"
    (short,) = action_of(r"/python x = 2\nprint(x)", (python,)).tool_calls
    assert short.arguments == {"code": "x = 2\nprint(x)"} and short.error is None
    (full,) = action_of('/python {"code": "print(1)"}', (python,)).tool_calls
    assert full.arguments == {"code": "print(1)"}
    (broken,) = action_of('/python {"code": ', (python,)).tool_calls
    assert broken.arguments is None and "not valid JSON" in str(broken.error)
    (listed,) = action_of("/other [1]", (python,)).tool_calls
    assert "JSON object" in str(listed.error)


def test_a_person_at_a_terminal_plays_an_episode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("/python print(84)\nAnswer: 84\n"))
    task = Task(id="t", prompt=(user("12*7=?"),))
    trajectory = asyncio.run(rollout(ToolEnv(task=task, tools=(python,)), sampler_for("human")))
    assert trajectory.answer == "Answer: 84"
    assert re.search(r"\[user\] 12\*7=\?(.|\n)*\[tool\] print\(84\)", capsys.readouterr().err)
    with pytest.raises(ConfigError, match="terminal closed"):
        asyncio.run(rollout(ToolEnv(task=task), sampler_for("human")))


# --- the saved template says what our renderer says


def as_row(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.tool_calls:
        row["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments or {})}}
            for call in message.tool_calls
        ]
    return row


def call_of(code: str) -> ToolCall:
    return ToolCall(id="call_0", name="python", raw="", arguments={"code": code})


def told(call: ToolCall, text: str) -> Message:
    return answer_to(call, ToolResult(content=(Text(text=text),)))


FIRST, SECOND = call_of("print('é', 1 < 2)\n# \"q\""), call_of("x")
CONVERSATIONS: list[tuple[list[Message], list[Tool]]] = [
    ([user("hi")], []),
    ([system("Be brief."), user("hi"), assistant("Hello."), user("bye")], []),
    ([user("12*7=?")], [python]),
    ([system("Be brief."), user("go")], [python, python]),
    ([user("go"), assistant(tool_calls=[FIRST]), told(FIRST, "é True")], [python]),
    (
        [user("go"), assistant("Both.", tool_calls=[FIRST, SECOND]), told(FIRST, "1"), told(SECOND, "2\n3")],
        [python],
    ),
    (
        [user("a"), assistant(tool_calls=[FIRST]), told(FIRST, "1"), assistant("Answer: 1"), user("again?")],
        [python],
    ),
]


@pytest.mark.parametrize(("messages", "tools"), CONVERSATIONS)
def test_the_saved_template_renders_the_ids_of_the_renderer(messages: list[Message], tools: list[Tool]) -> None:
    from agent.dialects.hermes import signature

    rendered = TOKENIZER.apply_chat_template(
        [as_row(message) for message in messages],
        tools=[signature(tool) for tool in tools] or None,
        add_generation_prompt=True,
        return_dict=False,
    )
    ours = Renderer(TOKENIZER, dialect_named("hermes")).start(messages, tools)
    assert TOKENIZER.decode(rendered) == TOKENIZER.decode(list(ours.ids))
    assert rendered == list(ours.ids)


def test_the_saved_template_marks_assistant_turns_for_trainers_and_takes_other_shapes_of_content() -> None:
    row = as_row(assistant(tool_calls=[FIRST]))
    del row["content"]
    parts = [{"type": "text", "text": "12*7"}, {"type": "text", "text": "=?"}]
    shown = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": parts}, row, {"role": "tool", "content": "84"}, as_row(assistant("Answer: 84"))],
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    kept = [i for i, keep in zip(shown["input_ids"], shown["assistant_masks"], strict=True) if keep]
    written = dialect_named("hermes").write(assistant(tool_calls=[FIRST]))
    assert TOKENIZER.decode(kept) == f"{written}<|im_end|>Answer: 84<|im_end|>"
    assert "12*7=?" in TOKENIZER.decode(shown["input_ids"])


def test_the_template_follows_the_published_qwen_form() -> None:
    assert TOKENIZER.chat_template == TEMPLATE.read_text(encoding="utf-8")
    rows = [as_row(message) for message in CONVERSATIONS[5][0]]
    assert TOKENIZER.apply_chat_template(rows, tokenize=False).endswith(
        "<|im_start|>assistant\nBoth.\n"
        '<tool_call>\n{"name": "python", "arguments": {"code": "print(\'é\', 1 < 2)\\n# \\"q\\""}}\n</tool_call>\n'
        '<tool_call>\n{"name": "python", "arguments": {"code": "x"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n3\n</tool_response><|im_end|>\n"
    )
