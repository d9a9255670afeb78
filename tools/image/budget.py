"""How large a picture may be where a model sees it: decided once, on entry, the same in sampling and in training."""

from __future__ import annotations

import math

from tools.errors import ConfigError
from tools.record import record


@record
class ImageBudget:
    """Limits of one picture and of one context, in pixels.

    Within them a picture is shown as it is; beyond them it is scaled, its proportions kept as well as `multiple_of`
    allows. Where limits cannot all hold (a strip 1 pixel high), the upper ones do.

    >>> ImageBudget(max_pixels=262_144).shown_size(5000, 3000)
    (660, 396)
    >>> ImageBudget(max_pixels=262_144, multiple_of=28).shown_size(5000, 3000)
    (644, 392)
    """

    max_pixels: int = 1_048_576
    """Width times height."""
    min_pixels: int = 1
    """A smaller picture is enlarged."""
    min_side: int = 1
    """A picture with a shorter side is enlarged."""
    max_side: int | None = None
    multiple_of: int = 1
    """Both sides are multiples of it: the patch size times the patches that a model merges (28 for Qwen2.5-VL)."""
    max_images: int | None = None
    """Pictures of one episode; one more is refused."""

    def __post_init__(self) -> None:
        least = max(self.min_pixels, self.min_side**2, self.multiple_of**2)
        most = min(self.max_pixels, self.max_side**2 if self.max_side is not None else self.max_pixels)
        if min(self.min_pixels, self.min_side, self.multiple_of) < 1 or self.max_images == 0:
            raise ConfigError("an image budget's limits are whole numbers from 1 on")
        if least > most:
            raise ConfigError(
                f"no picture can have at least {least} and at most {most} pixels",
                hint="raise max_pixels or max_side, or lower min_pixels, min_side or multiple_of",
            )

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height at which a picture of this size is shown. Twice is the same as once.

        With `multiple_of` and the pixel limits alone this is `smart_resize` of Qwen2-VL's image processor (but for its
        rounding errors), which therefore finds nothing left to resize.
        """
        size = self._scaled(width, height)
        while (again := self._scaled(*size)) != size:  # only where limits conflict; sizes then grow up to max_pixels
            size = again
        return size

    def also(self, other: ImageBudget) -> ImageBudget:
        """Both limits at once. Raises `ConfigError` where no picture keeps both."""
        return ImageBudget(
            max_pixels=min(self.max_pixels, other.max_pixels),
            min_pixels=max(self.min_pixels, other.min_pixels),
            min_side=max(self.min_side, other.min_side),
            max_side=min((side for side in (self.max_side, other.max_side) if side is not None), default=None),
            multiple_of=math.lcm(self.multiple_of, other.multiple_of),
            max_images=min((most for most in (self.max_images, other.max_images) if most is not None), default=None),
        )

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        step = self.multiple_of
        wide, high = (max(step, round(side / step) * step) for side in (width, height))
        if self._scale_up(wide, high) > 1:
            grow = self._scale_up(width, height)
            wide, high = (max(step, math.ceil(side * grow / step - _TINY) * step) for side in (width, height))
        if not self._fits(wide, high):
            shrink = self._scale_down(width, height)
            wide, high = (max(step, math.floor(side * shrink / step + _TINY) * step) for side in (width, height))
        return self._within(wide, high)

    def _scale_up(self, width: int, height: int) -> float:
        return max(1.0, math.sqrt(self.min_pixels / (width * height)), self.min_side / min(width, height))

    def _scale_down(self, width: int, height: int) -> float:
        by_side = math.inf if self.max_side is None else self.max_side / max(width, height)
        return min(math.sqrt(self.max_pixels / (width * height)), by_side)

    def _fits(self, width: int, height: int) -> bool:
        return width * height <= self.max_pixels and (self.max_side is None or max(width, height) <= self.max_side)

    def _within(self, width: int, height: int) -> tuple[int, int]:
        """The longer side cut down: only where the shorter one is a single step and can give nothing."""
        step = self.multiple_of
        most = self.max_pixels // min(width, height)
        most = min(most, self.max_side or most) // step * step
        return min(width, most), min(height, most)


_TINY = 1e-9
"""So that 3 * (1 / 3) counts as 1."""
