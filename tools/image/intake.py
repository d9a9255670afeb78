"""Pictures from anywhere, brought into one form before anything else looks at them.

Normal is PNG or JPEG, 8-bit RGB, upright, in sRGB, one frame, and does not say where on Earth it was taken, as code
that a model writes could read that off. Bytes that are normal already are kept as they are, under their own hash.
Anything else is decoded, mended and encoded again: as JPEG (quality 95, full colour resolution) where it was JPEG, else
as PNG.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from tools.content import BlobStore, Image
from tools.record import record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

T = TypeVar("T")

KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF", "QOI")
"""What is read, by Pillow's names; an MPO is read as a JPEG. Others, such as PostScript, need a program to be run."""
WORK = 16
"""Bytes a pixel that taking in any picture needs at most: a progressive JPEG turned upright, deep greys made 8-bit."""


@record
class IntakeLimits:
    """What is refused before a pixel of it is decoded."""

    max_pixels: int = 50_000_000
    max_bytes: int = 48 * 2**20
    animated: Literal["first", "refuse"] = "first"
    """What becomes of a picture with several frames: its first one is taken and that is said, or it is refused."""


@record
class Taken:
    """A picture in normal form, not stored yet."""

    data: bytes
    size: tuple[int, int]
    """Width and height, upright."""
    work: int
    """Bytes of memory that decoding it takes."""
    pixels: PILImage | None
    """Decoded; None for a JPEG that is kept, as it may be decoded smaller, and has to be to know that it is whole."""
    notes: tuple[str, ...] = ()
    """What was done to it, in words; empty where the bytes are as they came."""


def take(data: bytes, blobs: BlobStore, limits: IntakeLimits | None = None) -> Image:
    """Store a picture in normal form, its pixels checked. Raises `ValueError` that names what was wrong.

    >>> import PIL.Image
    >>> store, file = BlobStore(), io.BytesIO()
    >>> PIL.Image.new("CMYK", (4, 2)).save(file, "TIFF")
    >>> take(file.getvalue(), store).media_type
    'image/png'
    """
    taken = normalised(data, limits)
    if taken.pixels is None:
        check(taken.data)
    return blobs.put(taken.data)


def normalised(data: bytes, limits: IntakeLimits | None = None) -> Taken:
    """The picture in normal form.

    Raises `ValueError` that names what was wrong.
    """
    limits = limits or IntakeLimits()
    if not data:
        raise ValueError("the picture is empty: 0 bytes")
    if len(data) > limits.max_bytes:
        raise ValueError(f"the picture has {len(data)} bytes; at most {limits.max_bytes} are taken")
    picture = _reading(data)
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise ValueError(
            f"the picture has {width} x {height} pixels; at most {limits.max_pixels} are taken (width times height)"
        )
    jpeg, work = picture.format in ("JPEG", "MPO"), _work(picture)
    frames = _frames(picture)
    if not jpeg:
        _guarded(picture.load)  # what a PNG says of itself may stand behind its pixels
    notes = _abnormal(picture, frames, limits)
    if not notes:
        return Taken(data=data, size=picture.size, work=work, pixels=None if jpeg else picture)
    mended = _guarded(lambda: _mended(picture))
    return Taken(data=encoded(mended, lossy=jpeg), size=mended.size, work=work, notes=notes, pixels=mended)


def check(data: bytes) -> None:
    """Read all of an encoded picture. Raises `ValueError` for a damaged one. A JPEG is decoded at an eighth."""
    decoded(data, lambda picture: picture.draft("RGB", (1, 1)))


def pixels_of(data: bytes) -> int:
    """Width times height, by the header. Raises `ValueError` where it is no picture."""
    with _reading(data) as picture:
        return picture.width * picture.height


def encoded(picture: PILImage, *, lossy: bool = False) -> bytes:
    """The bytes of an RGB picture: PNG at its fastest compression, or JPEG of quality 95 at full colour resolution."""
    buffer = io.BytesIO()
    bare: dict[str, Any] = {"icc_profile": b"", "exif": b"", "comment": b""}  # nothing but pixels goes along
    if lossy:
        picture.save(buffer, "JPEG", quality=95, subsampling=0, **bare)
    else:
        picture.save(buffer, "PNG", compress_level=1, **bare)
    return buffer.getvalue()


def decoded(data: bytes, prepare: Callable[[PILImage], object] = lambda _: None) -> PILImage:
    """The pixels, `prepare` (a draft) called before they are read. Raises `ValueError` for damaged ones."""
    picture = _reading(data)
    prepare(picture)
    _guarded(picture.load)
    return picture


def rgb(picture: PILImage) -> PILImage:
    """8-bit RGB of a decoded picture in any mode: transparent pixels over white, deep ones scaled to 8 bits."""
    import PIL.Image

    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I") or picture.mode == "F":
        return _shallow(picture).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


_READ = ", ".join(KINDS)


