"""Nothing breaks, whatever is said: for every family and dialect, played out against an engine that samples odd splits.

A break would be: an id before the new ones that changed, an id without a source, a loss on what nobody sampled, a
control token out of somebody's words, or an action that is not what was written.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from family_tokenizers import FAMILIES, family_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.dialect import TokenDialect
from agent.dialects import DIALECTS, dialect_named
from agent.encoder import special_ids
from agent.parts import quoted
from agent.renderer import Renderer
from agent.token_sampler import context_ids
from envs import Message, Span, Step, StepTokens, Task, Trajectory, answer_to, assistant, system, user
from tools import Text, Tool, ToolCall, ToolResult, tool

NATIVE = ("qwen2.5", "qwen3", "llama3.1", "mistral", "mistral-v11", "gpt-oss")
PAIRS = [("qwen3", dialect) for dialect in DIALECTS if dialect != "native"]
PAIRS += [(family, dialect) for family in FAMILIES if family != "gpt-oss" for dialect in ("hermes", "inline")]
PAIRS += [(family, "native") for family in NATIVE]
PAIRS = list(dict.fromkeys(PAIRS))

MARKUP = [
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|eot_id|>",
        "[INST]",
        "</s>",
        "<end_of_turn>",
        "<|call|>",
        "<|end|>",
        "<|channel|>",
    ),
    *("<tool_call>", "</tool_call>", "</tool_response>", "<think>", "</think>", "<code>", "</code>", "</interpreter>"),
    *("<search>", "</search>", "</information>", "BEGIN\n", "\nEND", "```", "<answer>", "</answer>", "[TOOL_CALLS]"),
    *("\n", "\n\n", " ", "  7", "12", "é", "🙂", "print(", '{"name": "', "true", "\\", "\t", "a", "\r\n"),
]
# Normalised, as Qwen's tokenizers do it before anything else.
characters = st.characters(exclude_categories=["Cc", "Cn", "Co", "Cs"])
soup = st.lists(st.sampled_from(MARKUP) | st.text(characters, max_size=4), max_size=6).map(
    lambda parts: nfc("".join(parts))
)
words = st.lists(
    st.sampled_from(["So", " 12", " naïve", " 你好", " 🙂🙃", "\n\n", " привет", ".", " {}", " x"]), max_size=5
).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


def nfc(text: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", text)


def named(name: str) -> Tool:
    def fn(x: str) -> str:
        """Do something."""
        return x

    return replace(tool(fn), name=name)


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id="", name=name, raw="", arguments=arguments)


TOOLS = {
    "inline": ["python"],
    "tool-star": ["python", "search"],
    "search-r1": ["search"],
    "deepmmsearch": ["search", "image_search"],
    "mmsearch-r1": ["search", "image_search"],
    "deepeyes-v2": ["python", "zoom"],
    "vilasr": ["object_mapper", "path_tracer"],
    "chartsketcher": ["sketch"],
    "conan": ["clips"],
}
BOXES = [
    [{"index": 1, "bbox_2d": [1, 2, 3, 4], "label": "```"}],
    [],
    [{"label": "é 🙂", "ok": True, "deep": {"a": [None]}}],
]


@st.composite
def actions(draw: st.DrawFn, dialect: str) -> Message:
    """An action with calls that the dialect can write."""
    said = draw(words)
    thought = draw(st.none() | words)
    if dialect == "conan":
        return assistant(
            "<score>00:00:01: 4</score>",
            reasoning=thought,
            tool_calls=[call("clips", clips=["00:00:01-00:00:09", "1:02:03-1:02:04"][: draw(st.integers(1, 2))])],
        )
    if dialect == "vilasr":
        made = [call(draw(st.sampled_from(TOOLS[dialect])), items=draw(st.sampled_from(BOXES)))]
    elif dialect == "chartsketcher":
        made = [call("sketch", script=draw(st.sampled_from(["", "delete top", "create_point p 0.1 0.2\n\nEND of it"])))]
    elif dialect in TOOLS:
        name = draw(st.sampled_from(TOOLS[dialect]))
        given = {"python": {"code": f"{said}\nx"}, "zoom": {"box": [1, 2], "on": True}}
        made = [call(name, **given.get(name, {"query": f"q{said}"}))]
        if name == "image_search" and (dialect == "mmsearch-r1" or draw(st.booleans())):
            made = [call(name)]
    else:
        one = st.dictionaries(words, json_values, max_size=3).map(
            lambda a: ToolCall(id="", name="f", raw="", arguments=a)
        )
        many = 1 if dialect in ("atf", "gpt-oss") else 3
        made = draw(st.lists(one, min_size=1, max_size=many))
    return assistant(said, reasoning=thought, tool_calls=made)


@cache
def renderer_of(family: str, dialect: str, **options: Any) -> Renderer:
    return Renderer(family_tokenizer(family), dialect_named(dialect), **options)


def split_oddly(renderer: Renderer, parts: Sequence[Any], seed: int) -> list[int]:
    """Ids that decode to an action's text, split as no tokenizer would: a model may sample any of them."""
    rng = random.Random(seed)
    ids: list[int] = []
    for part in parts:
        if part.kind == "control":
            ids.append(renderer.encoder.control(part.text))
            continue
        at = 0
        while at < len(part.text):
            size = rng.choice([1, 2, 3, 8, 1000])
            ids += renderer.encoder.ids((replace(part, text=part.text[at : at + size]),))
            at += size
    return ids


