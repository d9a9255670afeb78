"""64 visual episodes at once on photographs of 5000 x 3000 stay within the memory that is declared."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("count", "progressive"), [(64, False), (16, True)])
def test_many_episodes_on_large_photographs_stay_within_512_megabytes(tmp_path: Path, count: int, progressive: bool):
    coarse = PIL.Image.frombytes("RGB", (500, 300), random.Random(0).randbytes(500 * 300 * 3))
    photo = coarse.resize((5000, 3000), PIL.Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.jpg", quality=85, progressive=progressive)
    program = Path(__file__).with_name("memory_program.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(count), "512"],
        capture_output=True,
        text=True,
        check=False,
        timeout=2900,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["pictures"] == count * 4 + count // 8 and seen["held"] <= 512
    assert seen["grown"] <= 512, seen
