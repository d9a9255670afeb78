"""An episode with a `ChatServer`."""

from __future__ import annotations

import asyncio
from typing import Any

from chat_server import ChatServer

from agent import Limits, SamplingParams, rollout
from agent.chat import ChatSampler
from envs import Task, ToolEnv, Trajectory, user
from tools import Tool


def play(
    server: ChatServer,
    *tools: Tool,
    params: SamplingParams | None = None,
    limits: Limits | None = None,
    stream: bool = False,
    heard: list[Any] | None = None,
    prompt: tuple[Any, ...] = (user("What is 2 + 3?"),),
    **settings: Any,
) -> Trajectory:
    sampler = ChatSampler(settings.pop("model", "tiny"), settings.pop("base_url", server.url), **settings)
    env = ToolEnv(task=Task(id="sum", prompt=prompt), tools=tools)
    events = heard if heard is not None else [] if stream else None
    return asyncio.run(rollout(env, sampler, params, limits, on_event=None if events is None else events.append))
