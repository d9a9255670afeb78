"""Every family writes what its published chat template writes, and is refused with a reason where it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from conversations import FIRST, PLAIN, SECOND, WITH_TOOLS, look_up, now, rows, theirs, told
from family_tokenizers import FAMILIES, family_tokenizer, published_template

from agent.dialect import TokenDialect
from agent.dialects import Hermes, dialect_named
from agent.families import FromTemplate, chatml, family_named, family_of, harmony
from agent.renderer import Renderer
from envs import Message, assistant, system, user
from tools import ConfigError

TOOL_FAMILIES = ("qwen2.5", "qwen3", "llama3.1", "llama3.2", "mistral", "mistral-v11", "gpt-oss")


@pytest.mark.parametrize("messages", PLAIN, ids=lambda m: "-".join(x.role[0] for x in m))
@pytest.mark.parametrize("family", [*FAMILIES, "mistral-v11"])
def test_a_plain_conversation_has_the_ids_of_the_published_template(family: str, messages: list[Message]) -> None:
    tokenizer = family_tokenizer(family)
    renderer = Renderer(tokenizer, dialect_named("native" if family == "gpt-oss" else "hermes"))
    expected = theirs(tokenizer, renderer, messages, [])
    assert tokenizer.decode(renderer.start(messages, []).ids) == tokenizer.decode(expected)
    assert list(renderer.start(messages, []).ids) == expected


@pytest.mark.parametrize("messages", WITH_TOOLS, ids=lambda m: "-".join(x.role[0] for x in m))
@pytest.mark.parametrize("family", TOOL_FAMILIES)
def test_calls_and_results_have_the_ids_of_the_published_template(family: str, messages: list[Message]) -> None:
    tokenizer = family_tokenizer(family)
    renderer = Renderer(tokenizer, dialect_named("native"))
    if family == "mistral-v11" and sum(m.role == "user" for m in messages) > 1:
        pytest.skip("its template moves the tools to the last user turn; ours leaves them at the first")
    expected = theirs(tokenizer, renderer, messages, [look_up, now])
    ours = renderer.start(messages, [look_up, now]).ids
    assert tokenizer.decode(ours) == tokenizer.decode(expected)
    assert list(ours) == expected


def test_parallel_calls_are_written_as_qwen_and_mistral_publish_them() -> None:
    for family in ("qwen2.5", "qwen3", "mistral"):
        tokenizer = family_tokenizer(family)
        renderer = Renderer(tokenizer, dialect_named("native"))
        messages = [user("go"), assistant("Both.", tool_calls=[FIRST, SECOND]), told(FIRST, "1"), told(SECOND, "2\n3")]
        assert list(renderer.start(messages, [look_up, now]).ids) == theirs(
            tokenizer, renderer, messages, [look_up, now]
        )


def test_qwen3_thinking_before_the_last_question_is_dropped_as_its_template_does() -> None:
    tokenizer = family_tokenizer("qwen3")
    messages = [user("a"), assistant("b", reasoning="hm"), user("c")]
    row = [*rows(messages)]
    row[1]["reasoning_content"] = "hm"
    expected = tokenizer.apply_chat_template(row, add_generation_prompt=True, return_dict=False)
    ours = {mode: Renderer(tokenizer, dialect_named("native"), thinking=mode) for mode in ("keep", "strip", "template")}  # type: ignore[arg-type]
    assert list(ours["template"].start(messages, []).ids) == list(ours["strip"].start(messages, []).ids) == expected
    assert "<think>\nhm\n</think>\n\nb" in tokenizer.decode(ours["keep"].start(messages, []).ids)


def test_qwen3_without_thinking_opens_as_its_template_does() -> None:
    tokenizer = family_tokenizer("qwen3")
    renderer = Renderer(tokenizer, dialect_named("native"), prefix="<think>\n\n</think>\n\n")
    expected = tokenizer.apply_chat_template(
        rows([user("a")]), add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    delta = renderer.start([user("a")], [])
    assert list(delta.ids) == expected
    assert [span.source for span in delta.spans] == ["prompt", "forced"]


@pytest.mark.parametrize("family", [*FAMILIES, "mistral-v11"])
def test_a_family_is_told_from_its_tokenizer(family: str) -> None:
    expected = {"llama3.1": "llama3", "llama3.2": "llama3", "mistral": "mistral-v13"}.get(family, family)
    assert family_of(family_tokenizer(family)).name == expected


def test_every_family_names_the_tokens_it_needs() -> None:
    with pytest.raises(ConfigError, match="no model family 'qwen33'") as caught:
        family_named("qwen33", None)
    assert caught.value.hint == "did you mean qwen3 or qwen2.5?"
    with pytest.raises(ConfigError, match=r"no <start_of_turn> token|no <bos> token"):
        Renderer(without_template("qwen3"), dialect_named("hermes"), family="gemma3")


@pytest.mark.parametrize("dialect", ["hermes", "native"])
def test_a_family_that_is_handed_over_is_held_against_the_template_like_a_named_one(dialect: str) -> None:
    handed = chatml("mine", "You are nobody.")
    with pytest.raises(ConfigError, match="the tokenizer's chat template is not mine: it writes") as caught:
        Renderer(family_tokenizer("qwen2.5"), dialect_named(dialect), family=handed)
    assert "leave the family out" in str(caught.value.hint)
    renderer = Renderer(without_template("qwen2.5"), dialect_named(dialect), family=handed)
    assert renderer.family is handed and renderer.appends
    right = chatml("mine", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
    assert Renderer(family_tokenizer("qwen2.5"), dialect_named(dialect), family=right).family is right


def test_the_template_is_told_the_day_and_the_effort_that_a_family_was_made_with() -> None:
    handed = harmony("2031-01-02", effort="high")
    renderer = Renderer(family_tokenizer("gpt-oss"), dialect_named("native"), family=handed)
    ids = renderer.start([user("a")], []).ids
    assert list(ids) == theirs(renderer.tokenizer, renderer, [user("a")], [])
    assert "Current date: 2031-01-02\n\nReasoning: high" in renderer.tokenizer.decode(list(ids))


def test_frames_that_were_read_from_another_tokenizers_template_are_read_anew() -> None:
    renderer = Renderer(
        with_template("qwen2.5", OWN), dialect_named("hermes"), family=FromTemplate(family_tokenizer("qwen3"))
    )
    assert "<|im_start|>USER:" in renderer.tokenizer.decode(list(renderer.start([user("a")], []).ids))


def with_template(family: str, template: str) -> Any:
    from copy import deepcopy

    tokenizer = deepcopy(family_tokenizer(family))
    tokenizer.chat_template = template
    return tokenizer


def without_template(family: str) -> Any:
    return with_template(family, "")


def test_a_template_without_a_place_for_tools_is_refused_where_its_own_calls_are_asked_for() -> None:
    with pytest.raises(ConfigError, match="no place for tool calls and their results") as caught:
        Renderer(family_tokenizer("gemma3"), dialect_named("native"))
    assert "--dialect hermes" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("family", "published", "reason"),
    [
        ("qwen3", "lfm2", r"writes '.*<\|tool_respon' where chatml writes '.*<tool_call>"),
        ("qwen3", "lfm2_v2", r"writes '.*<\|tool_call_start\|>\[.*' where chatml writes '.*<tool_call>"),
        ("llama3.1", "llama3", "as llama3 does: it shows the model no tools"),
    ],
)
def test_a_template_that_writes_calls_otherwise_is_refused_where_they_are_asked_for(
    family: str, published: str, reason: str
) -> None:
    tokenizer = with_template(family, published_template(published))
    with pytest.raises(ConfigError, match=reason) as caught:
        Renderer(tokenizer, dialect_named("native"))
    assert "--dialect hermes" in str(caught.value.hint)
    Renderer(tokenizer, dialect_named("hermes"))


@pytest.mark.parametrize(
    ("family", "here", "there"),
    [
        ("qwen2.5", '"arguments": ', '"parameters": '),
        ("qwen3", "<tool_response>", "<result>"),
        ("llama3.2", "|>ipython<|", "|>tool<|"),
        ("mistral", "[TOOL_RESULTS]", "[TOOL_RESULTS] "),
        ("gpt-oss", "to=assistant", "to=model"),
    ],
)
def test_one_word_of_a_call_or_its_result_that_differs_is_found(family: str, here: str, there: str) -> None:
    template = published_template(family)
    assert here in template
    with pytest.raises(ConfigError, match="does not write calls and results as") as caught:
        Renderer(with_template(family, template.replace(here, there)), dialect_named("native"))
    assert ("hermes" in str(caught.value.hint)) == (family != "gpt-oss")


def test_a_template_that_raises_at_a_result_is_refused_with_what_it_says() -> None:
    raising = "{% for m in messages if m.role == 'tool' %}{{ raise_exception('no results') }}{% endfor %}"
    template = raising + published_template("qwen3")
    with pytest.raises(ConfigError, match=r"cannot write a call and its result \(no results"):
        Renderer(with_template("qwen3", template), dialect_named("native"))


@pytest.mark.parametrize("published", ["qwen2_5_vl", "qwen3_vl", "qwen3_instruct_2507"])
def test_hermes_stays_the_own_way_of_a_template_that_writes_it_or_knows_no_tools(published: str) -> None:
    renderer = Renderer(with_template("qwen3", published_template(published)), dialect_named("native"))
    assert isinstance(renderer.dialect, Hermes)


def test_a_format_that_leaves_no_room_for_other_dialects_says_so() -> None:
    with pytest.raises(ConfigError, match="gpt-oss writes calls its own way, not as hermes") as caught:
        Renderer(family_tokenizer("gpt-oss"), dialect_named("hermes"))
    assert caught.value.hint == "use --dialect native"


OWN = (
    "{% for m in messages %}<|im_start|>{{ m.role | upper }}:\n{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>ASSISTANT:\n{% endif %}"
)


def test_a_template_of_the_users_own_is_followed_to_the_letter() -> None:
    tokenizer = with_template("qwen2.5", OWN)
    renderer = Renderer(tokenizer, dialect_named("hermes"))
    assert renderer.family.name == "template" and renderer.appends
    messages = [system("Be brief."), user("hi"), assistant("Hello."), user("bye")]
    assert list(renderer.start(messages, []).ids) == theirs(tokenizer, renderer, messages, [])


REWRITES = OWN.replace("{{ m.content }}", "{{ m.content if loop.last or m.role != 'assistant' else '...' }}")
COUNTS = OWN.replace("{{ m.role", "{{ messages | length }} {{ m.role")


@pytest.mark.parametrize(("template", "reason"), [(COUNTS, "written otherwise"), (REWRITES, "leaves out or moves")])
def test_a_template_that_rewrites_earlier_turns_is_refused_with_the_reason(template: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Renderer(with_template("qwen3", template), dialect_named("hermes"))


def test_such_a_template_runs_with_recorded_forks_where_the_user_asks_for_it() -> None:
    tokenizer = with_template("qwen2.5", COUNTS)
    renderer = Renderer(tokenizer, dialect_named("hermes"), forks=True)
    assert not renderer.appends
    messages = [user("hi"), assistant("Hello."), user("bye")]
    assert list(renderer.start(messages, []).ids) == theirs(tokenizer, renderer, messages, [])


@pytest.mark.parametrize("family", ["llama3.1", "gemma3", "gpt-oss", "qwen3"])
def test_a_template_that_can_write_nothing_proves_nothing(family: str) -> None:
    with pytest.raises(ConfigError, match="no such thing"):
        Renderer(with_template(family, "{{ raise_exception('no such thing') }}"), dialect_named("native"))


LONG = "1" * 5000
"""More digits than Python makes a number of."""


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("llama3.1", f'{{"name": "f", "parameters": {{"a": {LONG}}}}}'),
        ("mistral", f'[TOOL_CALLS]f[ARGS]{{"a": {LONG}}}'),
        ("gpt-oss", f'<|channel|>commentary to=functions.f<|message|>{{"a": {LONG}}}'),
    ],
)
def test_a_number_without_end_is_a_malformed_call(family: str, text: str) -> None:
    renderer = Renderer(family_tokenizer(family), dialect_named("native"))
    (found,) = renderer.parse(renderer.tokenizer.encode(text, add_special_tokens=False), []).tool_calls
    assert found.arguments is None and found.error is not None and "not valid JSON" in found.error


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('<|python_tag|>{"name": "f", "parameters": {"a": 1}}<|eom_id|>', [("f", {"a": 1})]),
        ('{"type": "function", "name": "f", "parameters": {}}<|eot_id|>', [("f", {})]),
        (
            'So:\n{"name": "f", "parameters": {"a": "; {"}}; {"name": "g", "parameters": {}}\n'
            '{"name": "h", "parameters": {}}<|eot_id|>',
            [("f", {"a": "; {"}), ("g", {}), ("h", {})],
        ),
    ],
)
def test_the_forms_of_a_call_that_llama_falls_into_are_read(text: str, calls: list[tuple[str, Any]]) -> None:
    renderer = Renderer(family_tokenizer("llama3.1"), dialect_named("native"))
    said = renderer.parse(renderer.tokenizer.encode(text, add_special_tokens=False), [])
    assert [(call.name, call.arguments) for call in said.tool_calls] == calls
    assert said.text == ("So:" if text.startswith("So") else "")
    assert all(call.raw in text for call in said.tool_calls)


def test_a_literal_special_token_that_would_become_one_is_refused() -> None:
    class Leaky:
        """A slow tokenizer that cannot be told to leave special tokens alone."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner
            self.chat_template = ""
            self.all_special_ids = inner.all_special_ids

        def encode(self, text: str, **options: Any) -> list[int]:
            return self.inner.encode(text, add_special_tokens=False)

        def decode(self, ids: Any, **options: Any) -> str:
            return self.inner.decode(ids, **options)

        def convert_tokens_to_ids(self, token: Any) -> Any:
            return self.inner.convert_tokens_to_ids(token)

    with pytest.raises(ConfigError, match="into that special token, so a tool's words could pass for a turn"):
        Renderer(Leaky(family_tokenizer("qwen3")), dialect_named("hermes"), family="chatml")


def test_a_native_dialect_has_no_use_outside_a_renderer() -> None:
    with pytest.raises(ConfigError, match="written by a model's own renderer"):
        dialect_named("native").instructions([now])
    assert isinstance(Renderer(family_tokenizer("mistral"), dialect_named("native")).dialect, TokenDialect)
