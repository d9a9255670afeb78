"""Families of models that see: how each writes a picture as tokens, and how it turns pixels into features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.vision_families.eyes import Eyes, Feature, Pixels
from agent.vision_families.gemma import GemmaEyes
from agent.vision_families.idefics import IdeficsEyes
from agent.vision_families.llava import LlavaEyes
from agent.vision_families.qwen import QwenEyes

EYES: Mapping[str, Callable[[Any, Any], Eyes]] = {
    "idefics3": IdeficsEyes,
    "smolvlm": IdeficsEyes,
    "llava": LlavaEyes,
    "qwen2_5_vl": QwenEyes,
    "qwen3_vl": QwenEyes,
    "gemma3": GemmaEyes,
}
"""By the `model_type` of a model's configuration; each is made of that configuration and an image processor."""

__all__ = ["EYES", "Eyes", "Feature", "GemmaEyes", "IdeficsEyes", "LlavaEyes", "Pixels", "QwenEyes"]
