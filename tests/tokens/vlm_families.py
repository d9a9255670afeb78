"""A model of every family that sees, tiny: the family's own configuration class with fewer and narrower layers.

What decides how a picture is cut, counted and placed stays the family's: patch and merge sizes, tiles, class tokens,
deepstack, three-dimensional positions, the processors. The vocabulary is `agent.tiny`'s, the turns are ChatML.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from agent.model_cache import no_progress_bars, save_tokenizer
from agent.models import load_model
from agent.tiny import CONFIG as TEXT
from agent.tiny import tiny_tokenizer
from agent.tiny_vlm import SPECIAL, TEMPLATE, Shape, tiny_vlm
from agent.vision import Vision, vision_of
from tools import BlobStore

BLOBS = BlobStore()
"""The pictures of a test session."""

TAGS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4))
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}


def _idefics3(folder: Path) -> None:
    tiny_vlm(folder, shape=Shape(vision_hidden=64, hidden=64))


def _tiles(config: Any, model: Any, processor: Any, folder: Path) -> None:
    tokenizer = _tokenizer(*SPECIAL, *TAGS)
    made = config(
        text_config={**_text(tokenizer), "model_type": "llama"},
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        **_ids(),
    )
    images = processor(size={"longest_edge": 96}, max_image_size={"longest_edge": 32})
    _save(model(made), tokenizer, images, folder)


def _idefics3_tiles(folder: Path) -> None:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    _tiles(Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil, folder)


def _smolvlm(folder: Path) -> None:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    _tiles(SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil, folder)


def _llava(folder: Path, tower: str = "siglip_vision_model") -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = _tokenizer("<image>")
    clip = tower == "clip_vision_model"
    config = LlavaConfig(
        text_config={**_text(tokenizer), "model_type": "llama"},
        vision_config={**SMALL, "model_type": tower, "image_size": 32, "patch_size": 8},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default" if clip else "full",
        vision_feature_layer=-2 if clip else -1,
        **_ids(),
    )
    edge = {"height": 32, "width": 32}
    images: Any = SiglipImageProcessorPil(size=edge)
    if clip:
        images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=edge)
    _save(LlavaForConditionalGeneration(config), tokenizer, images, folder)


def _llava_clip(folder: Path) -> None:
    _llava(folder, "clip_vision_model")


def _qwen(folder: Path, config: Any, model: Any, vision: dict[str, Any], patch: int) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = _tokenizer(*marks)
    start, end, image, video = (tokenizer.convert_tokens_to_ids(mark) for mark in marks)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    made = config(
        text_config={**_text(tokenizer), "rope_parameters": rope},
        vision_config={"depth": 2, "intermediate_size": 128, "num_heads": 2, "patch_size": patch, **vision},
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
        tie_word_embeddings=True,
    )
    images = Qwen2VLImageProcessorPil(patch_size=patch, size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112})
    _save(model(made), tokenizer, images, folder)


def _qwen2_5_vl(folder: Path) -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {"hidden_size": 64, "out_hidden_size": 64, "window_size": 56, "fullatt_block_indexes": [1]}
    _qwen(folder, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision, 14)


def _qwen3_vl(folder: Path) -> None:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = {
        "hidden_size": 64,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0, 1],
        "num_position_embeddings": 64,
    }
    _qwen(folder, Qwen3VLConfig, Qwen3VLForConditionalGeneration, vision, 16)


def _gemma3(folder: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    marks = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    tokenizer = _tokenizer(*marks)
    start, end, image = (tokenizer.convert_tokens_to_ids(mark) for mark in marks)
    config = Gemma3Config(
        text_config={**_text(tokenizer), "sliding_window": 32, "query_pre_attn_scalar": 32},
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
        boi_token_index=start,
        eoi_token_index=end,
        image_token_index=image,
        mm_tokens_per_image=4,
        tie_word_embeddings=True,
    )
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    _save(Gemma3ForConditionalGeneration(config), tokenizer, images, folder)


FAMILIES: dict[str, Callable[[Path], None]] = {
    "idefics3": _idefics3,
    "idefics3-tiles": _idefics3_tiles,
    "smolvlm": _smolvlm,
    "llava": _llava,
    "llava-clip": _llava_clip,
    "qwen2.5-vl": _qwen2_5_vl,
    "qwen3-vl": _qwen3_vl,
    "gemma3": _gemma3,
}


@cache
def vlm_folder(family: str) -> Path:
    """The model's folder, made once a session in the tests' cache."""
    import torch

    from agent.model_cache import cached_folder

    def build(folder: Path) -> None:
        with torch.random.fork_rng(devices=[]), no_progress_bars():
            torch.manual_seed(0)
            FAMILIES[family](folder)

    return cached_folder(f"test-{family}", Path(__file__).read_text(encoding="utf-8"), build)


@cache
def seen(family: str) -> tuple[Any, Any, Vision]:
    """Model, tokenizer and eyes, which look in `BLOBS`."""
    folder = str(vlm_folder(family))
    model, tokenizer = load_model(folder)
    vision = vision_of(folder, tokenizer, BLOBS)
    assert vision is not None
    return model, tokenizer, vision


def _tokenizer(*special: str) -> Any:
    tokenizer = tiny_tokenizer(special=special)
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


def _ids() -> dict[str, Any]:
    return {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True}


def _text(tokenizer: Any) -> dict[str, Any]:
    return {**TEXT, **SMALL, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}


def _save(model: Any, tokenizer: Any, images: Any, folder: Path) -> None:
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.float().save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    images.save_pretrained(folder)