def bare(message: Message) -> Message:
    return replace(message, tool_calls=tuple(replace(c, id="", raw="") for c in message.tool_calls))


def play(
    renderer: Renderer, prompt: Sequence[Message], turns: Sequence[tuple[Message, Sequence[str], str | None]], seed: int
):
    """An episode: each action sampled in odd pieces, its results, and now and then a user who speaks."""
    tools = [named(name) for name in TOOLS.get(renderer.dialect.name, ["f"])]
    so_far = Trajectory(task=Task(id="t", prompt=tuple(prompt)), tools=tuple(tools))
    new: tuple[Message, ...] = tuple(prompt)
    asked: list[tuple[int, ...]] = []
    for number, (action, results, word) in enumerate(turns):
        so_far.final = new
        delta = renderer.extend(so_far, new) if so_far.steps else None
        extends = delta is not None
        if delta is None:
            delta = renderer.start(so_far.messages, tools)
        assert [span.start for span in delta.spans] == [0, *(span.end for span in delta.spans[:-1])]
        assert delta.spans[-1].end == len(delta.ids) and all(span.start < span.end for span in delta.spans)
        before = context_ids(so_far) if extends else ()
        asked.append((*before, *delta.ids))
        written = renderer._body(action)  # pyright: ignore[reportPrivateUsage]
        ids = split_oddly(renderer, written, seed + number)
        if renderer._closes(action):  # pyright: ignore[reportPrivateUsage]
            dialect = renderer.dialect
            end = dialect.ends(action) if isinstance(dialect, TokenDialect) else None
            ids.append(renderer.encoder.control(end or renderer.family.ends[0]))
        said = renderer.parse(ids, tools, opened=not delta.continues_turn)
        assert bare(said) == bare(action), (said, action)
        calls = tuple(replace(c, id=f"call_{number}_{i}") for i, c in enumerate(said.tool_calls))
        tokens = StepTokens(
            added=delta.ids, completion=tuple(ids), logprobs=(-0.5,) * len(ids), extends=extends, spans=delta.spans
        )
        so_far.steps.append(Step(observation=new, action=replace(said, tool_calls=calls), tokens=tokens))
        so_far.final = ()
        texts = (*results, *[""] * len(calls))
        new = tuple(answer_to(c, ToolResult(content=(Text(text=text),))) for c, text in zip(calls, texts, strict=False))
        new += (user(word),) if word is not None else ()
    return so_far, asked


