"""Pictures as a model's eyes and hands: numbered, cut, turned, drawn on, read."""

from tools.image.budget import ImageBudget
from tools.image.coordinates import BoxRule, Convention, from_pixels, read_box, read_point, to_pixels
from tools.image.gallery import Gallery, Picture
from tools.image.intake import IntakeLimits, take
from tools.image.memory import PixelMemory
from tools.image.tools import image_tools
from tools.image.zoom import DEEPEYES, GEOVISTA, UV_COT, ZoomRule, zoom_tool

__all__ = [
    "DEEPEYES",
    "GEOVISTA",
    "UV_COT",
    "BoxRule",
    "Convention",
    "Gallery",
    "ImageBudget",
    "IntakeLimits",
    "Picture",
    "PixelMemory",
    "ZoomRule",
    "from_pixels",
    "image_tools",
    "read_box",
    "read_point",
    "take",
    "to_pixels",
    "zoom_tool",
]
