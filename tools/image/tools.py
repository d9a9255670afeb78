"""The picture tools of one episode, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tools.errors import ConfigError, nearest
from tools.image.coordinates import CONVENTIONS, Convention
from tools.image.gallery import Gallery
from tools.image.zoom import ZoomRule, zoom_tool
from tools.tool import Tool


def image_tools(
    gallery: Gallery, *names: str, convention: Convention = "pixel", zoom: ZoomRule | None = None
) -> tuple[Tool, ...]:
    """Tools over the pictures of `gallery`, in the order named.

    `convention` is how the model writes coordinates in all of them. Raises `ConfigError` for an unknown name.

    >>> from tools import BlobStore
    >>> [tool.name for tool in image_tools(Gallery(BlobStore()), "image_zoom_in_tool", convention="per_mille")]
    ['image_zoom_in_tool']
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"there are no coordinates {convention!r}", hint=nearest(convention, CONVENTIONS))
    known: Mapping[str, Callable[[], Tool]] = {
        "image_zoom_in_tool": lambda: zoom_tool(gallery, convention, zoom),
    }
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no picture tool {name!r}", hint=nearest(name, known))
    return tuple(known[name]() for name in names)