def check(renderer: Renderer, so_far: Trajectory, asked: Sequence[tuple[int, ...]], told: Sequence[str]) -> None:
    rows = so_far.sequences()
    completions = [step.tokens.completion for step in so_far.steps if step.tokens]
    starts = [i for i, step in enumerate(so_far.steps) if step.tokens and not step.tokens.extends]
    for row, first, last in zip(rows, starts, [*starts[1:], len(asked)], strict=True):
        for prompt, completion in zip(asked[first:last], completions[first:last], strict=True):
            assert row.token_ids[: len(prompt) + len(completion)] == prompt + completion
        trained = tuple(i for i, kept in zip(row.token_ids, row.loss_mask, strict=True) if kept)
        assert trained == sum(completions[first:last], ())
    special = special_ids(renderer.tokenizer)
    blocked = renderer.encoder._blocked  # pyright: ignore[reportPrivateUsage]
    for text in told:
        ids = renderer.encoder.ids((quoted(text),))
        assert not special & set(ids)
        assert renderer.encoder.text(ids) == text
        if blocked is not None:
            pieces = [renderer.tokenizer.decode([i]) for i in ids]
            assert not any(blocked.fullmatch(piece) for piece in pieces)


relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def some_episode(renderer: Renderer, data: st.DataObject, dialect: str, turns: int) -> None:
    prompt = [*data.draw(st.lists(soup.map(system), max_size=1)), user(data.draw(soup))]
    steps = [
        (data.draw(actions(dialect)), data.draw(st.lists(soup, max_size=3)), data.draw(st.none() | soup))
        for _ in range(turns)
    ]
    so_far, asked = play(renderer, prompt, steps, data.draw(st.integers(0, 99)))
    check(renderer, so_far, asked, [text for _, results, _ in steps for text in results])
    assert renderer.teach(replace_ids(so_far))[0].token_ids[:5] == so_far.sequences()[0].token_ids[:5]


def replace_ids(so_far: Trajectory) -> Trajectory:
    """The same episode as somebody without a tokenizer would have recorded it."""
    return Trajectory(task=so_far.task, tools=so_far.tools, steps=[replace(s, tokens=None) for s in so_far.steps])


def kind(family: str, dialect: str) -> str:
    return "gpt-oss" if family == "gpt-oss" else dialect


@pytest.mark.parametrize(("family", "dialect"), PAIRS)
@settings(relaxed, max_examples=6)
@given(data=st.data())
def test_nothing_breaks(family: str, dialect: str, data: st.DataObject) -> None:
    some_episode(renderer_of(family, dialect), data, kind(family, dialect), data.draw(st.integers(1, 3)))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "dialect"), PAIRS)
@settings(relaxed, max_examples=200)
@given(data=st.data())
def test_nothing_breaks_in_a_deeper_search(family: str, dialect: str, data: st.DataObject) -> None:
    some_episode(renderer_of(family, dialect), data, kind(family, dialect), data.draw(st.integers(1, 5)))


QUICK = [("qwen3", "hermes"), ("gemma3", "inline"), ("gpt-oss", "native")]
ONE_CALL: dict[str, tuple[str, dict[str, Any]]] = {
    "search-r1": ("search", {"query": "q"}),
    "deepmmsearch": ("search", {"query": "q"}),
    "mmsearch-r1": ("image_search", {}),
    "vilasr": ("path_tracer", {"items": BOXES[0]}),
    "chartsketcher": ("sketch", {"script": "delete top"}),
    "conan": ("clips", {"clips": ["00:00:01-00:00:09"]}),
    **dict.fromkeys(("inline", "tool-star", "deepeyes-v2"), ("python", {"code": "print(1)"})),
}


@pytest.mark.parametrize(
    ("family", "dialect"),
    [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS if pair not in QUICK)],
)
def test_a_hundred_and_twenty_eight_turns_are_one_sequence(family: str, dialect: str) -> None:
    renderer = renderer_of(family, dialect)
    letters = random.Random(0)
    results = ["".join(letters.choices([*MARKUP, *string.ascii_letters], k=200)) for _ in range(128)]
    name, arguments = ONE_CALL.get(dialect, ("f", {"code": "print(1)"}))
    said = "<score>00:00:01: 4</score>" if dialect == "conan" else "So:"
    one = assistant(said, tool_calls=[call(name, **arguments)])
    so_far, asked = play(renderer, [user("go")], [(one, [text], None) for text in results], 1)
    assert len(so_far.sequences()) == 1
    check(renderer, so_far, asked, results)


