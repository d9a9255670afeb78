"""What a model makes of pictures: the tokens one takes, and the features that stand behind those tokens."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import io
import json
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

from agent.encoder import Encoder, special_ids
from agent.parts import Parts, control
from agent.vision_families import EYES, Eyes, Feature, Pixels
from agent.vision_families.eyes import Size
from envs.trajectory import PlacedImage
from tools.content import BlobStore
from tools.errors import ConfigError, in_one_line

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""What a model folder says about pictures beside its configuration."""

OLDEST = (5, 19)
"""The first transformers whose models take features in place of pixels."""

Key: TypeAlias = tuple[str, Size]


@final
class Vision:
    """The eyes of one model: its family, its image processor, and the store its pictures are read from.

    How many tokens a picture takes is arithmetic on its size. Pixels are made once per picture; features once per
    picture and weights: while the weights of the towers stand still, a picture that is seen again costs nothing.
    """

    def __init__(self, eyes: Eyes, tokenizer: Any, blobs: BlobStore | None = None, *, memory: int = 512 << 20) -> None:
        """Join a family's eyes with a tokenizer.

        Args:
            eyes: See `agent.vision_families`.
            tokenizer: The model's.
            blobs: Where pictures are; `look_in` adds others. Without any, prompts are written and nothing is seen.
            memory: Bytes of pixels, and of features, that are kept for the next time.
        """
        self.eyes = eyes
        self.stores = [blobs] if blobs is not None else []
        self.placeholder: int = tokenizer.convert_tokens_to_ids(eyes.placeholder)
        self.neutral: int = tokenizer.pad_token_id or 0
        """The id that a model is given in place of a placeholder which belongs to no picture."""
        known = _special(tokenizer)
        missing = [token for token in eyes.controls if token not in known]
        if missing:
            raise ConfigError(f"the tokenizer has no special token {missing[0]}, with which this model marks a picture")
        self.tags = frozenset(tag for tag in eyes.tags if tag in known)
        self.controls = (*eyes.controls, *sorted(self.tags))
        self.parts: Callable[[Size], Parts] = lru_cache(maxsize=4096)(self._parts)
        self.ids: Callable[[Size], tuple[int, ...]] = lru_cache(maxsize=4096)(self._ids)
        self._tokenizer = tokenizer
        self._pixels = _Kept(memory)
        self._features = _Kept(memory)
        self._weights: tuple[object, ...] = ()

    def _parts(self, size: Size) -> Parts:
        """A picture of that size as a prompt holds it. Raises `ValueError` for a size the model cannot take."""
        return tuple(control(part.text) if part.text in self.tags else part for part in self.eyes.parts(size))

    def _ids(self, size: Size) -> tuple[int, ...]:
        """The ids of a picture by itself. White space that a family puts around it may join the words beside it; from
        the first placeholder to the last they are always these."""
        return self._encoder.ids(self.parts(size))

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self._tokenizer, self.controls)

    def look_in(self, blobs: BlobStore | None) -> None:
        """Read pictures from there too: a picture is the same wherever it lies."""
        if blobs is not None and blobs not in self.stores:
            self.stores.append(blobs)

    def count(self, size: Size) -> int:
        """How many features, and so placeholders, a picture of that size becomes."""
        return sum(part.text == self.eyes.placeholder for part in self.parts(size) if part.kind == "control")

    def places(self, ids: Sequence[int], images: Sequence[PlacedImage]) -> list[int]:
        """Where the placeholders of `images` are among `ids`; any other placeholder stands for nothing."""
        found: list[int] = []
        for image in images:
            here = (at for at in range(image.position, len(ids)) if ids[at] == self.placeholder)
            found += islice(here, self.count(image.shown_size))
        return found

    def without_strays(self, ids_BT: Tensor, rows: Sequence[tuple[Sequence[int], Sequence[PlacedImage]]]) -> Tensor:
        """Prompts, padded on the left, as the model is given them: placeholders that it sampled itself become neutral.

        `rows` holds the ids and the pictures of each.
        """
        import torch

        stray = ids_BT == self.placeholder
        if not bool(stray.any()):
            return ids_BT
        for index, (ids, images) in enumerate(rows):
            start = ids_BT.shape[1] - len(ids)
            places = [start + place for place in self.places(ids, images)]
            stray[index, torch.tensor(places, dtype=torch.long)] = False
        return ids_BT.masked_fill(stray, self.neutral)

    def unexpanded(self, ids: Sequence[int], images: Sequence[PlacedImage]) -> tuple[int, ...]:
        """The prompt as a server takes it that expands pictures itself. Raises `ConfigError` for a family for which
        this cannot be said exactly.
        """
        out: list[int] = []
        done = 0
        short = [self._encoder.control(token) for token in self.eyes.unexpanded]
        for image in images:
            whole = self.ids(image.shown_size)
            start = image.position - whole.index(self.placeholder)
            if not short or tuple(ids[start : start + len(whole)]) != whole:
                raise ConfigError(
                    "pictures of this family of models cannot be sent to a server as ids",
                    hint="use ChatSampler (openai:NAME), or sample in this process",
                )
            out += [*ids[done:start], *short]
            done = start + len(whole)
        return (*out, *ids[done:])

    def picture(self, image: PlacedImage) -> Picture:
        """The picture as it was shown, in RGB. Raises `ValueError` where it cannot be read."""
        import PIL.Image

        data = self.find(image.sha256)
        if data is None:
            raise ValueError(f"the picture {image.sha256[:12]} is in no blob store")
        try:
            picture = PIL.Image.open(io.BytesIO(data)).convert("RGB")
        except (OSError, ValueError, PIL.Image.DecompressionBombError) as error:
            raise ValueError(f"the picture {image.sha256[:12]} cannot be read: {in_one_line(error)}") from error
        if picture.size != tuple(image.shown_size):
            was = "x".join(map(str, image.shown_size))
            raise ValueError(
                f"the picture {image.sha256[:12]} is {picture.width}x{picture.height}, and was shown as {was}"
            )
        return picture

    def find(self, sha256: str) -> bytes | None:
        """The file of a picture; None where no store has it."""
        return next((found for store in self.stores if (found := store.find(sha256)) is not None), None)

    def problem(self, image: PlacedImage) -> str | None:
        """Why a picture cannot be shown to the model, in words; None where it can."""
        try:
            self.pixels(image)
        except ValueError as error:
            return str(error)
        return None

    def pixels(self, image: PlacedImage) -> Pixels:
        """What the image processor makes of a picture. Raises `ValueError` where it cannot be read."""
        key = _key(image)
        found: Pixels | None = self._pixels.get(key)
        if found is None:
            found = self.eyes.pixels(self.picture(image))
            self._pixels.put(key, found, _bytes(found.values()))
        return found

    def forget(self) -> None:
        """Give back the memory of all that is kept for the next time."""
        self._pixels.clear()
        self._features.clear()

    def features(self, model: Any, images: Sequence[PlacedImage]) -> list[Feature]:
        """Of `images`, each computed once however often it is among them.

        With gradients into the towers they are computed anew; else those of the same weights are used again.
        """
        import torch

        distinct = {_key(image): image for image in images}
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters(model)):
            fresh = self._computed(model, distinct)
            return [fresh[_key(image)] for image in images]
        self._forget_if_trained(model)
        made: dict[Key, Feature] = {key: kept for key in distinct if (kept := self._features.get(key)) is not None}
        with torch.no_grad():
            new = self._computed(model, {key: image for key, image in distinct.items() if key not in made})
        for key, feature in new.items():
            self._features.put(key, feature, _bytes((feature.rows, *feature.deep)))
        made |= new
        return [made[_key(image)] for image in images]

    def inputs(self, model: Any, rows: Sequence[Sequence[PlacedImage]], ids_BT: Tensor) -> dict[str, Any]:
        """What `model`'s forward takes beside ids and attention mask; nothing where no row has a picture.

        `rows` holds the pictures of each row of `ids_BT` in the order they stand in; `model` is the one with an LM
        head, not wrapped. Raises `ValueError` where a row has other placeholders than its pictures have features.
        """
        images = [image for row in rows for image in row]
        if not images:
            return {}
        found = (ids_BT == self.placeholder).sum(dim=1).tolist()
        for index, (row, count) in enumerate(zip(rows, found, strict=True)):
            wanted = sum(self.count(image.shown_size) for image in row)
            if count != wanted:  # models check the sum over all rows alone
                raise ValueError(f"row {index} has {count} placeholders, and its pictures have {wanted} features")
        return self.eyes.inputs(self.features(model, images), [image.shown_size for image in images], ids_BT)

    def parameters(self, model: Any) -> list[Any]:
        """All that turns pixels into features: the towers' parameters, adapters in them included."""
        inner = model.base_model
        return [p for name in self.eyes.towers for p in getattr(inner, name).parameters()]

    def _computed(self, model: Any, images: dict[Key, PlacedImage]) -> dict[Key, Feature]:
        if not images:
            return {}
        features = self.eyes.features(model, [self.pixels(image) for image in images.values()])
        for image, feature in zip(images.values(), features, strict=True):
            if len(feature.rows) != self.count(image.shown_size):
                raise ConfigError(
                    f"the model makes {len(feature.rows)} features of a picture of {image.shown_size}, and its "
                    f"processor writes {self.count(image.shown_size)} placeholders",
                    hint="are image processor and model of one kind?",
                )
        return dict(zip(images, features, strict=True))

    def _forget_if_trained(self, model: Any) -> None:
        """Drop the features of other weights. What tells them apart is one number of each parameter: a step moves them
        all, and torch's own count of changes misses fused optimisers."""
        import torch

        parameters = self.parameters(model)
        device = parameters[0].device
        autocast = torch.is_autocast_enabled(device.type)
        with torch.no_grad():
            numbers = torch.stack([p.reshape(-1)[p.numel() // 2].float() for p in parameters]).tolist()
        weights = (id(parameters[0]), device, autocast, *numbers)
        if weights != self._weights:
            self._features.clear()
            self._weights = weights


def vision_of(spec: str, tokenizer: Any, blobs: BlobStore | None = None) -> Vision | None:
    """The eyes of the model that `spec` names; None for one that reads text only, or of a family unknown here.

    Image processors are transformers' PIL ones, whether torchvision is there or not: the same pixels everywhere.
    Raises `ConfigError` for a model that sees and comes without an image processor.
    """
    import transformers
    from transformers import AutoConfig, AutoImageProcessor

    from agent.adapters import base_of
    from agent.models import model_folder

    source = model_folder(spec)
    while (base := base_of(source)) is not None:
        source = model_folder(base)
    local = Path(source).is_dir()
    if local and json.loads((Path(source) / "config.json").read_text(encoding="utf-8")).get("model_type") not in EYES:
        return None
    config = AutoConfig.from_pretrained(source, local_files_only=local)
    if config.model_type not in EYES:
        return None
    here = transformers.__version__
    if tuple(int(number) for number in here.split(".")[:2]) < OLDEST:
        raise ConfigError(f"the model {spec} sees, which takes transformers 5.19 or newer, and {here} is here")
    try:
        processor = AutoImageProcessor.from_pretrained(source, local_files_only=local, backend="pil")
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"the model {spec} sees, and its image processor cannot be loaded: {in_one_line(error)}",
            hint=f"its folder needs {FILES[0]} beside config.json",
        ) from error
    return Vision(EYES[config.model_type](config, processor), tokenizer, blobs)


def copy_eyes(model: Any, folder: Path) -> None:
    """Put what a model that sees was loaded with, and its weights do not hold, beside its new weights in `folder`."""
    from transformers.utils.hub import cached_file

    if model.config.model_type not in EYES:
        return
    for name in FILES:
        found: Any = cached_file(model.name_or_path, name, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            shutil.copyfile(found, folder / name)


def look_in(sampler: object, blobs: BlobStore | None) -> None:
    """Tell a sampler that sees where pictures are; nothing for any other."""
    vision = getattr(getattr(sampler, "renderer", None), "vision", None)
    if isinstance(vision, Vision):
        vision.look_in(blobs)


def select_rows(model: Any, rows: Any) -> None:
    """Keep what a model remembers of each row between two calls, for `rows` alone: the shifts of 3D positions."""
    inner = model.base_model
    if getattr(inner, "rope_deltas", None) is not None:
        inner.rope_deltas = inner.rope_deltas[rows]


@final
class _Kept:
    """The last things used, up to a number of bytes; for several threads."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._lock = threading.Lock()
        self._held: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._size = 0

    def get(self, key: Key) -> Any:
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: Key, value: Any, size: int) -> None:
        with self._lock:
            self._size += size - self._held.pop(key, (None, 0))[1]
            self._held[key] = value, size
            while self._size > self.memory and len(self._held) > 1:
                self._size -= self._held.popitem(last=False)[1][1]

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._size = 0


def _key(image: PlacedImage) -> Key:
    width, height = image.shown_size
    return image.sha256, (width, height)


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _special(tokenizer: Any) -> frozenset[str]:
    return frozenset(tokenizer.convert_ids_to_tokens(sorted(special_ids(tokenizer))))
