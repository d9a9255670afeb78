"""Programs in the sandbox: files in and out, limits, and what they cannot reach; in each tier of this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tools.errors import ConfigError
from tools.python.command import CommandResult, run_command
from tools.python.isolation import Tier
from tools.python.session import SessionLimits

LIMITS = SessionLimits(timeout_s=120, memory_mb=512, disk_mb=16, output_mb=1, processes=32)


def run(tier: Tier, *argv: str, limits: SessionLimits = LIMITS, **options: Any) -> CommandResult:
    return asyncio.run(run_command(argv, tier=tier, limits=limits, **options))


def sh(tier: Tier, script: str, **options: Any) -> CommandResult:
    return run(tier, "sh", "-c", script, **options)


def test_files_go_in_and_come_out_with_what_was_written_and_the_status(tier: Tier) -> None:
    result = sh(
        tier,
        "tr a-z A-Z < in/text > out.txt; cat; echo problem >&2; echo $GREETING; exit 3",
        files={"in/text": "hello"},
        stdin="given\n",
        environment={"GREETING": "good day"},
        keep=["*.txt", "missing", "in/**"],
    )
    assert (result.text, result.status, result.ending) == ("given\nproblem\ngood day\n", 3, "ok")
    assert result.files == {"out.txt": b"HELLO", "in/text": b"hello"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_a_file_that_is_too_large_to_hand_back_is_counted(tier: Tier) -> None:
    limits = SessionLimits(timeout_s=120, disk_mb=64)
    result = sh(tier, "head -c 22000000 /dev/zero > large; echo > small", keep=["large", "small"], limits=limits)
    assert (list(result.files), result.note) == (["small"], "(1 file(s) beyond 20 MiB were left out)")


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ([], {}),
        (["true", "a\0b"], {}),
        (["true", "\ud800"], {}),
        (["true"], {"environment": {"A=B": ""}}),
        (["true"], {"stdin": bytes(2**26 + 1)}),
    ],
)
def test_what_no_program_can_be_given_is_refused(argv: list[str], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        asyncio.run(run_command(argv, **options))


def test_a_compiler_makes_a_program_that_another_command_runs(tier: Tier) -> None:
    source = '#include <stdio.h>\nint main(void) { printf("%d\\n", 6 * 7); return 0; }\n'
    built = run(tier, "cc", "-o", "answer", "answer.c", files={"answer.c": source}, keep=["answer"])
    assert built.status == 0, built
    ran = sh(tier, "chmod +x answer && ./answer", files={"answer": built.files["answer"]})
    assert (ran.text, ran.status) == ("42\n", 0)
    wrong = run(tier, "cc", "answer.c", files={"answer.c": "int main(void) { return missing; }"})
    assert wrong.status == 1
    assert "missing" in wrong.text


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="no iverilog here")
def test_a_circuit_is_simulated(tier: Tier) -> None:
    design = 'module t; initial begin $dumpfile("w.vcd"); $dumpvars; $display("%0d", 6 * 7); end endmodule\n'
    result = sh(tier, "iverilog -o t t.v && vvp t", files={"t.v": design}, keep=["w.vcd"])
    assert "42\n" in result.text
    assert result.files["w.vcd"].startswith(b"$date")


@pytest.mark.skipif(shutil.which("coqc") is None, reason="no coqc here")
def test_a_proof_is_checked(tier: Tier) -> None:
    right = run(tier, "coqc", "p.v", files={"p.v": "Theorem t : 1 + 1 = 2. Proof. reflexivity. Qed."})
    wrong = run(tier, "coqc", "p.v", files={"p.v": "Theorem t : 1 + 1 = 3. Proof. reflexivity. Qed."})
    assert (right.status, wrong.status) == (0, 1)


def test_each_limit_stops_a_program_and_says_so(tier: Tier) -> None:
    def small(**limits: Any) -> SessionLimits:
        return SessionLimits(**{"timeout_s": 300, "disk_mb": 8, "output_mb": 1, "grace_s": 60, **limits})

    late = sh(tier, "echo begun; echo kept > f; sleep 600", limits=small(timeout_s=1), keep=["f"])
    assert (late.ending, late.status, late.text) == ("timeout", None, "begun\n")
    assert late.files == {"f": b"kept\n"}
    assert late.note == "The program ran longer than 1 seconds and was stopped."
    spun = sh(tier, "while :; do :; done", limits=small(cpu_s=1))
    assert spun.note == "The program used its 1 seconds of processor time and was stopped."
    flood = sh(tier, "yes", limits=small())
    assert flood.note == "The program wrote more than 1 MB and was stopped."
    full = sh(tier, "head -c 50000000 /dev/zero > big && echo written", limits=small())
    assert "written" not in full.text
    crowd = sh(
        tier, "for i in $(seq 60); do sleep 300 & done 2>/dev/null; echo started; sleep 300", limits=small(processes=16)
    )
    assert crowd.ending == "processes" or "started" not in crowd.text


def test_a_program_reaches_neither_files_nor_network_nor_processes_of_this_machine(tier: Tier, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("the decoy")
    secret.chmod(0o644)
    read = sh(
        tier, f"cat {secret}; ls {tmp_path.parent}; echo x > {tmp_path}/new; cp /bin/sh own; ./own -c 'cat {secret}'"
    )
    assert "the decoy" not in read.text
    assert not (tmp_path / "new").exists()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        bash = run(tier, "bash", "-c", f"echo hi > /dev/tcp/127.0.0.1/{port} && echo connected")
        assert "connected" not in bash.text
        with pytest.raises(TimeoutError):
            server.accept()
    signal = sh(tier, f"kill -0 {os.getpid()} && echo reached; cat /proc/{os.getpid()}/environ; env")
    assert "reached" not in signal.text
    os.environ["TOOLWEAVE_DECOY"] = "decoy-of-the-environment"
    try:
        assert "decoy-of-the-environment" not in sh(tier, f"env; tr '\\0' '\\n' < /proc/{os.getpid()}/environ").text
    finally:
        del os.environ["TOOLWEAVE_DECOY"]


def test_a_program_outside_usr_is_found_where_its_folder_is_named(tier: Tier) -> None:
    with pytest.raises(ConfigError, match="'no-such-program' cannot be started"):
        run(tier, "no-such-program")
    home = Path("/opt") if os.access("/opt", os.W_OK) else Path.home()
    folder = home / f"toolweave-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        program = folder / "greet"
        program.write_text("#!/bin/sh\necho greetings\n")
        program.chmod(0o755)
        with pytest.raises(ConfigError, match="cannot be started"):
            run(tier, str(program))
        assert run(tier, str(program), programs=[str(folder)]).text == "greetings\n"
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["/etc/x", "../x", ""])
def test_files_stay_in_the_working_directory(name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a file"):
        asyncio.run(run_command(["true"], files={name: "x"}))
