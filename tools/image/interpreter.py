"""The code interpreter, with an episode's pictures in it: `image_1` to `image_n`, and new ones numbered after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, final

from tools.content import Text
from tools.image.gallery import Gallery
from tools.image.intake import encoded
from tools.image.memory import off_loop
from tools.python.tool import PythonTool
from tools.tool import Tool, ToolError, ToolResult, tool_of

_ABOUT = (
    "Run Python code and see what it prints. Variables are kept; the value of the last expression is shown. "
    "image_1, image_2, ... are the images so far, as Pillow images {size}; images that the code shows are new images."
)


_LARGEST = 48 * 2**20
"""Bytes of a picture that is sent to a session as it is stored: less than a message may hold."""


@final
class PicturePython:
    """`python(code)` over the pictures of a gallery, as a resource of one episode.

    Before each call the pictures that the session has not got yet are bound in it, `at` full resolution or as they are
    shown. A figure or picture that the code shows enters the gallery; one that cannot is said to be left out.

    >>> import PIL.Image
    >>> from tools.content import BlobStore
    >>> gallery = Gallery(BlobStore())
    >>> gallery.add(PIL.Image.new("RGB", (40, 20), "red"))
    1
    >>> import asyncio
    >>> async def example():
    ...     python = PicturePython(gallery, PythonTool())
    ...     result = await python.tool.fn(code="print(image_1.size); image_1.rotate(90, expand=True)")
    ...     await python.close()
    ...     return result.content[0].text, len(gallery)
    >>> asyncio.run(example())
    ('(40, 20)\\nimage_2 (width: 20, height: 40):\\n', 2)
    """

    def __init__(self, gallery: Gallery, python: PythonTool, at: Literal["full", "shown"] = "full") -> None:
        self.gallery = gallery
        self.inner = python
        self.at: Literal["full", "shown"] = at
        size = "at full resolution" if at == "full" else "of the size shown"
        self.tool: Tool = replace(tool_of(self.python), description=_ABOUT.format(size=size))

    async def python(self, code: str) -> ToolResult:
        """Run code.

        Args:
            code: Python source code.
        """
        for index in range(len(self.inner.images) + 1, len(self.gallery) + 1):
            self.inner.images[f"image_{index}"] = await self._bytes(index)
        result, note = await self.inner.run(code)
        made, problems = await self._entered(result.images)
        pictures = self.gallery.content(*made)
        told = self.inner.told(result, note, pictures, "\n".join(problems))
        said = told.content[0] if len(told.content) > len(pictures) else None
        if made and isinstance(said, Text):  # the caption begins a line of its own
            told = replace(told, content=self.gallery.content(*made, text=said.text))
        return replace(told, data={**told.data, "images": self.gallery.places(*made)})

    async def close(self) -> None:
        """Give the interpreter back."""
        await self.inner.close()

    async def _bytes(self, index: int) -> bytes:
        if self.at == "shown":
            return self.gallery.blobs.get(self.gallery.shown(index))

        def full() -> bytes:
            data = self.gallery.blobs.get(self.gallery.original(index))
            return data if len(data) <= _LARGEST else encoded(self.gallery.pixels(index), lossy=True)

        async with self.gallery.slots(copies=2):
            return await off_loop(full)

    async def _entered(self, pictures: Sequence[bytes]) -> tuple[list[int], list[str]]:
        """Number what the code showed; a sentence for each picture that cannot be."""
        made: list[int] = []
        problems: list[str] = []
        for data in pictures:
            try:
                made.append(await self.gallery.enter(data))
            except (ToolError, ValueError) as error:
                problems.append(f"(A picture that the code showed was left out: {error})")
        return made, problems
