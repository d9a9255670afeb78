"""Reverse image search as a tool: which pictures look like this one, or like a part of it?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import final

from tools.content import BlobStore, Content, Image, Text
from tools.search.hit import Hit, Query, SearchFailed
from tools.search.pictures import PictureProvider
from tools.search.published import PublishedAnswer
from tools.search.tool import failed, numbered
from tools.tool import Tool, ToolError, ToolResult, tool_of

SMALLEST = 8
"""Pixels a cropped side must have."""


@final
class PictureSearchTool:
    """`image_search_by_image` for one episode: `shown` are the pictures the model sees, the first is number 1.

    With `whole` the tool takes no argument and asks with the first picture, the form of MMSearch-R1 and DeepEyesV2;
    with `thumbnails` it shows the pictures that were found beside their titles, as these do.
    """

    def __init__(
        self,
        provider: PictureProvider | PublishedAnswer,
        shown: Sequence[Image],
        blobs: BlobStore,
        *,
        k: int = 3,
        whole: bool = False,
        thumbnails: bool = False,
    ) -> None:
        self.provider, self.shown, self.blobs, self.k = provider, tuple(shown), blobs, k
        self.thumbnails = thumbnails
        self.tool: Tool = (
            tool_of(self._whole, name="image_search", parallel_safe=True)
            if whole
            else tool_of(self._part, name="image_search_by_image", parallel_safe=True)
        )

    async def _whole(self) -> ToolResult:
        """Search for pictures that look like the one in the question."""
        return await self._part(1)

    async def _part(self, image: int = 1, box: list[float] | None = None) -> ToolResult:
        """Search for pictures that look like one of those shown, or like a part of it.

        Args:
            image: Its number; 1 is the first that was shown.
            box: The part, as [left, top, right, bottom] in pixels; the whole picture if left out.
        """
        if not 1 <= image <= len(self.shown):
            raise ToolError(f"There is no picture {image}; there are {len(self.shown)}, counted from 1.")
        asked = self.shown[image - 1]
        if box is not None:
            asked = self._cropped(asked, box)
        if isinstance(self.provider, PictureProvider):
            self.provider.ask_with(asked)
        try:
            hits = await self.provider.search(Query(kind="by_image", image=asked.sha256, k=self.k))
        except SearchFailed as error:
            return failed(error)
        data = {"image": asked.sha256, "hits": [hit.info["id"] for hit in hits]}
        if not hits:
            return ToolResult(content=(Text(text="Nothing was found that looks like it."),), data=data)
        if not self.thumbnails:
            return ToolResult(content=(Text(text=numbered(hits, 300)),), data=data)
        return ToolResult(content=tuple(self._with_thumbnails(hits)), data=data)

    def _with_thumbnails(self, hits: Sequence[Hit]) -> Iterator[Content]:
        for number, hit in enumerate(hits, start=1):
            yield Text(text=f"{number}. {hit.title or '(no title)'}\n")
            data = self.provider.thumbnail(hit)
            try:
                shown = None if data is None else self.blobs.put(data)
            except ValueError:  # found, but in no format that models are shown
                shown = None
            if shown is not None:
                yield shown
                yield Text(text="\n")

    def _cropped(self, image: Image, box: list[float]) -> Image:
        inside = f"[0, 0, {image.width}, {image.height}]"
        if len(box) != 4:
            raise ToolError(f"A box is [left, top, right, bottom] within {inside}, not {len(box)} numbers.")
        left, top = max(0.0, box[0]), max(0.0, box[1])
        right, bottom = min(float(image.width), box[2]), min(float(image.height), box[3])
        if not all(map(math.isfinite, box)) or right - left < SMALLEST or bottom - top < SMALLEST:
            raise ToolError(f"The box {box} has no {SMALLEST} x {SMALLEST} pixels within {inside}.")
        return self.blobs.put_image(self.blobs.open(image).crop((int(left), int(top), int(right), int(bottom))))
