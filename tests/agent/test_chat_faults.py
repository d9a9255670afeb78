"""ChatSampler and servers that storm, hang, die or never end: waited out, or the episode ends as data."""

from __future__ import annotations

import time

import pytest
from chat_client import play
from chat_server import ChatServer, Say

from agent import SamplingParams
from envs import Stop


@pytest.mark.parametrize("stream", [False, True])
def test_overload_is_waited_out_as_long_as_the_server_says(stream: bool) -> None:
    busy = Say(status=429, error={"message": "slow down"}, headers={"Retry-After": "1"})
    with ChatServer(busy, Say(status=500), Say(text="Here.")) as server:
        t = play(server, stream=stream)
    assert t.answer == "Here."
    assert len(server.requests) == 3
    assert server.times[1] - server.times[0] >= 1.0


def test_a_server_that_stays_broken_ends_the_episode_as_an_error() -> None:
    with ChatServer(Say(status=500, error={"message": "CUDA out of memory"}), repeat=True) as server:
        t = play(server, max_retries=1)
    assert (t.stop, len(server.requests)) == (Stop.ERROR, 2)
    assert t.error is not None and "CUDA out of memory" in t.error.splitlines()[-1]


@pytest.mark.parametrize("stream", [False, True])
def test_a_hung_server_is_given_up_after_the_time_out_not_after_the_retries(stream: bool) -> None:
    with ChatServer(Say(wait_s=30)) as server:
        started = time.monotonic()
        t = play(server, stream=stream, timeout_s=0.5)
        assert time.monotonic() - started < 5
    assert t.stop is Stop.ERROR
    assert t.error is not None and t.error.strip().splitlines()[-1].endswith("did not answer within 0.5 seconds")


@pytest.mark.parametrize("pieces", [0, 2])
def test_a_stream_that_breaks_off_is_an_error_and_never_an_answer(pieces: int) -> None:
    with ChatServer(Say(text="The answer is 42.", cut_after=pieces)) as server:
        t = play(server, stream=True, max_retries=0)
    assert t.stop is Stop.ERROR and t.steps == []


@pytest.mark.parametrize("cut", [0, 1, 60])
def test_a_server_that_dies_over_a_whole_reply_ends_the_episode_as_an_error(cut: int) -> None:
    with ChatServer(Say(text="The answer is 42.", cut_after=cut)) as server:
        t = play(server, max_retries=0)
    assert t.stop is Stop.ERROR and t.steps == []
    assert t.error is not None and "closed the connection before the reply was finished" in t.error


ENDLESS = {
    "text": b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % (b"x" * 60_000),
    "nothing": b'data: {"choices": []}\n\n' * 4096,
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_stream_that_never_ends_is_given_up(kind: str) -> None:
    with ChatServer(Say(text="The", endless=ENDLESS[kind])) as server:
        t = play(server, stream=True, params=SamplingParams(max_tokens=8))
    assert t.stop is Stop.ERROR and t.error is not None and "characters, and no end" in t.error


def test_a_stream_that_only_says_that_it_lives_is_given_up_after_the_time_out() -> None:
    with ChatServer(Say(text="The", endless=b": ping\n\n")) as server:
        t = play(server, stream=True, max_retries=0, timeout_s=0.3)
    assert t.stop is Stop.ERROR and t.error is not None and "did not answer within 0.3 seconds" in t.error


@pytest.mark.parametrize("finish", ["content_filter", "abort"])
def test_a_reply_that_the_server_cut_is_an_error(finish: str) -> None:
    with ChatServer(Say(text="I", finish=finish)) as server:
        t = play(server)
    assert t.stop is Stop.ERROR and t.error is not None and finish in t.error
