"""Published inline data: every character has a writer, and the row it becomes trains on the model's alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dialect import misread
from agent.dialects import InlineTags, dialect_named
from agent.inline_import import import_inline, split_inline
from agent.renderer import Renderer
from agent.tiny import tiny_tokenizer
from envs import user
from tools import ConfigError, tool


@tool
def python(code: str) -> str:
    """Run Python code."""
    return code


# The shape of ReTool's published rows: one assistant text, its calls fenced, results between tags of their own.
RETOOL = (
    "Let me compute it.\n<code>\n```python\nprint(37 * 48)\n```\n</code>\n<interpreter>\n1776\n</interpreter>\n"
    "Now half of it.\n<code>\n```python\nprint(1776 / 2)\n```\n</code>\n<interpreter>\n888.0\n</interpreter>\n"
    "<answer>\n\\boxed{888}\n</answer>"
)


def test_a_retool_text_becomes_calls_results_and_an_answer() -> None:
    imported = import_inline([user("Half of 37 * 48?")], RETOOL, [python], InlineTags())
    episode = imported.trajectory
    assert [call.call.arguments for call in episode.calls] == [{"code": "print(37 * 48)"}, {"code": "print(1776 / 2)"}]
    assert [call.result.content[0].text for call in episode.calls] == ["1776", "888.0"]  # type: ignore[union-attr]
    assert episode.answer == "<answer>\n\\boxed{888}\n</answer>"
    assert [span.source for span in imported.spans] == ["model", "tool", "model", "tool", "model"]


def test_its_row_is_one_turn_in_which_the_results_carry_no_loss() -> None:
    imported = import_inline([user("Half of 37 * 48?")], RETOOL, [python], InlineTags())
    renderer = Renderer(tiny_tokenizer(), InlineTags())
    (row,) = renderer.teach(imported.trajectory)
    shown = {
        source: renderer.tokenizer.decode([i for i, s in zip(row.token_ids, row.sources, strict=True) if s == source])
        for source in ("model", "tool")
    }
    assert "1776\n" in shown["tool"] and "888.0" in shown["tool"] and "print" not in shown["tool"]
    assert "print(37 * 48)" in shown["model"] and "<interpreter>" not in shown["model"]
    whole = renderer.tokenizer.decode(list(row.token_ids))
    assert whole.endswith(RETOOL + "<|im_end|>"), "continued turns are joined, and the text is the published one"


pieces = st.sampled_from(
    ["<code>", "</code>", "<interpreter>", "</interpreter>", "\n", "x", "```python\n", "é 🙂", " "]
)


@settings(max_examples=200)
@given(st.lists(pieces, max_size=14).map("".join))
def test_spans_cover_every_character_once_or_the_text_is_refused(text: str) -> None:
    try:
        spans = split_inline(text, InlineTags())
    except ConfigError as error:
        assert "follows no call" in str(error)
        return
    assert "".join(text[span.start : span.end] for span in spans) == text
    assert all(span.start < span.end for span in spans)


def test_a_result_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a <interpreter> at character 5 follows no call"):
        split_inline("I say<interpreter>\n3\n</interpreter>", InlineTags())


def test_search_data_is_split_by_its_own_tags() -> None:
    dialect = dialect_named("search-r1")
    assert isinstance(dialect, InlineTags)
    text = "<search>who</search>\n\n<information>Doc 1</information>\n\n<answer>me</answer>"
    spans = split_inline(text, dialect)
    assert [text[s.start : s.end].strip() for s in spans] == [
        "<search>who</search>",
        "<information>Doc 1</information>",
        "<answer>me</answer>",
    ]


def test_a_call_that_was_never_run_stays_the_models_words_and_takes_nobodys_result() -> None:
    text = "I could <code>1</code> or\n<code>2</code><interpreter>2</interpreter> It is <code>3</code> done."
    first, last = import_inline([user("?")], text, [python], InlineTags()).trajectory.steps
    assert first.action.text == "I could <code>1</code> or"
    assert [(done.call.arguments, done.result.text) for done in first.calls] == [({"code": "2"}, "2")]
    assert last.action.text == " It is <code>3</code> done." and not last.action.tool_calls
    assert misread(InlineTags(), first.action, [python]) == "it would end at its first </code>"
