"""A real model behind the chat API, in a process of its own, and as unreliable as it is told to be.

    python tests/servers/model_server.py tiny --port 8123 --faults

It prints its address when the model is loaded. Requests are answered one at a time, so that an answer depends on the
conversation and the seed alone, whatever else is asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from chat_server import ChatServer, Say

from agent.chat_format import read_call
from agent.models import sampler_for
from agent.sampler import SamplingParams
from envs import Message, Task, Trajectory
from tools import Text, Tool

HANG_S = 3600.0


def fault(number: int) -> Say | None:
    """Storms of 429 with a 503 now and then, garbage in place of JSON, and now and then an answer that never comes."""
    if number % 60 in range(20, 40) and number % 3:
        return Say(status=429, error={"message": "slow down"}, headers={"retry-after": "0"})
    if number % 31 == 30:
        return Say(status=503, error={"message": "overloaded"})
    if number % 13 == 12:
        return Say(body=["<html>gateway</html>", '{"choices": [{"mess', '{"choices": null}', "[]", ""][number % 5])
    return Say(wait_s=HANG_S) if number % 90 == 45 else None


class ModelServer(ChatServer):
    """Answers with what `spec` says: a name or folder as `evals run --model` takes it."""

    def __init__(self, spec: str, *, dialect: str | None = None, faults: bool = False, port: int = 0) -> None:
        super().__init__(model="local", port=port)
        self.sampler = sampler_for(spec, dialect=dialect, threads=1)
        self.faults = faults
        self.asked = 0
        self._model = threading.Lock()

    def next_reply(self, request: dict[str, Any], headers: Mapping[str, str]) -> Say:
        with self._lock:
            number, self.asked = self.asked, self.asked + 1
        broken = fault(number) if self.faults else None
        if broken is not None:
            return broken
        with self._model:
            return asyncio.run(self.answer(request))

    async def answer(self, request: Mapping[str, Any]) -> Say:
        """What the model says next."""
        said = tuple(message_of(item) for item in request["messages"])
        tools = tuple(tool_of(item["function"]) for item in request.get("tools") or ())
        asked = Trajectory(task=Task(id="chat", prompt=said), tools=tools, final=said)
        params = SamplingParams(
            max_tokens=request["max_tokens"], temperature=request["temperature"], seed=request["seed"]
        )
        step = await self.sampler.sample(asked, said, params)
        tokens = step.tokens
        assert tokens is not None
        return Say(
            text=step.action.text,
            reasoning=step.action.reasoning or "",
            calls=[(call.name or "call", call.raw) for call in step.action.tool_calls],
            finish="length" if step.finish == "length" else None,
            usage={"prompt_tokens": len(tokens.added), "completion_tokens": len(tokens.completion)},
        )


def message_of(item: Mapping[str, Any]) -> Message:
    """A message of the chat API as ours."""
    calls = tuple(
        read_call(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in item.get("tool_calls") or ()
    )
    content = (Text(text=item["content"]),) if item.get("content") else ()
    return Message(role=item["role"], content=content, tool_calls=calls, tool_call_id=item.get("tool_call_id"))


def tool_of(function: Mapping[str, Any]) -> Tool:
    """A tool that is described, and not run here."""
    return Tool(name=function["name"], description=function["description"], parameters=function["parameters"], fn=str)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dialect")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", action="store_true")
    asked = parser.parse_args()
    with ModelServer(asked.model, dialect=asked.dialect, faults=asked.faults, port=asked.port) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
