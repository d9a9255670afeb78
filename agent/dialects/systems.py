"""The inline tags and Hermes variants of published systems: their tags, where results go, what they say of bad calls.

Tool names are ours where a paper leaves them open: `python`, `search`, `image_search`.
"""

from __future__ import annotations

from agent.dialects.hermes import Hermes
from agent.dialects.inline import PYTHON, InlineTags, Tag

INVALID_SEARCH = (
    "My previous action is invalid. If I want to search, I should put the query between <search> and </search>. "
    "If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again."
)
"""Search-R1's own sentence (Apache-2.0, search_r1/llm_agent/generation.py): a published checkpoint knows it."""


def tool_star() -> InlineTags:
    """Tool-Star (arXiv 2505.16410): `<search>`, `<python>`; results of both in `<result>`."""
    around = {"result": "result", "before": " <result>\n", "after": "\n</result>", "pad": ""}
    search = Tag(tool="search", call="search", argument="query", **around)
    python = Tag(tool="python", call="python", argument="code", **around)
    return InlineTags((search, python), name="tool-star", thinks=True)


def search_r1() -> InlineTags:
    """Search-R1 (arXiv 2503.09516): `<search>`, answered in `<information>`; neither call nor answer is corrected."""
    search = Tag(
        tool="search",
        call="search",
        result="information",
        argument="query",
        pad="",
        before="\n\n<information>",
        after="</information>\n\n",
    )
    return InlineTags((search,), name="search-r1", correction=INVALID_SEARCH, answer="answer", thinks=True)


def deepmmsearch() -> InlineTags:
    """DeepMMSearch-R1 (arXiv 2510.12801): `<text_search>`, and `<img_search>` of the whole image or of what it says."""
    text = Tag(tool="search", call="text_search", result="information", argument="query", pad="")
    whole = Tag(tool="image_search", call="img_search", result="information", literal="<img>", pad="")
    part = Tag(tool="image_search", call="img_search", result="information", argument="query", pad="")
    return InlineTags((text, whole, part), name="deepmmsearch")


def mmsearch_r1() -> InlineTags:
    """MMSearch-R1: `<search><img></search>` looks the image up, `<text_search>` searches."""
    image = Tag(tool="image_search", call="search", result="information", literal="<img>", pad="")
    text = Tag(tool="search", call="text_search", result="information", argument="query", pad="")
    return InlineTags((image, text), name="mmsearch-r1")


def atf() -> InlineTags:
    """ATF (arXiv 2510.06857): JSON in `<tool_calls>`, answered in `<tool_results>`."""
    return InlineTags((Tag(tool=None, call="tool_calls", result="tool_results"),), name="atf")


def deepeyes_v2() -> InlineTags:
    """DeepEyesV2 (arXiv 2511.05271): `<code>` and Hermes JSON side by side; results are user turns."""
    code = Tag(
        tool="python",
        call="code",
        result="",
        argument="code",
        fence="python",
        before="Code execution result: ",
        after="",
    )
    other = Tag(
        tool=None, call="tool_call", result="tool_response", before="<tool_response>\n", after="\n</tool_response>"
    )
    return InlineTags((code, other), name="deepeyes-v2", in_turn=False, thinks=True)


def deepeyes() -> Hermes:
    """DeepEyes (arXiv 2505.14362): Hermes; a bad call is answered "Error: ..."."""
    return Hermes("deepeyes", correction="Error: {problem}")


def geovista() -> Hermes:
    """GeoVista (arXiv 2511.15705): Hermes; a bad call is answered "Tool call error: ..."."""
    return Hermes("geovista", correction="Tool call error: {problem}")


__all__ = [
    "PYTHON",
    "atf",
    "deepeyes",
    "deepeyes_v2",
    "deepmmsearch",
    "geovista",
    "mmsearch_r1",
    "search_r1",
    "tool_star",
]