def _work(picture: PILImage) -> int:
    """Pillow keeps 4 bytes a pixel; the decoder of a progressive JPEG holds up to 6 more."""
    return picture.width * picture.height * (10 if picture.info.get("progressive") else 4)


def _reading(data: bytes) -> PILImage:
    import PIL.Image

    return _guarded(lambda: PIL.Image.open(io.BytesIO(data), formats=KINDS), f"no picture of a known kind ({_READ})")


def _guarded(work: Callable[[], T], wrong: str = "the picture is damaged") -> T:
    """Pillow raises many kinds of errors for bytes that are wrong; all of them come out as `ValueError`."""
    import PIL.Image

    try:
        return work()
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise ValueError(f"the picture is too large: {error}") from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(wrong) from error
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{wrong}: {error}") from error


def _frames(picture: PILImage) -> int:
    """How many frames there are. A phone's MPO holds a second view or a preview beside its photograph: no animation."""
    if picture.format == "MPO" or not _guarded(lambda: getattr(picture, "is_animated", False)):
        return 1
    return int(_guarded(lambda: getattr(picture, "n_frames", 2)))


def _abnormal(picture: PILImage, frames: int, limits: IntakeLimits) -> tuple[str, ...]:
    """Every way in which a picture is not normal."""
    notes: list[str] = []
    if picture.format not in ("PNG", "JPEG"):
        notes.append(f"converted from {picture.format}")
    if frames > 1:
        if limits.animated == "refuse":
            raise ValueError(f"the picture is animated ({frames} frames); one frame is taken")
        notes.append("the first frame of an animation")
    if picture.mode != "RGB" or "transparency" in picture.info:
        notes.append(f"converted from mode {picture.mode}")
    if _turned(picture):
        notes.append("turned upright")
    if _foreign_profile(picture) is not None:
        notes.append("converted to sRGB")
    if _exif(picture, _GPS) is not None or b"GPSLatitude" in _xmp(picture):
        notes.append("without its position")
    return tuple(notes)


_ORIENTATION, _GPS = 0x0112, 0x8825


def _exif(picture: PILImage, tag: int) -> Any:
    try:
        return picture.getexif().get(tag)
    except Exception:  # damaged EXIF says nothing about the pixels
        return None


def _turned(picture: PILImage) -> bool:
    """True where EXIF says that the picture is stored on its side, on its head or mirrored."""
    value = _exif(picture, _ORIENTATION)
    return isinstance(value, int) and 2 <= value <= 8


def _xmp(picture: PILImage) -> bytes:
    """Adobe's metadata: bytes of a JPEG, text of a PNG."""
    value: Any = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    return value.encode() if isinstance(value, str) else bytes(value)


def _foreign_profile(picture: PILImage) -> Any:
    """The colour profile, where there is one that can be read and that is not sRGB."""
    data = cast(bytes | None, picture.info.get("icc_profile"))
    if not data:
        return None
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        return None if "srgb" in ImageCms.getProfileDescription(profile).lower() else profile
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):  # an unreadable profile is as good as none
        return None


def _mended(picture: PILImage) -> PILImage:
    from PIL import ImageOps

    profile = _foreign_profile(picture)
    picture.load()
    upright = ImageOps.exif_transpose(picture) if _turned(picture) else picture
    return rgb(upright if profile is None else _in_srgb(upright, profile))


def _in_srgb(picture: PILImage, profile: Any) -> PILImage:
    """The colours in sRGB; a profile that does not fit the mode is left aside."""
    from PIL import ImageCms

    if picture.mode in ("P", "PA", "LA", "RGBA"):
        alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
        if alpha is not None:
            moved = _in_srgb(picture, profile).convert("RGB")
            moved.putalpha(alpha)
            return moved
    try:
        target = cast(Any, ImageCms.createProfile("sRGB"))  # pyright: ignore[reportUnknownMemberType]
        moved = ImageCms.profileToProfile(picture, profile, target, outputMode="RGB")
    except (ImageCms.PyCMSError, ValueError):
        return picture
    return moved or picture


def _shallow(picture: PILImage) -> PILImage:
    """8-bit grey of 16-bit, 32-bit and float greys.

    16-bit values lose their lower byte, floats within 0 and 1 are taken as shares of white; other ranges are
    stretched from their least to their greatest value.
    """
    low, high = cast(tuple[float, float], picture.getextrema())
    if not (low == low and high == high and high - low < float("inf")):
        raise ValueError("its pixels hold values that are no numbers")
    if picture.mode.startswith("I;16"):
        low, high = 0, 65535
    elif low >= 0:
        high = 1 if picture.mode == "F" and high <= 1 else 255 if high <= 255 else 65535 if high <= 65535 else high
        low = 0 if high <= 65535 else low
    scale = 256 / (high - low + (0 if picture.mode == "F" else 1)) if high > low else 1.0
    grey = picture.convert("F")
    return grey.point(lambda value: value * scale + (-low * scale)).convert("L")
