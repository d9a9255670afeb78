"""Boxes and paths drawn by label, as ViLaSR (arXiv 2506.09965) draws: Object Mapper and Path Tracer.

What is drawn on an image is kept by label. Writing a label again replaces what stood under it, and the image is drawn
anew from its clean copy, as a new image with the next number. One call may touch several images; each touched one
comes back, in the order of its first mention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from tools.image.coordinates import Box, BoxRule, Convention, Point, read_box, read_point
from tools.image.describe import COORDINATES, NUMBER, described
from tools.image.drawing import Dot, Label, Line, Op, Rectangle, drawn
from tools.image.gallery import Gallery
from tools.image.memory import off_loop
from tools.schema import JSONSchema
from tools.tool import Tool, ToolError, ToolResult

COLOURS = ("red", "blue", "green", "orange", "purple", "cyan", "magenta", "brown", "olive", "teal")
"""Taken by the labels of an image in turn."""

WIDTH = 4
"""Pixels of every line, as ViLaSR draws them."""
MOST_ITEMS = 50
"""Of one call."""
MOST_LABELS = 200
"""Of one image."""

Shape = tuple[Op, ...]


@final
class LabelledDrawings:
    """What is drawn on each image of a gallery, by label."""

    def __init__(
        self, gallery: Gallery, convention: Convention = "pixel", *, width: int = WIDTH, words: bool = True
    ) -> None:
        """`width` is that of every line, in pixels; without `words` labels are not written on the image."""
        self.gallery = gallery
        self.convention: Convention = convention
        self.width = width
        self.words = words
        self._shapes: dict[int, dict[str, Shape]] = {}

    @property
    def tools(self) -> tuple[Tool, Tool]:
        """`object_mapper` and `path_tracer`."""

        async def object_mapper(items: list[dict[str, Any]]) -> ToolResult:
            return await off_loop(lambda: self.put(items, self._box))

        async def path_tracer(items: list[dict[str, Any]]) -> ToolResult:
            return await off_loop(lambda: self.put(items, self._path))

        how = f"Coordinates are {COORDINATES[self.convention]}. A label that is written again moves what it names."
        slots = self.gallery.slots()
        return (
            described(
                object_mapper,
                "object_mapper",
                f"Draw boxes with labels on images. {how}",
                {"items": _items({"bbox_2d": _numbers(4, "[x1, y1, x2, y2]")})},
                slots,
            ),
            described(
                path_tracer,
                "path_tracer",
                f"Draw straight paths on images, from a red dot to a blue one. {how}",
                {"items": _items({"start_point_2d": _numbers(2, "[x, y]"), "end_point_2d": _numbers(2, "[x, y]")})},
                slots,
            ),
        )

    def put(self, items: Sequence[Mapping[str, Any]], shape: Callable[[Mapping[str, Any], int], Shape]) -> ToolResult:
        """Draw all items, or, where one of them is wrong, none. Raises `ToolError` that names the item."""
        if not 1 <= len(items) <= MOST_ITEMS:
            raise ToolError(f"Give 1 to {MOST_ITEMS} items in one call, not {len(items)}.")
        shapes: dict[int, dict[str, Shape]] = {}
        for number, item in enumerate(items, start=1):
            try:
                index: Any = item.get("index")
                self.gallery[index]
                of_image = shapes.setdefault(index, dict(self._shapes.get(index, {})))
                of_image[str(item.get("label", ""))] = shape(item, _place(of_image, str(item.get("label", ""))))
                if len(of_image) > MOST_LABELS:
                    raise ToolError(f"image {index} holds {MOST_LABELS} labels, and no more are drawn.")
            except ToolError as error:
                raise ToolError(f"Item {number}: {error} Nothing was drawn.") from error
        made = self.gallery.add_all(
            [drawn(self.gallery.shown_pixels(index), _ops(of_image)) for index, of_image in shapes.items()]
        )
        self._shapes |= shapes
        return self.gallery.result(*made, data={"of": list(shapes)})

    def ops(self, index: int) -> tuple[Op, ...]:
        """Everything that is drawn on image `index` now."""
        return _ops(self._shapes.get(index, {}))

    def _box(self, item: Mapping[str, Any], place: int) -> Shape:
        box = read_box(item.get("bbox_2d"), "bbox_2d", self.convention, self._size(item), BoxRule(max_aspect=1e9))
        colour = COLOURS[place % len(COLOURS)]
        return (Rectangle(box=box, colour=colour, width=self.width), *self._words(item, box, colour))

    def _path(self, item: Mapping[str, Any], place: int) -> Shape:
        ends: list[Point] = []
        for name in ("start_point_2d", "end_point_2d"):
            ends.append(read_point(item.get(name), name, self.convention, self._size(item), clamp=False))
        start, end = ends
        return (
            Line(start=start, end=end, colour="black", width=self.width),
            Dot(at=start, radius=self.width, colour="red"),
            Dot(at=end, radius=self.width, colour="blue"),
            *self._words(item, (*start, *end), "black"),
        )

    def _size(self, item: Mapping[str, Any]) -> tuple[int, int]:
        shown = self.gallery.shown(item["index"])
        return shown.width, shown.height

    def _words(self, item: Mapping[str, Any], box: Box, colour: str) -> Shape:
        """The label, 8 pixels right of and 6 below the corner."""
        text = str(item.get("label", ""))
        return (Label(at=(box[0] + 8, box[1] + 6), text=text, colour=colour),) if text and self.words else ()


def _items(places: Mapping[str, JSONSchema]) -> JSONSchema:
    """A list of objects: an image's index, a label, and where."""
    index = {"type": "integer", "description": NUMBER}
    properties = {"index": index, **places, "label": {"type": "string"}}
    one = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_ITEMS}


def _numbers(count: int, form: str) -> JSONSchema:
    number = {"type": "number"}
    return {"type": "array", "items": number, "minItems": count, "maxItems": count, "description": form}


def _place(of_image: Mapping[str, Shape], label: str) -> int:
    """How many labels came before this one."""
    return list(of_image).index(label) if label in of_image else len(of_image)


def _ops(shapes: Mapping[str, Shape]) -> tuple[Op, ...]:
    return tuple(op for shape in shapes.values() for op in shape)
