"""A small model that sees, made from a seed: Idefics3's architecture at 0.7 million parameters.

It reads pictures of 64 x 64 pixels as 16 features each, speaks `agent.tiny`'s vocabulary and ChatML, and learns a
task of two pictures in a minute and a half. Fresh from its seed it knows nothing; `training run tiny_vlm` teaches it
to see. The architecture is SmolVLM's, so that whatever is trained here runs where SmolVLM runs.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.model_cache import cached_folder, keep_folder, kept_folder, no_progress_bars, save_tokenizer, write_facts
from agent.tiny import CONFIG as TEXT
from agent.tiny import PHRASES, WORDS, tiny_tokenizer
from tools.errors import ConfigError
from tools.record import record

AROUND, IMAGE, WHOLE = "<fake_token_around_image>", "<image>", "<global-img>"
SPECIAL = (AROUND, IMAGE, WHOLE, "<end_of_utterance>")
"""What Idefics3's processor needs in a tokenizer; it would add what is missing, past the model's last embedding."""
TEMPLATE = Path(__file__).parent / "templates" / "chatml_hermes_vision.jinja"
"""`agent.tiny`'s, with a picture wherever a message holds one."""
_SEEN = """
red green blue yellow orange purple pink brown black white gray cyan light dark color circle square triangle star cross
ring line arrow box dot digit letter word picture image photo left right top bottom middle corner above below inside
outside near far between big small larger smaller largest smallest same different many few none count shape where read
look zoom draw crop open see shown shows detail region part full bbox label zero horizontal vertical maze path start
goal wall up down turn point points row column chart bar map station stop exit sign text yes person tree house car
road sky
"""
SEEN = tuple(_SEEN.split())
"""Words for what is seen, each one token, beside `agent.tiny.WORDS`."""
_BOX = '"bbox_2d": {"items": {"type": "number"}, "type": "array", "description": "The region as [x1, y1, x2, y2], in'
_POINT = '{"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2, "description": "[x, y]"}'
SEEN_PHRASES = (
    # The zoom tool: its signature, a call, the words before its result.
    'image_zoom_in_tool", "description": "Zoom in on a region of an image: it is cut out of the full resolution and'
    ' shown as a new image.", "parameters": {"additionalProperties": false, "properties": {',
    _BOX,
    ' pixels of the image as shown; x1, y1 is the upper left corner."}, ',
    '"label": {"default": "", "type": "string", "description": "What is in the region."}, ',
    '"img_idx": {"default": 1, "type": "integer", "description": "The image\'s number, counted from 1. The first one if'
    ' left out."}}, ',
    '"required": ["bbox_2d"], "type": "object"}}}',
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [',
    '], "label": "sign"}}\n</tool_call>',
    "A part of image_1 (sign):\n",
    # The pen: its signature, and a call for one line.
    'path_tracer", "description": "Draw straight paths on images, from a red dot to a blue one. Coordinates are in'
    " pixels of the image as shown. A label that is written again moves what it names.",
    '", "parameters": {"additionalProperties": false, "properties": {"items": {"type": "array", "items": {"type":'
    ' "object", "properties": {',
    '"index": {"type": "integer", "description": "The image\'s number, counted from 1."}, ',
    f'"start_point_2d": {_POINT}, "end_point_2d": {_POINT}, "label": {{"type": "string"}}}}, ',
    '"required": ["index", "start_point_2d", "end_point_2d", "label"]}, "minItems": 1, "maxItems": 50}}, '
    '"required": ["items"], "type": "object"}}}',
    '{"name": "path_tracer", "arguments": {"items": [{"index": 1, "start_point_2d": [',
    '], "end_point_2d": [',
    '], "label": "',
    '"}]}}\n</tool_call>',
    # Boxes and points.
    "[",
    ", ",
    "]",
)
"""Text of calls and results for pictures that stands as one token."""
NUMBERS = tuple(str(number) for number in range(10, 100))
"""Coordinates, one token each where they stand alone."""
VERSION = 2
"""Raised whenever the code below would make another model of the same seed."""


@record
class Shape:
    """What decides the size of the model, and how finely it sees."""

    image_size: int = 64
    """Pixels; every picture is scaled to a square of this edge."""
    patch_size: int = 8
    scale_factor: int = 2
    """So many patches in each direction become one feature."""
    vision_hidden: int = 64
    vision_layers: int = 2
    hidden: int = 128
    """Of the language model; each of its attention heads has 32."""
    layers: int = 2
    context: int = 2048

    @property
    def features(self) -> int:
        """Tokens that a picture takes, without the three around it.

        >>> Shape().features
        16
        """
        return (self.image_size // self.patch_size) ** 2 // self.scale_factor**2


def tiny_vlm(folder: str | Path, seed: int = 0, shape: Shape | None = None) -> Path:
    """Write an untrained model into `folder`: same seed, same bytes. Returns the folder.

    transformers (`AutoModelForImageTextToText`, `AutoProcessor`), TRL and vLLM load it.
    """
    import torch
    from transformers import GenerationConfig, Idefics3Config, Idefics3ForConditionalGeneration

    shape = shape or Shape()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_vlm_tokenizer()
    config = Idefics3Config(**_config(shape, tokenizer))
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        torch.manual_seed(seed)
        model: Any = Idefics3ForConditionalGeneration(config)
        model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
        model.save_pretrained(folder)
    _save_processor(shape, tokenizer, folder)
    origin = f"toolweave tiny model that sees, version {VERSION}, seed {seed}, untrained"
    write_facts(folder, dialect="hermes", origin=origin)
    return folder


def tiny_vlm_folder(seed: int = 0) -> Path:
    """`tiny_vlm` in the cache: built on first use."""
    return cached_folder(f"tiny_vlm{seed}", [seed, *_recipe()], lambda folder: tiny_vlm(folder, seed) and None)


def taught_folder() -> Path:
    """The model that `training run tiny_vlm` left in the cache.

    Raises `ConfigError` where it has not been trained on this machine, or by another version.
    """
    return kept_folder("tiny_vlm", _recipe(), "training run tiny_vlm")


def keep_taught(folder: Path) -> Path:
    """Copy a trained model into the cache, in the place of one that is there; returns where it is.

    Raises `ConfigError` for a model of another kind: a run of an older version may be all that is at hand.
    """
    if not _is_of_this_version(folder):
        raise ConfigError(
            f"{folder} was made by another version, or from another model, and is not kept as tiny_vlm",
            hint="it stays where it is; training run tiny_vlm --fresh trains one anew",
        )
    return keep_folder("tiny_vlm", _recipe(), folder)


def _is_of_this_version(folder: Path) -> bool:
    """Whether a model has the tokens, the chat template and the sizes that `tiny_vlm` gives one."""
    from transformers import PreTrainedTokenizerFast

    mine = tiny_vlm_tokenizer()
    theirs: Any = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    stored: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return (
        theirs.get_vocab() == mine.get_vocab()
        and theirs.chat_template == mine.chat_template
        and all(
            stored.get(part, {}).get(name, wanted) == wanted
            for part in ("text_config", "vision_config")
            for name, wanted in _config(Shape(), mine)[part].items()
        )
    )


def _recipe() -> list[Any]:
    """What decides which tokens and which architecture there are: a model of another kind is not taken for this one."""
    template = TEMPLATE.read_text(encoding="utf-8")
    return [VERSION, PHRASES, WORDS, SEEN, SEEN_PHRASES, NUMBERS, TEXT, repr(Shape()), template]


def tiny_vlm_tokenizer() -> Any:
    """`tiny_tokenizer` with words for what is seen, and the special tokens that stand around and for a picture."""
    tokenizer = tiny_tokenizer(SEEN, SPECIAL, SEEN_PHRASES, NUMBERS)
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


def _config(shape: Shape, tokenizer: Any) -> dict[str, Any]:
    heads = shape.hidden // 32
    text = {
        **TEXT,
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden,
        "intermediate_size": 3 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": shape.context,
    }
    vision = {
        "hidden_size": shape.vision_hidden,
        "intermediate_size": 2 * shape.vision_hidden,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_hidden // 32,
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
    }
    return {
        "text_config": text,
        "vision_config": vision,
        "scale_factor": shape.scale_factor,
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def _save_processor(shape: Shape, tokenizer: Any, folder: Path) -> None:
    """The processor as transformers and vLLM load it, and the tokenizer as `agent.tiny` saves it."""
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    edge = {"longest_edge": shape.image_size}
    images = Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
    processor = Idefics3Processor(images, tokenizer, image_seq_len=shape.features)
    processor.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    images.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # The name without a backend: vLLM and a transformers with torchvision take theirs.
    settings["image_processor_type"] = "Idefics3ImageProcessor"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
