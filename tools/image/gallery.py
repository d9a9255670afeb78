"""The pictures of one episode: numbered from 1, kept at full resolution, shown within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from tools.content import BlobStore, Content, Image, Text
from tools.errors import ConfigError
from tools.image.budget import ImageBudget
from tools.image.coordinates import PixelBox, Size
from tools.image.intake import WORK, IntakeLimits, check, decoded, encoded, normalised, pixels_of, rgb
from tools.image.memory import PixelMemory, Slot, off_loop, shared_memory
from tools.record import record
from tools.tool import ToolError, ToolResult

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

CAPTION = "image_{index} (width: {width}, height: {height}):\n<image>"


@record
class Picture:
    """One numbered picture: what the model sees, and the pixels behind it."""

    index: int
    """From 1."""
    shown: Image
    """As it stands in messages; coordinates refer to its size."""
    source: Image
    """The stored picture it is a part of, at full resolution."""
    part: PixelBox
    """Which part of `source` it is: left, top, right, bottom in pixels; for a whole picture all of it."""
    notes: tuple[str, ...] = ()
    """What was done to it when it was taken in, such as `the first frame of an animation`."""

    @property
    def size(self) -> Size:
        """Width and height of the part, at full resolution."""
        return self.part[2] - self.part[0], self.part[3] - self.part[1]


@final
class Gallery:
    """Every picture that one episode has seen or made. Lives in its environment and is discarded with it.

    A zoomed part is not stored at full resolution: it remembers which pixels of the first picture it is, so that a part
    of a part is still cut from the photograph.

    >>> import PIL.Image
    >>> gallery = Gallery(BlobStore(), ImageBudget(max_pixels=100 * 100))
    >>> photo = gallery.add(PIL.Image.new("RGB", (400, 200), "navy"))
    >>> corner = gallery.add_part(photo, (0, 0, 50, 20))
    >>> gallery[photo].shown.width, gallery[corner].shown.width, gallery[corner].source.width
    (141, 50, 400)

    The methods decode and encode on the caller's thread; `enter` and the tools do it off the event loop, in `memory`.
    """

    def __init__(
        self,
        blobs: BlobStore,
        budget: ImageBudget | None = None,
        *,
        limits: IntakeLimits | None = None,
        caption: str = CAPTION,
        memory: PixelMemory | None = None,
    ) -> None:
        """`caption` is the text around each picture in tool results: `{index}`, `{width}` and `{height}` as shown, and
        `<image>` where the picture stands."""
        if caption.count("<image>") != 1:
            raise ConfigError(f"a caption holds <image> once, where the picture stands; seen: {caption!r}")
        self.blobs = blobs
        self.budget = budget or ImageBudget()
        self.limits = limits or IntakeLimits()
        self.caption = caption
        self.memory = memory or shared_memory()
        self._pictures: list[Picture] = []
        self._work = 0
        self._pixels = 0

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Picture:
        """Picture `index`, from 1. Raises `ToolError` that says which there are."""
        if isinstance(index, bool) or not isinstance(index, int) or not 1 <= index <= len(self):  # pyright: ignore[reportUnnecessaryIsInstance]
            have = f"they are numbered 1 to {len(self)}" if self._pictures else "there are none yet"
            raise ToolError(f"There is no image {index!r}; {have}.")
        return self._pictures[index - 1]

    def shown(self, index: int) -> Image:
        """The picture as it stands in messages."""
        return self[index].shown

    def original(self, index: int) -> Image:
        """The picture at full resolution; a zoomed part is encoded and stored when it is asked for."""
        picture = self[index]
        if picture.size == (picture.source.width, picture.source.height):
            return picture.source
        if picture.size == (picture.shown.width, picture.shown.height):
            return picture.shown
        return self.blobs.put(encoded(self.pixels(index)))

    def add(self, picture: Image | PILImage | bytes) -> int:
        """Take in a picture (of the blob store, of Pillow, or as bytes) and number it.

        Raises `ValueError` for one that is damaged or too large, `ToolError` when there are as many as the budget
        allows.
        """
        if not isinstance(picture, bytes | Image):
            return self.add_all([picture])[0]
        self._refuse_more()
        taken = normalised(self.blobs.get(picture) if isinstance(picture, Image) else picture, self.limits)
        whole = (0, 0, *taken.size)
        size = self.budget.shown_size(*taken.size)
        shown: PILImage | None = None
        if size != taken.size:
            shown = cut(taken.data, whole, size) if taken.pixels is None else scaled_to(taken.pixels, size)
        elif taken.pixels is None:
            check(taken.data)
        source = self.blobs.put(taken.data)
        self._needs(taken.size, taken.work)
        image = source if shown is None else self.blobs.put(encoded(shown))
        return self._number(image, source, whole, taken.notes)

    def add_all(self, pictures: Sequence[PILImage], *, lossy: bool = False) -> tuple[int, ...]:
        """Number pictures that a tool made: all of them, or none. `lossy` keeps their full resolution as JPEG."""
        self._refuse_more(len(pictures))
        made: list[tuple[Image, Image]] = []
        for picture in map(rgb, pictures):
            if picture.width * picture.height > self.limits.max_pixels:
                raise ToolError(f"The picture would have {picture.width} x {picture.height} pixels: too many.")
            source = self.blobs.put(encoded(picture, lossy=lossy))
            size = self.budget.shown_size(*picture.size)
            small = picture if size == picture.size else scaled_to(picture, size)
            made.append((source if small is picture else self.blobs.put(encoded(small)), source))
            self._needs(picture.size, picture.width * picture.height * 4)
        return tuple(self._number(shown, source, (0, 0, source.width, source.height)) for shown, source in made)

    def add_part(self, index: int, part: PixelBox, size: Size | None = None) -> int:
        """Number a part of picture `index`: `part` in pixels of its full resolution, shown at `size` or as the budget
        says."""
        parent = self[index]
        self._refuse_more()
        part = _within(parent.part, part)
        shown = self._cut(parent.source, part, size or self.budget.shown_size(part[2] - part[0], part[3] - part[1]))
        return self._number(self.blobs.put(encoded(shown)), parent.source, part, parent.notes)

    def pixels(self, index: int, part: PixelBox | None = None) -> PILImage:
        """Picture `index`, or a part of it, at full resolution."""
        picture = self[index]
        where = _within(picture.part, part) if part else picture.part
        return self._cut(picture.source, where, (where[2] - where[0], where[3] - where[1]))

    def shown_pixels(self, index: int) -> PILImage:
        """Picture `index` as the model sees it."""
        return decoded(self.blobs.get(self[index].shown))

    def content(self, *indices: int, text: str = "") -> tuple[Content, ...]:
        """Pictures as they stand in messages: captions, and `text` before the first."""
        parts: list[Content] = []
        for index in indices:
            shown = self[index].shown
            filled = self.caption.format(index=index, width=shown.width, height=shown.height)
            before, _, after = filled.partition("<image>")
            before, text = f"{text}\n{before}".lstrip("\n") if text else before, ""
            parts += [Text(text=before)] if before else []
            parts += [shown, *([Text(text=after)] if after else [])]
        return (*((Text(text=text),) if text else ()), *parts)

    def result(self, *indices: int, text: str = "", data: Mapping[str, Any] | None = None) -> ToolResult:
        """Pictures as what a tool returned; `data["images"]` says where their pixels are from."""
        data = {**(data or {}), "images": self.places(*indices)}
        return ToolResult(content=self.content(*indices, text=text), data=data)

    def places(self, *indices: int) -> list[dict[str, Any]]:
        """Where the pixels of pictures are from, as JSON."""
        places: list[dict[str, Any]] = []
        for picture in map(self.__getitem__, indices):
            noted = {"notes": list(picture.notes)} if picture.notes else {}
            places.append(
                {"index": picture.index, "source": picture.source.sha256, "part": list(picture.part), **noted}
            )
        return places

    def slots(self, copies: int = 1) -> Slot:
        """For `Tool.slots`: room for work on any picture there is that makes so many more copies of its pixels."""
        return Slot(self.memory, lambda: self._work + copies * self._pixels * 4)

    async def enter(self, picture: Image | PILImage | bytes) -> int:
        """`add`, off the event loop and within `memory`. Not for a tool that holds room already: it would wait for
        itself."""
        pixels = pixels_of(picture) if isinstance(picture, bytes) else picture.width * picture.height
        async with self.memory.room(pixels * WORK):
            return await off_loop(lambda: self.add(picture))

    def _needs(self, size: Size, work: int) -> None:
        """Keep the most that decoding any one picture takes, and the most pixels of any one."""
        self._work, self._pixels = max(self._work, work), max(self._pixels, size[0] * size[1])

    def _refuse_more(self, count: int = 1) -> None:
        most = self.budget.max_images
        if most is not None and len(self) + count > most:
            raise ToolError(f"There are {len(self)} images, and no more than {most} can be shown.")

    def _number(self, shown: Image, source: Image, part: PixelBox, notes: tuple[str, ...] = ()) -> int:
        self._pictures.append(Picture(index=len(self) + 1, shown=shown, source=source, part=part, notes=notes))
        return len(self)

    def _cut(self, source: Image, part: PixelBox, size: Size) -> PILImage:
        return cut(self.blobs.get(source), part, size)


def cut(data: bytes, part: PixelBox, size: Size) -> PILImage:
    """A part of an encoded picture, scaled to `size`.

    A part shown at its own size keeps every pixel. A JPEG shown at less than half its size is decoded at half, a
    quarter or an eighth, never below twice the size shown.
    """
    width, height = part[2] - part[0], part[3] - part[1]
    sizes: list[Size] = []

    def draft(picture: PILImage) -> None:
        sizes.append(picture.size)
        if size[0] * 2 < width and size[1] * 2 < height:
            wide, high = size[0] * 2 / width, size[1] * 2 / height
            picture.draft("RGB", (round(picture.width * wide), round(picture.height * high)))

    picture = decoded(data, draft)
    if size == (width, height):
        return picture if part == (0, 0, *picture.size) else picture.crop(part)
    wide, high = picture.width / sizes[0][0], picture.height / sizes[0][1]
    box = (part[0] * wide, part[1] * high, part[2] * wide, part[3] * high)
    return scaled_to(picture, size, box)


def scaled_to(picture: PILImage, size: Size, box: tuple[float, float, float, float] | None = None) -> PILImage:
    """The picture, or the part of it within `box`, at another size: bicubic, antialiased."""
    from PIL.Image import Resampling

    return picture.resize(size, Resampling.BICUBIC, box=box, reducing_gap=3.0)


def _within(outer: PixelBox, part: PixelBox) -> PixelBox:
    """A part of a part, in pixels of the source."""
    left, top, _, _ = outer
    return left + part[0], top + part[1], left + part[2], top + part[3]