@pytest.mark.parametrize("family", ["qwen3", "llama3.1", "gpt-oss"])
@pytest.mark.parametrize("thinking", ["keep", "strip", "template"])
def test_earlier_thinking_is_kept_or_dropped_by_a_recorded_fork(family: str, thinking: Any) -> None:
    renderer = Renderer(family_tokenizer(family), dialect_named("native"), thinking=thinking)
    ask = assistant(reasoning="I look.", tool_calls=[call("f", a=1)])
    steps = [(ask, ["r"], None), (assistant("One.", reasoning="hm"), [], "And?"), (assistant("Two."), [], None)]
    so_far, asked = play(renderer, [user("go")], steps, 3)
    check(renderer, so_far, asked, ["r"])
    drops = thinking == "strip" or (thinking == "template" and family != "llama3.1")
    assert [step.tokens.extends for step in so_far.steps if step.tokens] == [False, True, not drops]
    assert ("I look." in renderer.tokenizer.decode(list(asked[2]))) != drops
    assert "I look." in renderer.tokenizer.decode(list(asked[1])), "within a round of tools thinking stays"
    assert len(renderer.teach(replace_ids(so_far))) == 1 + drops


@pytest.mark.parametrize(
    ("family", "dialect", "prefix"),
    [
        ("qwen3", "hermes", "<think>\n"),
        ("qwen2.5", "inline", "[Easy]"),
        ("gpt-oss", "native", "<|channel|>final<|message|>"),
    ],
)
def test_a_forced_prefix_is_in_the_record_and_carries_no_loss(family: str, dialect: str, prefix: str) -> None:
    renderer = Renderer(family_tokenizer(family), dialect_named(dialect), prefix=prefix)
    delta = renderer.start([user("2 + 2?")], [])
    forced = [delta.ids[span.start : span.end] for span in delta.spans if span.source == "forced"]
    assert [renderer.tokenizer.decode(list(ids)) for ids in forced] == [prefix]
    rest = {"<think>\n": "two\n</think>\n\n4", "[Easy]": " 4"}.get(prefix, "4")
    said = renderer.parse(renderer.encoder.ids((quoted(rest),)), [])
    expected = {"<think>\n": assistant("4", reasoning="two"), "[Easy]": assistant("[Easy] 4")}.get(
        prefix, assistant("4")
    )
    assert said == expected
    task = Task(id="t", prompt=(user("2 + 2?"),))
    (row,) = renderer.teach(Trajectory(task=task, steps=[Step(observation=task.prompt, action=said)]))
    shown = [i for i, source in zip(row.token_ids, row.sources, strict=True) if source == "forced"]
    assert renderer.tokenizer.decode(shown) == prefix
    trained = [i for i, kept in zip(row.token_ids, row.loss_mask, strict=True) if kept]
    assert renderer.encoder.text(trained[:-1]) == rest


def test_spans_join_and_leave_out_nothing() -> None:
    delta = renderer_of("qwen3", "hermes").start([system("a"), user("b")], [named("f")])
    assert delta.spans == (Span(start=0, end=len(delta.ids), source="prompt"),)


@pytest.mark.parametrize(
    "text", ["<think>\nnever closed", "<think>", "<tool_call>{", '[TOOL_CALLS]f[ARGS]{"a"', "BEGIN\nx"]
)
@pytest.mark.parametrize("family", NATIVE)
def test_what_was_never_finished_is_read_without_raising(family: str, text: str) -> None:
    renderer = renderer_of(family, "native")
    parts = renderer._parts_of(text)  # pyright: ignore[reportPrivateUsage]
    said = renderer.parse(renderer.encoder.ids(parts), [])
    assert said.role == "assistant"
    assert all((c.arguments is None) == (c.error is not None) for c in said.tool_calls)
