"""Data files as people have them: formats, columns, pictures, and one clear line for each thing that is wrong."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import run
from envs.find import find_taskset
from envs.row_pictures import images_of
from envs.rows import Row, files_of, read_rows
from envs.scoring.routes import is_right, shortest, write
from evals.__main__ import cli
from evals.benchmarks.adapter import without_letter
from tools import ConfigError
from tools.content import BlobStore

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TABLE = [{"id": "a", "problem": "1+1?", "solution": "2"}, {"id": "b", "problem": "2+2?", "solution": "4"}]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLWEAVE_CACHE", str(tmp_path / "cache"))


def picture(kind: str = "PNG", size: tuple[int, int] = (9, 8)) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, "red").save(buffer, format=kind)
    return buffer.getvalue()


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """What a command that fails says on stderr: no traceback, and no more than an error and a hint."""
    assert run(cli, list(arguments)) == code
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def in_every_format(folder: Path) -> list[Path]:
    files = [folder / f"rows{suffix}" for suffix in (".parquet", ".jsonl", ".json", ".csv", ".tsv")]
    pq.write_table(pa.Table.from_pylist(TABLE), files[0])
    lines(files[1], TABLE)
    files[2].write_text(json.dumps(TABLE))
    for path, comma in ((files[3], ","), (files[4], "\t")):
        path.write_text("\n".join(comma.join(row) for row in [list(TABLE[0]), *(row.values() for row in TABLE)]) + "\n")
    return files


def test_a_file_of_ones_own_runs_with_a_column_map_in_every_format(tmp_path: Path, capsys) -> None:
    for path in in_every_format(tmp_path):
        out = tmp_path / f"run-{path.suffix[1:]}"
        mapped = ["-a", "question=problem", "-a", "answer=solution", "-a", "metric=number"]
        assert run(cli, ["run", str(path), *mapped, "--model", "gold", "--out", str(out), "-q", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["accuracy"], result["scored"], result["metric"]) == (1.0, 2, "number")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"a": {"problem": "1+1?", "solution": "2"}, "b": {"problem": "2+2?", "solution": "4"}}),
        json.dumps({"version": "1", "data": TABLE}),
        "".join(json.dumps(row) + "\n" for row in TABLE),
        "\ufeff" + json.dumps(TABLE),
    ],
    ids=["by id", "around a list", "lines", "byte order mark"],
)
def test_json_is_read_as_data_sets_write_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    assert [(row.text("ID"), row.text("Problem")) for row in read_rows(tmp_path / "x.json")] == [
        ("a", "1+1?"),
        ("b", "2+2?"),
    ]


def test_a_column_that_is_missing_is_answered_with_those_that_are_there(tmp_path: Path, capsys) -> None:
    path = lines(tmp_path / "x.jsonl", [{"id": "a", "quesion": "1+1?", "answer": "2"}])
    text = said(capsys, "run", str(path), "--model", "gold")
    assert "x.jsonl, row 1: there is no column question" in text
    assert "columns found: id, quesion, answer; did you mean quesion?" in text
    text = said(capsys, "run", "gsm8k", "-a", f"data={path}", "--model", "gold")
    assert "there is no column question" in text
    text = said(capsys, "run", str(path), "-a", "qestion=x", "--model", "gold")
    assert "has no argument 'qestion'" in text and "question" in text


def test_each_mistake_in_the_data_is_one_line(tmp_path: Path, capsys) -> None:
    def complaint(rows: list[Any], name: str = "gsm8k") -> str:
        return said(capsys, "check", name, "-a", f"data={lines(tmp_path / 'x.jsonl', rows)}")

    good = {"question": "q", "answer": "#### 1"}
    assert "row 2: the column answer is empty" in complaint([good, {**good, "answer": " "}])
    assert "row 1: no number stands after #### in the answer, but 'many'" in complaint([{**good, "answer": "many"}])
    assert "row 2: the id 'a' is that of x.jsonl, row 1 too" in complaint([{**good, "id": "a"}, {**good, "id": "a"}])
    assert "line 1 is no object with columns: '3'" in complaint([3])
    assert "has no rows of gsm8k" in complaint([])
    assert "the answer 'x' is no whole number" in complaint([{"problem": "p", "answer": "x"}], "aime25")
    mc = {"question": "q", "options": ["A. a", "B. b"], "answer": "C", "videoID": "v", "duration": "short"}
    assert "the answer 'C' is none of the 2 options" in complaint([mc], "videomme")
    lvb = {"question": "q", "candidates": ["a"], "correct_choice": -1, "video_path": "v"}
    assert "the test split has no answers" in complaint([lvb], "longvideobench")


def test_a_gold_answer_that_its_own_scorer_rejects_is_named(tmp_path: Path, capsys) -> None:
    rows = [{"unique_id": "good", "problem": "p", "answer": "2"}, {"unique_id": "bad", "problem": "p", "answer": "}{"}]
    text = said(capsys, "check", "math500", "-a", f"data={lines(tmp_path / 'x.jsonl', rows)}")
    assert "task bad (x.jsonl, row 2): the gold scores correct 0, not 1" in text and "task good" not in text


def test_files_that_are_not_there_or_damaged_are_named(tmp_path: Path, capsys) -> None:
    text = said(capsys, "run", "gsm8k", "--model", "gold")
    assert "gsm8k is not shipped: it needs its data" in text and "hf:openai/gsm8k" in text
    text = said(capsys, "run", "gsm8k", "-a", "data=openai/gsm8k", "--model", "gold")
    assert "there is no file or folder openai/gsm8k" in text and "hf:openai/gsm8k" in text
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    assert "x.parquet cannot be read as parquet" in said(capsys, "run", str(tmp_path / "x.parquet"), "--model", "gold")
    (tmp_path / "x.json").write_text("{nothing")
    assert "x.json is not JSON" in said(capsys, "run", str(tmp_path / "x.json"), "--model", "gold")
    (tmp_path / "x.jsonl").write_bytes(b'{"question": "q", "answer": "M\xfcnchen"}\n')
    assert "x.jsonl is not UTF-8: it holds the byte 0xfc" in said(
        capsys, "run", str(tmp_path / "x.jsonl"), "--model", "gold"
    )
    (tmp_path / "x.csv").write_text("question,answer\n1,2,3\n")
    assert "x.csv line 2 has another number of fields" in said(
        capsys, "run", str(tmp_path / "x.csv"), "--model", "gold"
    )
    assert "x.pkl is not a data file" in said(capsys, "check", "gsm8k", "-a", f"data={touch(tmp_path / 'x.pkl')}")
    (tmp_path / "empty").mkdir()
    assert "empty holds no data file" in said(capsys, "check", "gsm8k", "-a", f"data={tmp_path / 'empty'}")


def touch(path: Path) -> Path:
    path.write_bytes(b"\x80\x04N.")
    return path


def test_a_split_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path, capsys) -> None:
    row = {"question": "q", "answer": "#### 1"}
    for name in ("main/train-00000.jsonl", "main/validation.jsonl", "socratic/test.jsonl"):
        lines(tmp_path / name, [{**row, "id": name}])
    text = said(capsys, "check", "gsm8k", "-a", f"data={tmp_path}")
    assert "has no file of split 'test'" in text and "splits found: train, validation" in text
    other = said(capsys, "check", "gsm8k", "-a", f"data={tmp_path / 'main/train-00000.jsonl'}", "-a", "split=test")
    assert "train-00000.jsonl is of split train, not 'test'" in other
    assert len(find_taskset("gsm8k", {"data": str(tmp_path / "main/train-00000.jsonl")}).tasks) == 1
    assert len(find_taskset("gsm8k", {"data": str(tmp_path / "main/validation.jsonl"), "split": "dev"}).tasks) == 1
    assert [path.name for path in files_of(tmp_path, "dev", "main")] == ["validation.jsonl"]
    assert [path.name for path in files_of(tmp_path, "test")] == ["test.jsonl"]


def test_rows_stored_in_two_formats_are_read_once(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(TABLE), tmp_path / "x.parquet")
    lines(tmp_path / "x.jsonl", TABLE)
    assert [path.name for path in files_of(tmp_path)] == ["x.parquet"]


def row_of(value: Any, folder: Path) -> Row:
    return Row({"image": value}, "x.jsonl, row 1", folder)


def test_pictures_come_in_four_encodings(tmp_path: Path) -> None:
    data, store = picture(), BlobStore()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(data)
    encoded = base64.b64encode(data).decode()
    for value in (
        {"bytes": data, "path": "a.png"},
        {"bytes": None, "path": "images/a.png"},
        data,
        encoded,
        f"data:image/png;base64,{encoded}",
        "./images/a.png",
        "a.png",
    ):
        (image,) = images_of(row_of(value, tmp_path), "image", store=store)
        assert store.get(image) == data
    assert len(images_of(row_of([data, encoded], tmp_path), "image", store=store)) == 2
    (image,) = images_of(row_of(picture("TIFF"), tmp_path), "image", store=store)
    assert image.media_type == "image/png"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("https://example.org/a.png", "is a link, and nothing is fetched"),
        ("missing.png", "there is no file missing.png"),
        ("../secret.png", "there is no file ../secret.png"),
        (b"\x80\x04\x95evil", "holds bytes that are no picture"),
        ("gASVbm90", "holds bytes that are no picture"),
        (None, "holds no picture"),
        ({"bytes": None, "path": None}, "holds no picture"),
        (3, "holds no picture"),
    ],
)
def test_what_is_no_picture_is_said_and_never_unpickled_or_fetched(value: Any, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c" / "d").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture())
    with pytest.raises(ConfigError, match=complaint):
        images_of(row_of(value, tmp_path / "a" / "b" / "c" / "d"), "image", store=BlobStore())


def test_mixed_encodings_in_one_column_are_read_row_by_row(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    encoded = base64.b64encode(picture()).decode()
    rows = [{"id": i, "question": "q", "answer": "x", "pic": pic} for i, pic in enumerate(("a.png", encoded))]
    path = lines(tmp_path / "x.jsonl", rows)
    taskset = find_taskset(str(path), {"image": "pic"})
    assert taskset.tasks[0].prompt[0].content[0] == taskset.tasks[1].prompt[0].content[0]
    lines(path, [*rows, {"id": 2, "question": "q", "answer": "x", "pic": "b.png"}])
    assert "x.jsonl, row 3: the column pic is no picture" in said(capsys, "check", str(path), "-a", "image=pic")


def test_choices_are_letters_or_options_and_verl_rows_need_no_map(tmp_path: Path) -> None:
    rows = [{"q": "?", "a": "blue", "o": ["red", "blue"]}, {"q": "?", "a": "A", "o": ["red", "blue"]}]
    taskset = find_taskset(
        str(lines(tmp_path / "x.jsonl", rows)), {"question": "q", "answer": "a", "choices": "o", "category": "a"}
    )
    assert [task.answer for task in taskset.tasks] == ["B", "A"]
    assert taskset.tasks[0].prompt[0].text == "?\n(A) red\n(B) blue\nEnd with a line `Answer: <letter>`."
    verl = {
        "data_source": "nq",
        "prompt": [{"role": "user", "content": "Who?"}],
        "ability": "qa",
        "reward_model": {"style": "rule", "ground_truth": {"target": ["Ada", "Lovelace"]}},
        "extra_info": {"split": "test", "index": 0},
    }
    (task,) = find_taskset(str(lines(tmp_path / "y.jsonl", [verl]))).tasks
    assert (task.id, task.answer, task.info["category"]) == ("test-1", ["Ada", "Lovelace"], "nq")


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=4))
def test_any_row_is_read_or_refused_in_one_line(values: dict[str, Any]) -> None:
    row = Row(values, "x, row 1", Path())
    for read in (row.text, row.items):
        try:
            read("question", "answer")
        except ConfigError as error:
            assert str(error).startswith("x, row 1: ")


def test_option_letters_are_taken_off_and_words_are_not() -> None:
    assert [without_letter(text) for text in ("A. one", "(B) two", "C) three", "D: four")] == [
        "one",
        "two",
        "three",
        "four",
    ]
    for text in ("(b) two", "A", "A cat", "Vitamin C. No", "3.5 m", ""):
        assert without_letter(text) == text


LINES = st.dictionaries(
    st.sampled_from(["1", "2", "3"]), st.lists(st.sampled_from("abcdef"), min_size=2, max_size=4, unique=True)
)


@given(LINES, st.sampled_from("abcdef"), st.sampled_from("abcdef"))
def test_a_shortest_route_can_be_ridden_and_exists_where_stops_are_joined(lines, start: str, end: str) -> None:
    joined, grew = {start}, True
    while grew:
        more = {stop for stops in lines.values() if joined & set(stops) for stop in stops}
        grew, joined = not more <= joined, joined | more
    route = shortest(lines, start, end)
    assert (route is not None) == (end in joined and start != end)
    if route is not None:
        assert is_right(write(route), lines, start, end)


def test_listing_reads_no_data_and_starts_neither_torch_nor_readers() -> None:
    code = (
        "import sys; from agent.cli import run; from evals.__main__ import cli; assert run(cli, ['list']) == 0;"
        "heavy = {'torch', 'pyarrow', 'numpy', 'PIL.Image', 'huggingface_hub', 'reasoning_gym', 'transformers'};"
        "sys.exit(f'loaded {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "gsm8k" in done.stdout


def test_a_hub_id_is_read_from_the_cache_and_its_absence_said_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    repository = tmp_path / "datasets--me--gsm8k"
    lines(repository / "snapshots" / ("0" * 40) / "main" / "test.jsonl", [{"question": "q", "answer": "#### 7"}])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}

    def check(data: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "evals", "check", "gsm8k", "-a", f"data={data}"]
        return subprocess.run(command, capture_output=True, text=True, env=env)

    assert check("hf:me/gsm8k").stdout.startswith("gsm8k: all right (1 tasks")
    absent = check("hf:me/other")
    assert absent.returncode == 1 and "Traceback" not in absent.stderr
    assert "hf:me/other is not in the hub's cache and could not be fetched" in absent.stderr
    assert "hf:owner/name" in check("hf:other").stderr
