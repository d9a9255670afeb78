"""A running OpenEnv server as a taskset: its episodes by seed, its action as a tool, its rewards as the score.

`openenv:http://127.0.0.1:8000` asks the server at `/schema` what an action is, and plays each episode over a WebSocket
connection of its own at `/ws`, which gives it a world of its own there: `reset` with the episode's seed, then a `step`
for each call of the tool, until the observation says `done`. The model is shown observations as JSON.

Differences from OpenEnv's own client: a state is never asked for, and environments that offer MCP tools are played
through their action (a call names the MCP tool and its arguments).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, final

from envs.env import Context, Env, Reply
from envs.message import Message, answer_to, system, user
from envs.rubric import Rubric
from envs.task import Task, Taskset
from envs.trajectory import Trajectory
from tools.content import Text
from tools.errors import ConfigError
from tools.tool import Tool, ToolError, ToolResult

ACT = "act"
_HIDDEN = ("metadata",)
"""Fields of an action that are for the server's own use."""


def openenv_taskset(url: str) -> Callable[..., Taskset]:
    """The function behind `openenv:URL`."""

    def taskset(n: int = 10, seed: int = 0, instructions: str = "") -> Taskset:
        """`n` episodes, reset with the seeds `seed`, `seed + 1` ...; `instructions` are the system message."""
        action = _action_schema(url)
        first = (system(instructions),) if instructions else ()
        tasks = [
            Task(id=f"seed-{at}", prompt=(*first, user("The first observation comes from the environment.")))
            for at in range(seed, seed + n)
        ]
        return Taskset(
            name=f"openenv:{url}",
            tasks=tasks,
            env=lambda task: OpenEnv(task, url, action),
            rubric=Rubric(rewards={"return": (total_reward, 1.0), "last_reward": (last_reward, 0.0)}),
        )

    return taskset


async def total_reward(env: Env, trajectory: Trajectory) -> float:
    """The sum of all rewards of the episode."""
    return sum(_rewards(trajectory))


async def last_reward(env: Env, trajectory: Trajectory) -> float:
    """The last reward of the episode; 0 where there was none."""
    return (_rewards(trajectory) or [0.0])[-1]


def _rewards(trajectory: Trajectory) -> list[float]:
    found = [call.result.data.get("reward") for call in trajectory.calls]
    return [float(reward) for reward in found if reward is not None]


@final
class OpenEnv(Env):
    """One episode on an OpenEnv server."""

    def __init__(self, task: Task, url: str, action: Mapping[str, Any]) -> None:
        self.task = task
        self._url = url
        self._socket: Any = None
        about = str(action.get("description") or "Act in the environment.")
        self.tools = (Tool(name=ACT, description=about, parameters=dict(action), fn=self._act),)

    async def start(self) -> tuple[Message, ...]:
        connect = _websockets().connect
        try:
            self._socket = await connect(f"ws{self._url.removeprefix('http').rstrip('/')}/ws", max_size=None)
        except OSError as error:
            raise _nobody(self._url, error) from error
        begun = await self._ask("reset", {"seed": int(self.task.id.rpartition("-")[2])})
        return (*self.task.prompt[:-1], user(_shown(begun["observation"])))

    async def step(self, action: Message, ctx: Context) -> Reply:
        answers: list[Message] = []
        for call in action.tool_calls:
            result = await ctx.call(call)
            answers.append(answer_to(call, result))
            if result.stop:
                return Reply(messages=tuple(answers), done=True)
        return Reply(messages=tuple(answers), done=not action.tool_calls)

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def _act(self, **arguments: Any) -> ToolResult:
        found = await self._ask("step", arguments)
        data = {"reward": found.get("reward")}
        return ToolResult(content=(Text(text=_shown(found["observation"])),), stop=bool(found.get("done")), data=data)

    async def _ask(self, kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises `ToolError` for an action that the environment refuses, `RuntimeError` for anything else it says."""
        await self._socket.send(json.dumps({"type": kind, "data": dict(data)}))
        reply = json.loads(await self._socket.recv())
        if reply.get("type") == "observation":
            return reply["data"]
        said = str(reply.get("data", {}).get("message", reply))
        raise ToolError(said) if kind == "step" else RuntimeError(f"{self._url} refused to reset: {said}")


def _action_schema(url: str) -> dict[str, Any]:
    """What an action is, from the server. Raises `ConfigError` where nobody says so."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"openenv:{url} is no address", hint="openenv:http://127.0.0.1:8000")
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/schema", timeout=30) as reply:
            schema = dict(json.load(reply)["action"])
    except (OSError, urllib.error.URLError) as error:
        raise _nobody(url, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{url}/schema is no answer of an OpenEnv server ({type(error).__name__})") from error
    properties = {key: value for key, value in dict(schema.get("properties") or {}).items() if key not in _HIDDEN}
    return {**schema, "type": "object", "properties": properties}


def _shown(observation: Any) -> str:
    return observation if isinstance(observation, str) else json.dumps(observation, ensure_ascii=False)


def _nobody(url: str, error: Exception) -> ConfigError:
    return ConfigError(f"no OpenEnv server answers at {url} ({error})", hint="is it running, and is the address right?")


def _websockets() -> Any:
    try:
        import websockets
    except ImportError as error:
        raise ConfigError("an OpenEnv server is spoken to by websockets", hint="pip install websockets") from error
    return websockets
