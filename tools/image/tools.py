"""The picture tools of one episode, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tools.errors import ConfigError, nearest
from tools.image.coordinates import CONVENTIONS, Convention
from tools.image.detect import Detector, find_tool
from tools.image.gallery import Gallery
from tools.image.mapper import LabelledDrawings
from tools.image.ocr import Reader, ocr_tool
from tools.image.sketch import Sketch
from tools.image.transforms import enhance_tool, flip_tool, resize_tool, rotate_tool
from tools.image.zoom import ZoomRule, zoom_tool
from tools.tool import Tool


def image_tools(
    gallery: Gallery,
    *names: str,
    convention: Convention = "pixel",
    zoom: ZoomRule | None = None,
    reader: Reader | None = None,
    detector: Detector | None = None,
) -> tuple[Tool, ...]:
    """Tools over the pictures of `gallery`, in the order named.

    `convention` is how the model writes coordinates in all of them but `sketch`, whose own are from 0 to 1. `reader` is
    what `ocr` reads with, RapidOCR if left out; `detector` what `image_find_tool` looks with. Raises `ConfigError` for
    an unknown name.

    >>> from tools import BlobStore
    >>> [tool.name for tool in image_tools(Gallery(BlobStore()), "image_zoom_in_tool", convention="per_mille")]
    ['image_zoom_in_tool']
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"there are no coordinates {convention!r}", hint=nearest(convention, CONVENTIONS))

    def find() -> Tool:
        if detector is None:
            raise ConfigError("image_find_tool needs a detector, and none is given", hint="image_tools(detector=...)")
        return find_tool(gallery, detector, convention)

    drawings = LabelledDrawings(gallery, convention)
    known: Mapping[str, Callable[[], Tool]] = {
        "image_zoom_in_tool": lambda: zoom_tool(gallery, convention, zoom),
        "image_rotate_tool": lambda: rotate_tool(gallery),
        "image_flip_tool": lambda: flip_tool(gallery),
        "image_resize_tool": lambda: resize_tool(gallery),
        "image_enhance_tool": lambda: enhance_tool(gallery),
        "object_mapper": lambda: drawings.tools[0],
        "path_tracer": lambda: drawings.tools[1],
        "image_find_tool": find,
        "ocr": lambda: ocr_tool(gallery, convention, reader),
        "sketch": lambda: Sketch(gallery).tool,
    }
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no picture tool {name!r}", hint=nearest(name, known))
    return tuple(known[name]() for name in names)
