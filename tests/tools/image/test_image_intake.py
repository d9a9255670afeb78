"""Every odd picture that reaches a store: mended, or refused by a sentence that names what was wrong."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import PIL.Image
import PIL.ImageCms
import pytest
from PIL import ImageChops, ImageStat

from tools import BlobStore
from tools.image import IntakeLimits, take
from tools.image.intake import normalised

RED, WHITE = (255, 0, 0), (255, 255, 255)


def saved(picture: PIL.Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def scene(mode: str = "RGB") -> PIL.Image.Image:
    """Red above, blue below on the left, green on the right: no turn of it looks the same."""
    picture = PIL.Image.new("RGB", (60, 40), "red")
    picture.paste("blue", (0, 20, 30, 40))
    picture.paste("green", (30, 20, 60, 40))
    return picture.convert(mode)


def taken(data: bytes, limits: IntakeLimits | None = None) -> PIL.Image.Image:
    """What a reader of the store gets; it is in normal form."""
    store = BlobStore()
    image = take(data, store, limits)
    picture = store.open(image)
    assert picture.mode == "RGB" and image.media_type in ("image/png", "image/jpeg")
    assert (image.width, image.height) == picture.size
    assert take(store.get(image), store) == image, "what is normal once is normal for ever"
    return picture


def alike(a: PIL.Image.Image, b: PIL.Image.Image, off: float = 3.0) -> bool:
    """The same size, and on average no further apart than `off` of 255."""
    return a.size == b.size and max(ImageStat.Stat(ImageChops.difference(a, b)).mean) <= off


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_normal_picture_keeps_its_bytes(kind: str):
    data = saved(scene(), kind)
    store = BlobStore()
    assert store.get(take(data, store)) == data
    assert normalised(data).notes == ()


def test_a_progressive_jpeg_is_normal_and_is_known_to_take_more_memory():
    plain, progressive = (normalised(saved(scene(), "JPEG", progressive=flag)) for flag in (False, True))
    assert plain.notes == progressive.notes == () and progressive.work > plain.work


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_photograph_stands_upright(orientation: int, kind: str):
    from PIL import ImageOps

    turns = {3: 180, 6: 90, 8: 270}
    stored = scene().rotate(turns.get(orientation, 0), expand=True)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = saved(stored, kind, exif=exif)
    upright = taken(data)
    if orientation in (1, 3, 6, 8):
        assert alike(upright, scene(), 8 if kind == "JPEG" else 0)
    with PIL.Image.open(io.BytesIO(data)) as same:
        assert alike(upright, ImageOps.exif_transpose(same), 8)
    assert upright.getexif().get(0x0112) is None or orientation == 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes_become_rgb(mode: str):
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG"
    picture = scene().quantize(4) if mode == "P" else scene() if mode == "LAB" else scene(mode)
    if mode == "LAB":
        srgb, lab = PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.createProfile("LAB")
        picture = PIL.ImageCms.applyTransform(picture, PIL.ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    expected = scene("L").convert("RGB") if mode == "L" else scene("1").convert("RGB") if mode == "1" else scene()
    assert alike(taken(saved(picture, kind)), expected, 9)


def test_cmyk_jpegs_keep_their_colours():
    assert alike(taken(saved(scene("CMYK"), "JPEG", quality=95)), scene("CMYK").convert("RGB"), 8)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF"])
def test_other_files_are_converted(kind: str):
    settings = {"lossless": True} if kind == "WEBP" else {}
    assert alike(taken(saved(scene(), kind, **settings)), scene(), 10)


def test_transparent_pixels_are_seen_over_white():
    layer = PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    layer.putpixel((1, 1), (255, 0, 0, 255))
    layer.putpixel((2, 2), (0, 0, 0, 128))
    picture = taken(saved(layer))
    assert picture.getpixel((0, 0)) == WHITE and picture.getpixel((1, 1)) == RED
    assert picture.getpixel((2, 2)) in {(127,) * 3, (126,) * 3, (128,) * 3}


def test_transparency_of_palettes_greys_and_single_colours_counts_too():
    palette = PIL.Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    grey = PIL.Image.new("LA", (2, 1), (0, 0))
    keyed = PIL.Image.new("RGB", (2, 1), (9, 9, 9))
    for data in (saved(palette, transparency=0), saved(grey), saved(keyed, transparency=(9, 9, 9))):
        assert taken(data).getpixel((0, 0)) == WHITE
    assert taken(saved(palette, transparency=0)).getpixel((1, 0)) == RED


def test_sixteen_bits_lose_their_lower_eight():
    deep = PIL.Image.new("I;16", (256, 1))
    for x in range(256):
        deep.putpixel((x, 0), x * 257)
    assert [taken(saved(deep)).getpixel((x, 0)) for x in (0, 1, 128, 255)] == [(x,) * 3 for x in (0, 1, 128, 255)]
    assert alike(taken(saved(deep, "TIFF")), taken(saved(deep)), 0)


def png(header: bytes, pixels: bytes) -> bytes:
    """A PNG of its parts."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_is_read():
    """Pillow writes none, so this PNG is made by hand: two pixels, red and mid grey."""
    rows = b"\x00" + struct.pack(">6H", 65535, 0, 0, 32896, 32896, 32896)

    data = png(struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0), zlib.compress(rows))
    picture = taken(data)
    assert picture.getpixel((0, 0)) == RED and picture.getpixel((1, 0)) == (128, 128, 128)


def test_floats_are_shares_of_white_or_stretched():
    shares = PIL.Image.new("F", (2, 1), 0.0)
    shares.putpixel((1, 0), 1.0)
    heights = PIL.Image.new("F", (2, 1), -500.0)
    heights.putpixel((1, 0), 8000.0)
    for picture in (shares, heights):
        assert [taken(saved(picture, "TIFF")).getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), WHITE]


