"""Judges, ablations, scoring again, limits of runs: through the command, against a real local server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answering import AnsweringServer
from chat_server import Say

from agent.cli import run
from envs.log import read_log
from evals.__main__ import cli

TASKS = '''
from pathlib import Path
from envs import Rubric, Task, Taskset, ToolEnv, assistant, user
from tools import tool
from tools.tool import ToolCall

HERE = Path(__file__).parent

def capitals():
    """Half of the golds are right in other words, so that a rule which compares letters misses them."""
    async def exact(env, trajectory):
        wanted = "wrong" if (HERE / "strict").exists() else env.task.answer
        return float(trajectory.answer == wanted)

    said = ["Paris", "It is the city of Rome.", "Oslo", "Bonn"]
    right = ["Paris", "Rome", "Oslo", "Berlin"]
    tasks = [Task(id=f"c{i}", prompt=(user(f"Capital {i}?"),), answer=right[i], gold=(assistant(said[i]),))
             for i in range(4)]
    return Taskset(name="capitals", tasks=tasks, env=lambda task: ToolEnv(task=task),
                   rubric=Rubric(rewards={"exact": (exact, 1.0)}))

def lookups():
    """c0 and c1 call a tool and are right; without it c1 is right all the same."""
    @tool
    def look(key: str) -> str:
        "Look it up."
        return f"value of {key}"

    async def right(env, trajectory):
        seen = any(call.outcome == "ok" for call in trajectory.calls)
        return float(env.task.id != "c2" and (seen or env.task.id != "c0"))

    call = ToolCall(id="x", name="look", raw="", arguments={"key": "k"})
    golds = [(assistant(tool_calls=(call,)), assistant("done")), (assistant(tool_calls=(call,)), assistant("done")),
             (assistant("no"),), (assistant("yes"),)]
    tasks = [Task(id=f"c{i}", prompt=(user("?"),), answer="", gold=gold) for i, gold in enumerate(golds)]
    return Taskset(name="lookups", tasks=tasks, env=lambda task: ToolEnv(task=task, tools=(look,)),
                   rubric=Rubric(rewards={"right": (right, 1.0)}))
'''


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    (tmp_path / "tasks.py").write_text(TASKS)
    return str(tmp_path / "tasks.py")


def evals(*argv: object) -> int:
    return run(cli, [str(argument) for argument in argv])


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


class JudgeServer(AnsweringServer):
    """Finds an answer correct where the right one stands in it."""

    def next_reply(self, request: dict[str, Any], headers: Any) -> Say:
        with self._lock:
            number, self.asked = self.asked, self.asked + 1
        text = request["messages"][-1]["content"]
        right, given = (text.split(f"<{tag}>\n")[1].split(f"\n</{tag}>")[0] for tag in ("right_answer", "given_answer"))
        verdict = "CORRECT" if right in given else "INCORRECT"
        return self.fault(number) or Say(text=f"It claims {given}.\n{verdict}")


def judged(tasks: str, out: Path, server: JudgeServer, *more: object) -> int:
    judge = ("--judge", "openai:tiny", "--judge-url", server.url, "--judge-price", "1,2", "--max-retries", 0)
    return evals("run", f"{tasks}:capitals", "-m", "gold", "--out", out, "-q", *judge, *more)


def test_a_judge_is_asked_where_the_rule_says_no_and_counted(tasks: str, tmp_path: Path) -> None:
    out = tmp_path / "j"
    with JudgeServer() as server:
        assert judged(tasks, out, server, "--price", "0,0") == 0
        assert server.asked == 2  # Rome in other words, and Bonn
        found = results(out)
        assert (found["metric"], found["accuracy"], found["scores"]["exact"]) == ("judged", 0.75, 0.5)
        # two questions at 11 tokens in and 7 out, at 1 and 2 dollars a million
        assert found["tokens"]["judge"] == 36 and found["cost"] == pytest.approx(2 * (11 + 2 * 7) / 1e6)
        logged = {t.task.id: t.info.get("judge") for t in read_log(out / "samples.jsonl")}
        assert logged["c0"] is None and logged["c1"]["verdict"] == "CORRECT" and "It claims" in logged["c1"]["raw"]
        assert judged(tasks, out, server, "--price", "0,0") == 0 and server.asked == 2
        assert judged(tasks, tmp_path / "all", server, "--judge-mode", "llm") == 0 and server.asked == 6


def test_a_judge_that_fails_costs_no_second_play(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, down = tmp_path / "j", True
    with JudgeServer(lambda number: Say(status=500, error={"message": "asleep"}) if down else None) as server:
        assert judged(tasks, out, server) == 2
        assert "2 of 4 samples ended in an error; the first: ServerError" in capsys.readouterr().err
        played = {t.task.id: t.seconds for t in read_log(out / "samples.jsonl")}
        down = False
        assert judged(tasks, out, server) == 0
    last = {t.task.id: t for t in read_log(out / "samples.jsonl")}
    assert {id: t.seconds for id, t in last.items()} == played  # to the bit: not played again
    assert results(out)["accuracy"] == 0.75 and last["c1"].reward == 0.0


def test_a_judge_without_a_verdict_is_an_error_of_ours(tasks: str, tmp_path: Path) -> None:
    with JudgeServer(lambda number: Say(text="Hard to say.")) as server:
        assert judged(tasks, tmp_path / "j", server, "--price", "0,0") == 2
        assert server.asked == 4  # each was asked twice
    found = results(tmp_path / "j")
    assert (found["errors"], found["scored"]) == (2, 2)
    # four questions at 11 tokens in and 7 out: what was asked in vain was paid for
    assert found["tokens"]["judge"] == 72 and found["cost"] == pytest.approx(4 * (11 + 2 * 7) / 1e6)


def test_scoring_again_keeps_the_old_scores_and_plays_nothing(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    assert evals("run", f"{tasks}:capitals", "-m", "gold", "--out", out, "-q") == 0
    (tmp_path / "strict").touch()
    capsys.readouterr()
    assert evals("score", out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 episodes scored again, 2 questions changed: c0, c2" in said, said
    assert results(out)["accuracy"] == 0.0
    logged = list(read_log(out / "samples.jsonl"))
    again = {t.task.id: t.info["scores_before"] for t in logged[4:]}
    assert len(logged) == 8 and again["c0"] == [{"exact": 1.0}] and again["c1"] == [{"exact": 0.0}]
    with JudgeServer() as server:
        assert evals("score", out, "--judge", "openai:tiny", "--judge-url", server.url) == 0
    assert (results(out)["metric"], results(out)["accuracy"]) == ("judged", 0.75)
    (tmp_path / "strict").unlink()
    assert evals("score", out, "--replay") == 0
    assert (results(out)["metric"], results(out)["accuracy"]) == ("exact", 0.5)


def test_an_ablation_says_which_tool_solved_items_need_no_tool(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    assert evals("run", f"{tasks}:lookups", "-m", "gold", "--out", out, "-q", "--ablate", "tools") == 0
    found = json.loads((out / "ablation.json").read_text())
    assert (found["tool_solved"], found["also_without"], found["only_with"]) == (["c0", "c1"], ["c1"], ["c0"])
    comparison = found["comparison"]
    assert (comparison["mean_b"], comparison["mean_a"], comparison["b_wins"]) == (0.75, 0.5, ["c0"])
    said = capsys.readouterr().out
    assert "1 of 2 (50.0%)" in said and "did not need their tool: c1" in said
    assert (tmp_path / "a-no-tools" / "results.json").exists()


def test_a_run_stops_at_its_cost_and_an_episode_at_its_own(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with AnsweringServer() as server:
        asked = ("run", f"{tasks}:capitals", "-m", "openai:tiny", "--base-url", server.url, "-q", "-c", 1)
        dear = ("--price", "1000000,0", "--out", tmp_path / "m")  # 11 dollars a turn
        assert evals(*asked, *dear, "--max-cost", 20) == 3
        assert "stopped by --max-cost with 2 of 4 samples" in capsys.readouterr().err
        assert results(tmp_path / "m")["cost"] == 22.0 and results(tmp_path / "m")["stopped"] == "max_cost"
        assert evals(*asked, *dear) == 0 and results(tmp_path / "m")["samples"] == 4
        assert evals(*asked, "--out", tmp_path / "n", "--max-cost", 1) == 1
        assert "needs prices" in capsys.readouterr().err
    with AnsweringServer(lambda number: Say(calls=(("look", '{"key": "k"}'),))) as server:
        asked = ("run", f"{tasks}:lookups", "-m", "openai:tiny", "--base-url", server.url, "-q")
        assert evals(*asked, "--price", "1000000,0", "--cost-limit", 25, "--out", tmp_path / "l") == 0
    assert results(tmp_path / "l")["stops"] == {"max_cost": 4} and results(tmp_path / "l")["mean_turns"] == 3
    assert results(tmp_path / "l")["truncated"] == 1.0


def test_tasks_are_chosen_by_number_id_file_and_lot(
    tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids").write_text("c2\nc0\n")
    for name, options in {
        "a": ("-n", "1-2"),
        "b": ("--ids", "c3"),
        "c": ("--ids", "@ids"),
        "d": ("--shuffle",),
    }.items():
        assert evals("run", f"{tasks}:capitals", "-m", "gold", "-q", "-c", 1, "--out", name, *options) == 0
    played = {name: [t.task.id for t in read_log(Path(name) / "samples.jsonl")] for name in "abcd"}
    assert played["a"] == ["c1", "c2"] and played["b"] == ["c3"] and played["c"] == ["c2", "c0"]
    assert sorted(played["d"]) == ["c0", "c1", "c2", "c3"]
    capsys.readouterr()
    assert evals("run", f"{tasks}:capitals", "-m", "gold", "--ids", "c9") == 1
    assert "has no task 'c9'" in capsys.readouterr().err
    assert evals("run", f"{tasks}:capitals,{tasks}:lookups", "-m", "gold", "--dry-run") == 0
    assert capsys.readouterr().out.count("4 tasks x 1") == 2


def test_a_gate_on_the_interval_lets_chance_be_chance(tasks: str, tmp_path: Path) -> None:
    asked = ("run", f"{tasks}:capitals", "-m", "gold", "-q", "--out", tmp_path / "g", "--fail-under", 0.8)
    assert evals(*asked) == 4
    assert evals(*asked, "--gate", "ci") == 0  # 2 of 4: up to 85%
    assert evals(*asked[:-1], 0.9, "--gate", "ci") == 4


def test_what_was_tried_in_vain_has_been_paid_for(tasks: str, tmp_path: Path) -> None:
    out, broken = tmp_path / "d", True

    def fault(number: int) -> Say | None:
        calls = (("look", '{"key": "k"}'),)
        return Say(status=500, error={"message": "boom"}) if broken and number == 1 else Say(calls=calls)

    with AnsweringServer(fault) as server:
        asked = ("run", f"{tasks}:lookups", "-m", "openai:tiny", "--base-url", server.url, "-q", "-c", 1, "-n", 1)
        dear = ("--price", "1000000,0", "--max-turns", 2, "--max-retries", 0, "--out", out)  # 11 dollars a turn
        assert evals(*asked, *dear) == 2 and results(out)["cost"] == 11.0
        broken = False
        assert evals(*asked, *dear, "--max-cost", 40) == 0 and results(out)["cost"] == 33.0
        assert evals(*asked[:-1], 4, *dear, "--max-cost", 40) == 3 and results(out)["cost"] == 55.0


def test_a_verdict_that_failed_was_paid_for_and_its_episode_once(tasks: str, tmp_path: Path) -> None:
    out, vague = tmp_path / "j", True
    with AnsweringServer() as player, JudgeServer(lambda number: Say(text="Hm.") if vague else None) as server:
        judge = ("--judge", "openai:tiny", "--judge-url", server.url, "--judge-price", "1000000,0")
        asked = ("run", f"{tasks}:capitals", "-m", "openai:tiny", "--base-url", player.url, "-q", "-n", 1, "--out", out)
        assert evals(*asked, *judge, "--price", "1000000,0") == 2
        assert results(out)["cost"] == 33.0  # one turn, and the judge asked twice
        vague = False
        assert evals(*asked, *judge, "--price", "1000000,0", "--max-cost", 40) == 3  # 44 are spent, nothing is left out
        assert (results(out)["cost"], results(out)["errors"]) == (44.0, 0)


def test_a_run_scored_again_without_its_judge_is_judged_again_by_its_own_command(tasks: str, tmp_path: Path) -> None:
    out = tmp_path / "j"
    with JudgeServer() as server:
        assert judged(tasks, out, server) == 0
        assert evals("score", out) == 0 and results(out)["metric"] == "exact"
        assert judged(tasks, out, server) == 0
        assert (results(out)["metric"], results(out)["accuracy"]) == ("judged", 0.75)
        assert server.asked == 2  # verdicts are kept


def test_what_a_judge_of_a_finished_run_costs_is_counted(tasks: str, tmp_path: Path) -> None:
    out = tmp_path / "s"
    assert evals("run", f"{tasks}:capitals", "-m", "gold", "--out", out, "-q") == 0
    with JudgeServer() as server:
        judge = ("--judge", "openai:tiny", "--judge-url", server.url, "--judge-price", "1,2")
        for _ in range(2):  # the second finds its verdicts kept
            assert evals("score", out, *judge) == 0
            assert results(out)["cost"] == pytest.approx(2 * (11 + 2 * 7) / 1e6)
