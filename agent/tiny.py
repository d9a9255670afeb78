"""A small text model made from a seed: no download, no training data, loads in milliseconds, learns in minutes.

It speaks the same ChatML and knows the strings of our dialects as single tokens, so an episode is a few dozen ids.
Fresh from its seed it knows nothing; two CPU-minutes of cold start teach it to call a tool and copy what came back.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.model_cache import TEMPLATE, cached_folder, no_progress_bars, save_tokenizer, write_facts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Ids 0, 1, 2, as in SmolLM2. Padding is 0."""

PHRASES = (
    # The turns of ChatML.
    "system\n",
    "user\n",
    "assistant\n",
    # Hermes calls, as Qwen2.5 publishes them.
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n",
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>",
    "<tool_call>\n",
    "\n</tool_call>",
    "<tool_call>",
    "</tool_call>",
    '{"name": "python", "arguments": {"code": "',
    '{"name": "',
    '", "arguments": {"',
    '"}}\n</tool_call>',
    ')"}}\n</tool_call>',
    "<tool_response>\n",
    "\n</tool_response>",
    # The signature of the Python tool.
    '{"type": "function", "function": {"name": "',
    '", "description": "',
    "Run Python code and see what it prints.",
    " Variables are kept; the value of the last expression is shown.",
    '", "parameters": {"additionalProperties": false, "properties": {"code": {"description": "',
    "Python source code.",
    '", "type": "string"}}, "required": ["code"], "type": "object"}}}',
    "print(",
    # Inline calls.
    "\nTo use it, write\n<code>\n```python\n<code>\n```\n</code>\n"
    "and the result follows in <interpreter></interpreter>.",
    "<code>\n```python\n",
    "\n```\n</code>",
    "<code>",
    "</code>",
    "<interpreter>\n",
    "\n</interpreter>",
    "<interpreter>",
    "</interpreter>",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    # Answers.
    "Answer: ",
)
"""Text that always stands as one token, the longest first where several fit."""

_TEXT = """
the a an of to in is it and or for on at by with from as that this then than each every all any no not how many much
what which who when where there are was were be been has have had does do did can will he she they his her their them
its you your I we our more less left after before first second last next one two three four five six seven eight nine
ten times plus minus divided sum total difference product remainder together equally apart over into up buy buys sold
sell give gives take takes lost use uses find finds makes make made put adds added add split apples boxes bags books
coins cards stamps eggs shelves rows crates marbles packs days costs dollars minutes friends people Mia Tom Compute
Calculate What How Find Use Write Give Question Then Now Each If The A An So It school shop place holds starts day
python code print result answer number value string name tool call run return error line text Python Run Execute
output type function description parameters object properties required integer true false null def import math range
len int str float True False None if else while lambda abs max min round pow see prints Variables variables kept
between calls shown shows expression source write done Solve problem End out leave now final years Later rolls come
bolts buttons shells reach bottles bulbs By spring orders go old Overnight stock grows bring away pencils ticket walk
home fills putting lays road miles long doors opened ago brings another arrive turn bad thrown equal parts keeps only
Samir Amara owns They among shops look Felix Leila Omar Kofi Hugo Joel Lena Greta Marco Anya Ruth Ivan Zoe Ines Diego
jars Wen Nora trays sheets baskets Ravi Yuki cases Priya buckets but Out racks tins sacks Monday Tuesday pool bakery
workshop library tailor garden post office museum harbour market farm printer toy cellar
"""
WORDS = tuple(_TEXT.split())
"""Words that stand as one token where they stand alone, with or without a space before them."""

CONFIG: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "dtype": "float32",
}
VERSION = 1
"""Raised whenever the code below would make another model of the same seed."""


def tiny_model(folder: str | Path, seed: int = 0) -> Path:
    """Write an untrained model of about a million parameters into `folder`: same seed, same bytes.

    Returns the folder, which transformers, TRL and vLLM load. Raises `OSError` when it cannot be written.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **CONFIG))
        model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
        model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    write_facts(folder, dialect="hermes", origin=f"toolweave tiny model, version {VERSION}, seed {seed}, untrained")
    return folder


def tiny_folder(seed: int = 0) -> Path:
    """`tiny_model` in the cache: built on first use."""
    recipe = [VERSION, seed, PHRASES, WORDS, CONFIG, TEMPLATE.read_text(encoding="utf-8")]
    return cached_folder(f"tiny{seed}", recipe, lambda folder: tiny_model(folder, seed) and None)


def tiny_tokenizer(
    words: Iterable[str] = (), special: Iterable[str] = (), phrases: Iterable[str] = (), numbers: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """Bytes, whole words and phrases; every text comes back exactly, and a digit is a token of its own.

    `words`, `special` and `phrases` are further ones, for another tiny model; `numbers` are one token each where they
    stand alone.

    >>> tiny_tokenizer().tokenize("Compute 12*7.")
    ['Compute', 'Ġ', '1', '2', '*', '7', '.']
    """
    from tokenizers import AddedToken, Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import PreTrainedTokenizerFast

    whole = chain.from_iterable((word, f"Ġ{word}") for word in (*WORDS, *words))  # Ġ is a space in the byte alphabet
    vocabulary = list(dict.fromkeys([*SPECIAL, *sorted(ByteLevel.alphabet()), *whole]))
    # Without merges, a piece that is no whole entry falls apart into bytes.
    model = BPE(vocab={entry: index for index, entry in enumerate(vocabulary)}, merges=[], ignore_merges=True)
    backend = Tokenizer(model)
    backend.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (*SPECIAL, *special)])
    backend.add_tokens([AddedToken(phrase, normalized=False) for phrase in (*PHRASES, *phrases)])
    backend.add_tokens([AddedToken(number, normalized=False, single_word=True) for number in numbers])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONFIG["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE.read_text(encoding="utf-8"),
    )