def test_floats_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="no numbers"):
        taken(saved(PIL.Image.new("F", (2, 1), float("nan")), "TIFF"))


def linear_profile() -> bytes:
    """An RGB profile with the primaries of sRGB and no gamma, put together by hand (ICC.1:2001)."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    name = b"straight"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" * (1 + 78)
    tags = {
        b"desc": desc,
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
        b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        **{name: b"curv\0\0\0\0\0\0\0\0" for name in (b"rTRC", b"gTRC", b"bTRC")},
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4s4s4s4s4s", size, b"\0" * 4, b"\2\x10\0\0", b"mntr", b"RGB ", b"XYZ ") + b"\0" * 12
    header += b"acsp" + b"\0" * 28 + fixed(0.9642) + fixed(1) + fixed(0.8249)
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_another_profile_become_srgb(alpha: bool):
    """Half of the light is 128 in a profile without gamma, and 188 in sRGB."""
    grey = PIL.Image.new("RGBA" if alpha else "RGB", (4, 4), (128, 128, 128))
    data = saved(grey, icc_profile=linear_profile())
    assert "converted to sRGB" in normalised(data).notes
    assert {abs(value - 188) <= 1 for value in taken(data).getpixel((0, 0))} == {True}


def test_an_srgb_profile_changes_nothing_and_a_broken_one_is_left_aside():
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile at all"):
        data = saved(scene(), icc_profile=profile)
        assert normalised(data).notes == ()
        assert taken(data).tobytes() == scene().tobytes()


POSITION = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><exif:GPSLatitude>50,6.25N</exif:GPSLatitude></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("where", ["exif", "xmp"])
def test_a_photograph_does_not_say_where_it_was_taken(kind: str, where: str):
    exif = PIL.Image.Exif()
    exif[0x8825] = {1: "N", 2: (50.0, 6.0, 15.0)}
    if where == "exif":
        data = saved(scene(), kind, exif=exif)
    elif kind == "JPEG":
        data = saved(scene(), kind, xmp=POSITION)
    else:
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", POSITION.decode())
        data = saved(scene(), kind, pnginfo=info)
    assert normalised(data).notes == ("without its position",)
    kept = taken(data)
    assert not kept.getexif() and not any("xmp" in str(key).lower() for key in kept.info) and alike(kept, scene(), 8)


def test_what_is_encoded_again_carries_nothing_but_pixels():
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    exif = PIL.Image.Exif()
    exif[0x010F] = "a maker of cameras"
    for kind in ("JPEG", "TIFF"):
        kept = taken(saved(scene("L"), kind, icc_profile=srgb, exif=exif))
        assert not kept.getexif() and not {"icc_profile", "comment", "exif"} & set(kept.info)


def test_programs_are_not_run_to_read_a_picture():
    """PostScript would be handed to Ghostscript."""
    with pytest.raises(ValueError, match="no picture of a known kind"):
        take(saved(scene(), "EPS"), BlobStore())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_picture():
    data = saved(scene("L"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert taken(data).size == (60, 40)


def animated(kind: str) -> bytes:
    frames = [scene(), scene().rotate(180), scene().rotate(90)]
    return saved(
        frames[0],
        kind,
        save_all=True,
        append_images=frames[1:],
        duration=100,
        **({"lossless": True} if kind == "WEBP" else {}),
    )


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_and_that_is_said_or_it_is_refused(kind: str):
    data = animated(kind)
    assert "the first frame of an animation" in normalised(data).notes
    assert alike(taken(data), scene(), 10)
    with pytest.raises(ValueError, match=r"animated \(3 frames\)"):
        take(data, BlobStore(), IntakeLimits(animated="refuse"))


def cut_short(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def noise(kind: str) -> bytes:
    return saved(PIL.Image.effect_noise((200, 200), 90).convert("RGB"), kind)


def flipped(data: bytes) -> bytes:
    """One bit wrong in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x40]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (lambda: b"", "empty"),
        (lambda: b"GIF89a", "no picture|damaged"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"no picture of a known kind \(PNG, JPEG"),
        (lambda: b"\x00" * 5000, r"no picture of a known kind \(PNG, JPEG"),
        (lambda: cut_short(noise("PNG")), "damaged"),
        (lambda: cut_short(noise("JPEG")), "damaged"),
        (lambda: cut_short(noise("WEBP")), "damaged|no picture"),
        (lambda: cut_short(noise("TIFF")), "damaged|no picture"),
        (lambda: flipped(noise("PNG")), "damaged"),
        (lambda: noise("PNG")[:60], "damaged|no picture"),
    ],
)
def test_damaged_files_are_refused_by_name(data: Callable[[], bytes], wrong: str):
    with pytest.raises(ValueError, match=wrong):
        take(data(), BlobStore())


def test_nothing_of_a_refused_picture_is_stored(tmp_path: Any):
    with pytest.raises(ValueError, match="damaged"):
        take(cut_short(noise("JPEG")), BlobStore(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("side", [8000, 12_000, 30_000])
def test_a_bomb_is_refused_before_it_is_decoded(side: int):
    """A header that promises too much, with next to nothing behind it; Pillow itself warns of the second."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    with pytest.raises(ValueError, match=rf"{side} x {side} pixels|too large"):
        take(png(header, zlib.compress(b"\0" * 100)), BlobStore())


def test_limits_name_what_is_allowed():
    data = saved(scene())
    with pytest.raises(ValueError, match=r"60 x 40 pixels; at most 100"):
        take(data, BlobStore(), IntakeLimits(max_pixels=100))
    with pytest.raises(ValueError, match=rf"{len(data)} bytes; at most 10 are taken"):
        take(data, BlobStore(), IntakeLimits(max_bytes=10))
