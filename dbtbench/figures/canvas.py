"""A picture with texts, saved as what its suffix says: texts stay texts where the format has them."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from dbtbench.errors import UsageError
from dbtbench.runtime.files import atomic_path
from dbtbench.runtime.text import one_line

Colour = tuple[int, int, int]
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".pdf": "PDF", ".svg": "SVG"}
QUALITY = 95
"""Of JPEG, which pillow writes into PDF too."""
ANCHORS = {"l": "start", "m": "middle", "r": "end"}
"""Anchors of a text, as pillow and as SVG name them: its point is the left end, the middle or the right."""


class Text(NamedTuple):
    """One line of text; its point lies at the top of it."""

    left: float
    top: float
    words: str
    colour: Colour
    size: int
    anchor: str


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the font of every picture, `size` pixels high."""
    return ImageFont.load_default(size)


def check_suffix(path: Path) -> str:
    """Find the format that a picture's suffix says.

    Raises:
        UsageError: for another suffix.
    """
    format_ = SUFFIXES.get(path.suffix.lower())
    if format_ is None:
        found = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise UsageError(
            f"{path.name}: a picture's suffix is its format, and this one {found}",
            f"those that work: {', '.join(SUFFIXES)}",
        )
    return format_


class Canvas:
    """A white picture to draw on.

    Args:
        width: in pixels.
        height: in pixels.

    Attributes:
        image: what is drawn, without the texts.
        pen: draws on it.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self.pen = ImageDraw.Draw(self.image)
        self._texts: list[Text] = []

    def write(
        self, at: tuple[float, float], words: str, colour: Colour, size: int, anchor: str = "l"
    ) -> None:
        """Write one line of text over everything that is drawn.

        Args:
            at: a point at its top.
            words: the text; what would control a reader of it is written out.
            colour: red, green, blue.
            size: pixels.
            anchor: l, m or r: the point is the left end, the middle or the right end.
        """
        self._texts.append(Text(*at, one_line(words), colour, size, anchor))

    def save(self, path: Path, title: str) -> None:
        """Write the picture as its suffix says; the same picture gives the same bytes.

        Args:
            path: .png, .jpg, .jpeg, .pdf or .svg.
            title: what PDF and SVG files are called inside.

        Raises:
            UsageError: for another suffix.
        """
        format_ = check_suffix(path)
        with atomic_path(path) as temporary:
            if format_ == "SVG":
                temporary.write_text(self._as_svg(one_line(title)), encoding="utf-8", newline="\n")
                return
            options: dict[str, dict[str, Any]] = {
                "PNG": {},
                "JPEG": {"quality": QUALITY, "subsampling": 0},
                # A date would make the bytes differ.
                "PDF": {
                    "quality": QUALITY,
                    "subsampling": 0,
                    "title": one_line(title),
                    "creationDate": None,
                    "modDate": None,
                },
            }
            self._draw_texts().save(temporary, format=format_, **options[format_])

    def _draw_texts(self) -> Image.Image:
        image = self.image.copy()
        pen = ImageDraw.Draw(image)
        for text in self._texts:
            at = (text.left, text.top)
            pen.text(at, text.words, text.colour, font(text.size), anchor=f"{text.anchor}a")
        return image

    def _as_svg(self, title: str) -> str:
        width, height = self.image.size
        stream = BytesIO()
        self.image.save(stream, format="PNG")
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif" role="img">',
            f"<title>{escape(title)}</title>",
            f'<image width="{width}" height="{height}"'
            f' href="data:image/png;base64,{b64encode(stream.getvalue()).decode()}"/>',
        ]
        for text in self._texts:
            known = font(text.size)
            ascent = known.getmetrics()[0] if isinstance(known, ImageFont.FreeTypeFont) else text.size
            lines.append(
                f'<text x="{text.left:g}" y="{text.top + ascent:g}" font-size="{text.size}"'
                f' fill="rgb{text.colour}" text-anchor="{ANCHORS[text.anchor]}">{escape(text.words)}</text>'
            )
        return "\n".join([*lines, "</svg>", ""])
