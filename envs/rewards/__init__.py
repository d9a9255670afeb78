"""Rewards as formulas with a source: functions that return a `RewardFn` and say where it comes from."""

from envs.rewards.answers import correct, final_text, has_answer, retool
from envs.rewards.calls import tool_calls, tool_errors
from envs.rewards.search import geovista, mmsearch_r1, search_r1, tool_star

__all__ = [
    "correct",
    "final_text",
    "geovista",
    "has_answer",
    "mmsearch_r1",
    "retool",
    "search_r1",
    "tool_calls",
    "tool_errors",
    "tool_star",
]
