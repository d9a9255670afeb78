"""Words that are looked up have the ids that the whole text would have given them, whatever stands around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from family_tokenizers import FAMILIES, family_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.models import model_folder
from agent.tiny import tiny_tokenizer
from agent.words import LEARNED, by_words, cuts_before_spaces

PIECES = [
    *(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u3000",
        "\u200b",
        "\x00",
        "\u2028",
        "a",
        "foo",
        "Bar's",
        "'ll",
        "É",
        "ﬁ",
    ),
    *(
        "e\u0301",
        "\u0301",
        "你好",
        "🙂",
        "👩‍👩‍👧",
        "привет",
        "١٢",
        "12345",
        "0",
        ".",
        "...",
        "!?",
        "//",
        "_",
        "x,",
        "(z",
    ),
    *("<think>", "</tool_call>", "<|im_end|>", "[INST]", '{"a": 1}', "aVeryLongWordThatIsNotWorthRemembering"),
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join)


lines = st.lists(
    st.sampled_from(["a", "word", "Word", "WORDS", "McCoy", "0", "573829", "2024", "x1", "1x"]), min_size=1
)
ends = st.sampled_from(["", "", ".", ",", "!?", ')."', "'s", "\n", "\n\n", ".\n", ";)", "-x", "\t", "é", "\u0301"])
plain = st.lists(st.builds(lambda parts, end: "\n".join(parts) + end, lines, ends), max_size=12).map(" ".join)
"""Words of the shapes that are cut without asking the tokenizer, and of shapes next to those."""


@cache
def sides(name: str) -> tuple[Any, Callable[[str], Sequence[int]]]:
    tokenizer = family_tokenizer(name) if name in FAMILIES else smollm2()
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    return backend, by_words(backend)


def smollm2() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder("smollm2"), local_files_only=True)


@pytest.mark.parametrize("name", [*FAMILIES, "smollm2"])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(some=st.lists(texts | plain, min_size=1, max_size=4))
def test_the_ids_are_those_of_the_whole_text_also_when_it_comes_again(name: str, some: list[str]) -> None:
    backend, encode = sides(name)
    for text in [*some, *some]:
        assert list(encode(text)) == backend.encode(text, add_special_tokens=False).ids


def test_every_family_but_gemma_cuts_before_spaces() -> None:
    for name in FAMILIES:
        assert cuts_before_spaces(family_tokenizer(name).backend_tokenizer) == (name != "gemma3")
    assert cuts_before_spaces(smollm2().backend_tokenizer)


def test_a_tokenizer_that_cuts_another_way_is_used_as_it_is() -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    def made(cutter: Any = None, **model: Any) -> Any:
        alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        backend = Tokenizer(models.BPE(vocab=alphabet, merges=[], **model))
        backend.pre_tokenizer = cutter or pre_tokenizers.ByteLevel(add_prefix_space=False)
        return backend

    assert cuts_before_spaces(made())
    assert not cuts_before_spaces(made(dropout=0.1))
    assert not cuts_before_spaces(made(pre_tokenizers.ByteLevel(add_prefix_space=True)))
    assert not cuts_before_spaces(made(pre_tokenizers.Split(Regex(r"\w+ \w+|\s+"), behavior="isolated")))
    assert not cuts_before_spaces(made(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)))
    lowered = made()
    lowered.normalizer = normalizers.Lowercase()
    assert not cuts_before_spaces(lowered)
    # A phrase that is one token must not be cut; tiny has many.
    for token in (AddedToken("two words", normalized=False), AddedToken("x", lstrip=True, normalized=False)):
        phrased = made()
        phrased.add_tokens([token])
        assert not cuts_before_spaces(phrased)
    assert not cuts_before_spaces(tiny_tokenizer().backend_tokenizer)


@pytest.mark.parametrize("between", ["", "-"])
def test_a_text_of_nothing_but_new_words_has_the_same_ids_when_many_are_known(between: str) -> None:
    backend = family_tokenizer("llama3.1").backend_tokenizer
    encode = by_words(backend)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for start in range(0, LEARNED + 400, 100):
        text = " ".join(
            between.join((letters[n % 26], letters[n // 26 % 26], letters[n // 676])) for n in range(start, start + 100)
        )
        assert list(encode(text)) == backend.encode(text, add_special_tokens=False).ids


def test_an_added_token_that_a_plain_word_may_hold_is_found_in_it() -> None:
    from tokenizers import AddedToken, Tokenizer

    backend = Tokenizer.from_str(family_tokenizer("qwen3").backend_tokenizer.to_str())
    backend.add_tokens([AddedToken("ord", normalized=False)])
    encode = by_words(backend)
    for text in ("a word", "a word", "in order to"):
        assert list(encode(text)) == backend.encode(text, add_special_tokens=False).ids
        assert backend.token_to_id("ord") in encode(text)


def test_the_ids_stay_the_same_when_words_are_forgotten() -> None:
    backend = family_tokenizer("qwen3").backend_tokenizer
    encode = by_words(backend, most=3)
    for number in range(20):
        text = f"word{number} of a text {number} " * 3
        assert list(encode(text)) == backend.encode(text, add_special_tokens=False).ids
