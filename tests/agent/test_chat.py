"""ChatSampler against a local server that speaks the chat API over real HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from chat_client import play
from chat_server import ChatServer, Say

from agent import SamplingParams, rollout
from agent.chat import ChatSampler
from agent.dialects import dialect_named
from envs import Stop, Task, ToolEnv, answer_to, assistant, system, user
from tools import BlobStore, Text, ToolCall, ToolResult, tool
from tools.content import Content
from tools.errors import ConfigError


@tool
def add(a: int, b: int) -> str:
    """Add two integers.

    Args:
        a: The first.
        b: The second.
    """
    return str(a + b)


@tool
def python(code: str) -> str:
    """Run Python."""
    return f"ran {code}"


CALL_THEN_ANSWER = (Say(text="Adding.", calls=[("add", '{"a": 2, "b": 3}')]), Say(text="It is 5."))


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_its_result_and_the_answer_make_an_episode(stream: bool) -> None:
    with ChatServer(*CALL_THEN_ANSWER) as server:
        t = play(server, add, stream=stream)
    assert (t.stop, t.answer, t.error) == (Stop.DONE, "It is 5.", None)
    call = t.steps[0].action.tool_calls[0]
    assert (call.name, call.raw, call.arguments) == ("add", '{"a": 2, "b": 3}', {"a": 2, "b": 3})
    assert [(done.outcome, done.result.text) for done in t.calls] == [("ok", "5")]
    assert t.steps[0].usage == {"prompt": 11, "completion": 7}
    assert t.sampled_tokens == 14
    assert all(step.tokens is None for step in t.steps)
    first, second = server.requests
    assert first["tools"][0]["function"]["parameters"]["properties"]["a"]["description"] == "The first."
    assert second["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Adding.",
            "tool_calls": [
                {"id": call.id, "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "5"},
    ]


def test_streaming_and_whole_replies_give_the_same_episode() -> None:
    both: list[Any] = []
    for stream in (False, True):
        calls = [("add", '{"a": 1, "b": 1}'), ("add", '{"a": 2, "b'), ("nope", "{}")]
        with ChatServer(Say(text="Two.", reasoning="Hm, twice.", calls=calls), Say(text="Done.")) as server:
            both.append(play(server, add, stream=stream).messages)
    assert both[0] == both[1]
    assert both[0][1].reasoning == "Hm, twice."


def test_text_arrives_in_order_while_it_is_sampled() -> None:
    heard: list[Any] = []
    with ChatServer(*CALL_THEN_ANSWER) as server:
        play(server, add, heard=heard)
    kinds = [type(event).__name__ for event in heard]
    assert kinds[:2] == ["Observed", "TextDelta"]
    assert kinds.index("Sampled") < kinds.index("CallStarted") < kinds.index("CallFinished")
    spoken = [event.text for event in heard if type(event).__name__ == "TextDelta"]
    assert "".join(spoken) == "Adding.It is 5."
    assert len(spoken) > 2


def test_nobody_listening_means_no_stream() -> None:
    with ChatServer(Say(text="Hi.")) as server:
        play(server)
    assert "stream" not in server.requests[0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("arguments", ['{"a": 2, "b', "[1, 2]", "2", '{"a": 1} {"a": 2}', "{'a': 1}"])
def test_malformed_arguments_survive_and_the_episode_goes_on(arguments: str, stream: bool) -> None:
    with ChatServer(Say(calls=[("add", arguments)]), Say(text="Sorry: 5.")) as server:
        t = play(server, add, stream=stream)
    call = t.steps[0].action.tool_calls[0]
    assert (call.raw, call.arguments) == (arguments, None)
    assert call.error is not None and call.error.startswith("The arguments of add")
    assert [done.outcome for done in t.calls] == ["malformed"]
    assert t.answer == "Sorry: 5."
    sent = server.requests[1]["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(sent) == {"malformed": arguments}


def test_no_arguments_may_be_an_empty_string() -> None:
    @tool
    def now() -> str:
        """The time."""
        return "noon"

    with ChatServer(Say(calls=[("now", "")]), Say(text="Noon.")) as server:
        assert play(server, now).calls[0].outcome == "ok"


def test_call_ids_are_unique_even_where_the_server_repeats_its_own() -> None:
    twice = [("add", '{"a": 1, "b": 1}'), ("add", '{"a": 2, "b": 2}')]
    script = [
        Say(calls=twice, call_ids=["call_0", "call_0"]),
        Say(calls=twice, call_ids=["", "call_0"]),
        Say(text="ok"),
    ]
    with ChatServer(*script) as server:
        t = play(server, add)
    ids = [call.id for step in t.steps for call in step.action.tool_calls]
    assert len(ids) == len(set(ids)) == 4
    assert t.stop is Stop.DONE


def test_sampling_settings_reach_the_server() -> None:
    params = SamplingParams(max_tokens=9, temperature=0.5, top_p=0.9, top_k=20, seed=2**62 + 5)
    with ChatServer(Say(text="x", finish="length")) as server:
        t = play(server, params=params, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    sent = server.requests[0]
    assert [sent[name] for name in ("max_tokens", "temperature", "top_p", "top_k")] == [9, 0.5, 0.9, 20]
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert 0 <= sent["seed"] < 2**31
    assert t.stop is Stop.MAX_TOKENS
    with ChatServer(Say(text="x"), Say(text="x")) as server:
        play(server, params=params)
        play(server, params=SamplingParams(seed=7))
    assert server.requests[0]["seed"] == sent["seed"] != server.requests[1]["seed"]


def test_a_full_context_ends_the_episode_and_other_refusals_end_the_run() -> None:
    vllm = {"message": "This model's maximum context length is 128 tokens. However, you requested 200 tokens"}
    llama = {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}
    for error in (vllm, llama, {"message": "too long", "code": "context_length_exceeded"}):
        with ChatServer(Say(status=400, error=error)) as server:
            assert play(server).stop is Stop.MAX_CONTEXT
    refusal = Say(status=400, error={"message": "tools are not enabled"})
    with ChatServer(refusal) as server, pytest.raises(ConfigError) as e:
        play(server, add)
    assert "tools are not enabled" in str(e.value) and server.url in str(e.value)


def mistake(**settings: Any) -> ConfigError:
    with ChatServer(Say(text="Hi."), api_key="right-key") as server, pytest.raises(ConfigError) as caught:
        play(server, **{"api_key": "right-key", "max_retries": 0, **settings})
    return caught.value


def test_a_wrong_setup_is_one_sentence_with_the_address_and_without_the_key() -> None:
    refused = mistake(api_key="sk-secret-123")
    assert "refused the API key" in str(refused) and "sk-secret" not in f"{refused} {refused.hint}"
    assert "knows no model 'huge'" in str(mistake(model="huge"))
    gone = mistake(base_url="http://127.0.0.1:9/v1")
    assert "no server answers at http://127.0.0.1:9/v1" in str(gone)
    assert "\n" not in str(gone)


@pytest.mark.parametrize("stream", [False, True])
def test_a_web_page_in_place_of_a_completion_is_a_wrong_address(stream: bool) -> None:
    with ChatServer(Say(body="<html>Welcome</html>")) as server, pytest.raises(ConfigError, match="not a chat compl"):
        play(server, stream=stream)


def test_no_key_for_the_hosted_api_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    env = ToolEnv(task=Task(id="t", prompt=(user("hi"),)))
    with pytest.raises(ConfigError, match="needs an API key"):
        asyncio.run(rollout(env, ChatSampler("gpt-5-mini")))


def test_pictures_go_as_data_urls_and_those_of_tools_follow_their_turn() -> None:
    import PIL.Image

    blobs = BlobStore()
    photo = blobs.put_image(PIL.Image.new("RGB", (4, 4), "red"))
    crop = blobs.put_image(PIL.Image.new("RGB", (2, 2), "blue"))

    @tool
    def zoom(times: int) -> list[Content]:
        """Zoom."""
        return [Text(text="zoomed"), crop]

    script = (Say(calls=[("zoom", '{"times": 2}'), ("zoom", '{"times": 3}')]), Say(text="Blue."))
    with ChatServer(*script) as server:
        t = play(server, zoom, prompt=(system("Look."), user("What is it?", photo)), blobs=blobs)
    assert t.answer == "Blue."
    question = server.requests[0]["messages"][1]["content"]
    assert question[0] == {"type": "text", "text": "What is it?"}
    assert question[1]["image_url"]["url"].startswith("data:image/png;base64,")
    roles = [message["role"] for message in server.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    shown = server.requests[1]["messages"][-1]["content"]
    assert [part["type"] for part in shown] == ["text", "image_url", "text", "image_url"]
    with ChatServer(Say(text="x")) as server, pytest.raises(ConfigError, match="BlobStore"):
        play(server, prompt=(user(photo),))


def test_thinking_goes_back_in_the_field_it_came_in() -> None:
    with ChatServer(Say(reasoning="Add them.", calls=[("add", '{"a": 2, "b": 3}')]), Say(text="5")) as server:
        play(server, add)
    assert server.requests[1]["messages"][1]["reasoning_content"] == "Add them."


@pytest.mark.parametrize("stream", [False, True])
def test_ids_from_the_server_are_recorded_and_a_prompt_that_was_rendered_anew_is_a_fork(stream: bool) -> None:
    call = [("add", '{"a": 2, "b": 3}')]
    script = (
        Say(calls=call, prompt_ids=[1, 2, 3], ids=[10, 11], logprobs=[-0.1, -0.2]),
        Say(calls=call, prompt_ids=[1, 2, 3, 10, 11, 4, 5], ids=[12], logprobs=[-0.3]),
        Say(text="5", prompt_ids=[1, 2, 9, 10, 11, 4, 5, 12, 6], ids=[13, 14], logprobs=[-0.4, -0.5]),
    )
    with ChatServer(*script) as server:
        t = play(server, add, stream=stream, return_token_ids=True)
    tokens = [step.tokens for step in t.steps]
    assert [(k.added, k.completion, k.extends) for k in tokens if k] == [
        ((1, 2, 3), (10, 11), False),
        ((4, 5), (12,), True),
        ((1, 2, 9, 10, 11, 4, 5, 12, 6), (13, 14), False),
    ]
    rows = t.sequences()
    assert rows[0].token_ids == (1, 2, 3, 10, 11, 4, 5, 12)
    assert rows[0].loss_mask == (0, 0, 0, 1, 1, 0, 0, 1)
    assert rows[0].sources[5:7] == ("tool", "tool")
    assert len(rows) == 2
    assert t.sampled_tokens == 5


def test_ids_without_as_many_log_probs_are_never_recorded() -> None:
    with ChatServer(Say(text="5", prompt_ids=[1], ids=[2, 3], logprobs=[-0.1])) as server:
        t = play(server, return_token_ids=True)
    assert t.stop is Stop.ERROR and t.error is not None and "2 token ids and 1 log-probs" in t.error


def test_log_probs_of_another_temperature_are_refused() -> None:
    with ChatServer(Say(text="5")) as server, pytest.raises(ConfigError, match="temperature"):
        play(server, return_token_ids=True, params=SamplingParams(temperature=0.7))
    assert server.requests == []


def test_a_server_without_tools_speaks_hermes() -> None:
    written = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'
    with ChatServer(Say(text=f"Adding.\n{written}"), Say(text="It is 5.")) as server:
        t = play(server, add, prompt=(system("Be brief."), user("2+3?")), dialect=dialect_named("hermes"))
    assert (t.stop, t.answer, [done.outcome for done in t.calls]) == (Stop.DONE, "It is 5.", ["ok"])
    first, second = server.requests
    assert "tools" not in first
    assert first["messages"][0]["content"].startswith("Be brief.\n\n# Tools")
    assert second["messages"][2] == {"role": "assistant", "content": f"Adding.\n{written}"}
    assert second["messages"][3]["role"] == "user" and "<tool_response>\n5\n" in second["messages"][3]["content"]


@pytest.mark.parametrize("named", ["</code>", None])
def test_inline_results_go_on_in_the_same_turn_and_a_cut_stop_string_is_put_back(named: str | None) -> None:
    call = "Let me see.\n<code>\n```python\nprint(5)\n```\n"
    with ChatServer(Say(text=call, stop_reason=named), Say(text="So 5.")) as server:
        t = play(server, python, dialect=dialect_named("inline"))
    assert t.steps[0].action.tool_calls[0].arguments == {"code": "print(5)"}
    assert t.answer == "So 5."
    first, second = server.requests
    assert first["stop"] == ["</code>"] and "continue_final_message" not in first
    assert second["continue_final_message"] is True and second["add_generation_prompt"] is False
    last = second["messages"][-1]
    assert last["role"] == "assistant"
    assert last["content"].endswith("</code>\n<interpreter>\nran print(5)\n</interpreter>\n")
    with ChatServer(Say(text="Bye.")) as server:
        play(server, python, dialect=dialect_named("inline"), prompt=(*t.messages, user("Thanks.")))
    told = server.requests[0]["messages"]
    assert [message["role"] for message in told] == ["system", "user", "assistant", "user"]
    assert told[2]["content"].endswith("</interpreter>\nSo 5.")


def test_one_sampler_serves_one_event_loop_after_another_and_many_episodes_at_once() -> None:
    with ChatServer(Say(text="Hi."), repeat=True) as server:
        sampler = ChatSampler("tiny", server.url)

        async def many() -> list[str]:
            tasks = [rollout(ToolEnv(task=Task(id=str(i), prompt=(user("hi"),))), sampler) for i in range(8)]
            return [t.answer for t in await asyncio.gather(*tasks)]

        for _ in range(2):
            assert asyncio.run(many()) == ["Hi."] * 8


def test_a_call_from_another_policy_is_sent_as_json_the_server_accepts() -> None:
    foreign = ToolCall(id="call_0", name="add", raw="<tool_call>...</tool_call>", arguments={"a": 1, "b": 2})
    broken = ToolCall(id="call_1", name="", raw="<tool_call>oops", error="not JSON")
    history = (
        user("1+2?"),
        assistant("Adding.", tool_calls=[foreign, broken]),
        answer_to(foreign, ToolResult(content=(Text(text="3"),))),
        answer_to(broken, ToolResult(content=(Text(text="not JSON"),), is_error=True)),
        user("And?"),
    )
    with ChatServer(Say(text="3.")) as server:
        assert play(server, add, prompt=history).answer == "3."
    calls = server.requests[0]["messages"][1]["tool_calls"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": 1, "b": 2}
    assert calls[1]["function"]["name"] == "unreadable"


def test_characters_that_a_server_cuts_in_two_are_whole_again_and_half_ones_do_no_harm() -> None:
    with ChatServer(Say(text="\ud83d\ude00\ud83d", piece=1), Say(text="ok")) as server:
        heard: list[Any] = []
        t = play(server, heard=heard)
        again = play(server, prompt=(*t.messages, user("And?")))
    assert t.answer == "😀\ufffd"
    assert again.answer == "ok"
