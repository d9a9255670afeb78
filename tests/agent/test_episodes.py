"""Many episodes at once: what is not in the rollout's own tests."""

from __future__ import annotations

import asyncio

import pytest
from played import TASK, one

from agent import ScriptedSampler
from agent.episodes import episodes, jobs
from envs import Rubric, ToolEnv, assistant
from envs.task import Taskset


def test_a_result_that_comes_as_ctrl_c_does_is_no_error_and_at_any_other_time_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The moment itself is a few instructions long; what the loop says of it then is what is said here."""

    def say(message: str) -> None:
        late = asyncio.InvalidStateError("invalid state")
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": late})

    async def main() -> None:
        taskset = Taskset(
            name="one", tasks=(TASK,), env=lambda task: ToolEnv(task=task), rubric=Rubric(rewards={"one": (one, 1.0)})
        )
        mine = asyncio.current_task()
        assert mine is not None
        async for _ in episodes(taskset, jobs([TASK]), ScriptedSampler([assistant("x")])):
            say("before")
            mine.cancel()
            say("while it is stopped")
            mine.uncancel()
        mine.cancel()
        say("after")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert caplog.messages == ["before", "after"]
