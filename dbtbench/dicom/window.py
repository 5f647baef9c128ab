"""The displayed value of every stored value of a frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dbtbench.dicom.decoders import Stored
from dbtbench.errors import UnreadableError

WINDOWS = ("dicom", "duke", "none")
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
STEP = 1 / 65535
"""The difference of two stored intensities. A volume whose values all lie within it shows nothing."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Display:
    """The way of a frame from stored to displayed values.

    Attributes:
        bits_stored: of a pixel's 16.
        window: centre and width, in stored values after slope and intercept; None where there is none.
        function: one of `FUNCTIONS`.
        slope, intercept: of the pixel value transformation.
        inverted: whether the smallest value is white, as in MONOCHROME1.
        padding: the smallest and the largest stored value of pixels outside of the image; None without any.
    """

    bits_stored: int
    window: tuple[float, float] | None
    function: str = "LINEAR"
    slope: float = 1.0
    intercept: float = 0.0
    inverted: bool = False
    padding: tuple[int, int] | None = None

    @property
    def largest(self) -> int:
        """The largest stored value."""
        return int(2**self.bits_stored - 1)

    @property
    def falling(self) -> bool:
        """Whether a larger stored value is darker."""
        return (self.slope < 0) != self.inverted

    def is_padding(self, stored: Stored) -> NDArray[np.bool_]:
        """Test which pixels lie outside of the image."""
        low, high = self.padding or (1, 0)
        return (stored >= low) & (stored <= high)

    def measure_brightness(self, stored: Stored) -> NDArray[np.int64]:
        """Order stored values as they are displayed, before the window clips them; padding is darkest.

        Returns:
            Whole numbers from 0 on: the stored values themselves where larger ones are brighter.
        """
        values = stored.astype(np.int64)
        return np.where(self.is_padding(stored), 0, self.largest - values if self.falling else values)


@lru_cache(8)
def window_table(display: Display, window: str = "dicom", excess: float = 0) -> NDArray[np.float32]:
    """Compute the displayed value of every 16-bit stored value.

    `dicom`: the VOI LUT function of PS3.3 C.11.2.1.2 and C.11.2.1.3 after slope and intercept. `duke`: the
    way of the collection's own reader, skimage's rescale_intensity of stored values from centre ± width/2 to
    the whole numbers up to 65535, truncated. `none`: the stored value's share of the largest that
    `bits_stored` allows, or what is left to 1 where the slope is negative. MONOCHROME1 is inverted after all
    of them. Padding (PS3.3 C.7.5.1.1.2) is black.

    Args:
        display: of a frame.
        window: one of `WINDOWS`.
        excess: the amount by which the stored values are too large.

    Returns:
        (65536,) float32 in [0, 1]; read-only, as the last ones are kept.

    Raises:
        UnreadableError: when there is no window, or none that the standard allows, or all values look alike.
    """
    table = _show_all(display, window, excess)
    if display.padding:
        table[display.padding[0] : display.padding[1] + 1] = 0
    table.flags.writeable = False
    return table


def hides_padding(display: Display, window: str) -> bool:
    """Test whether padding would be seen if it were displayed as an ordinary value."""
    if not display.padding:
        return False
    low, high = display.padding
    return bool(window_table(replace(display, padding=None), window)[low : high + 1].any())


def _show_all(display: Display, window: str, excess: float) -> NDArray[np.float32]:
    """Compute the displayed values without regard to padding."""
    stored = np.maximum(np.arange(65536) - float(excess), 0)
    with np.errstate(all="ignore"):
        if window == "none":
            share = stored / display.largest
            displayed = 1 - share if display.slope < 0 else share
        elif display.window is None:
            raise UnreadableError("no window", "in no functional group, and not at the root")
        elif window == "duke":
            if display.slope < 0:
                raise UnreadableError("invalid window", "the window duke cannot follow a negative slope")
            displayed = _duke_window(stored, *display.window)
        else:
            values = stored * display.slope + display.intercept
            displayed = _voi_lut(values, *display.window, display.function)
        table = np.asarray(np.clip(1 - displayed if display.inverted else displayed, 0, 1), np.float32)
    seen = table[: display.largest + 1]
    if not np.isfinite(table).all():
        raise UnreadableError("invalid window", "it gives values that are no numbers")
    if np.ptp(seen) < STEP:
        raise UnreadableError("invalid window", "it shows all values alike")
    return table


def _duke_window(stored: Values, centre: float, width: float) -> Values:
    low, high = centre - width / 2, centre + width / 2
    _check_width(low < high)
    return np.floor((np.clip(stored, low, high) - low) / (high - low) * 65535) / 65535


def _voi_lut(values: Values, centre: float, width: float, function: str) -> Values:
    """Apply the VOI LUT function; the result is not yet clipped to [0, 1]."""
    if function == "LINEAR":
        _check_width(width >= 1)
        offset = values - (centre - 0.5)
        return offset / (width - 1) + 0.5 if width > 1 else np.sign(offset)
    _check_width(width > 0)
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    return (1 + np.tanh(2 * (values - centre) / width)) / 2  # 1/(1 + exp(-4x)) that cannot overflow


def _check_width(allowed: bool) -> None:
    if not allowed:
        raise UnreadableError("invalid window", "its width is too small")
