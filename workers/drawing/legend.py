"""The legend: what the picture shows, by which model, and what it must not be used for."""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.domain.catalog import Sense
from workers.drawing.overlay import Scale
from workers.drawing.palettes import diverging, sequential, weights

Rgb = NDArray[np.uint8]
BACKGROUND, RULE = (14, 16, 20), (58, 63, 72)
BRIGHT, MUTED, WARNING = (236, 238, 241), (158, 165, 175), (255, 190, 66)
SMALLEST = 13
"""Smallest height of letters, in pixels, that reads on any screen."""

NARROW = 480
"""Columns below which the legend stands beside the image, not below it."""

CAUTION = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"

BARS: Final[Mapping[Sense, tuple[str, str]]] = {
    "evidence": ("evidence for the target", "evidence against | for"),
    "sensitivity": ("sensitivity of the score", "higher lowers | raises"),
    "guided": ("guided gradient", "guided gradient - | +"),
}
"""Titles of the color bar: of maps without a sign, and with one."""


@dataclass(frozen=True, slots=True)
class Legend:
    """The words of a legend, most important first."""

    heading: str
    """What is explained."""

    figures: str
    """The score that is explained."""

    grade: str
    """How far the map may be believed."""

    lines: tuple[str, ...]
    """What was found, method, model, cell size."""

    warnings: tuple[str, ...] = ()
    """What a reader must know before believing the picture."""

    grave: tuple[str, ...] = ()
    """Warnings that outweigh the evidence; they stand next to the grade."""

    scale: Scale | None = None
    """Scale of the color bar; without one there is no color in the picture."""

    sense: Sense = "evidence"
    """What the values on it mean."""


def legible(text: str, fallback: str) -> str:
    """Return `text` in the letters the built-in font has, else `fallback`."""
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().strip()
    letters = sum(letter.isalpha() for letter in text)
    return folded if sum(letter.isalpha() for letter in folded) >= letters else fallback


def page_with(legend: Legend, rows: int, columns: int) -> Rgb:
    """Return a page whose top left ``(rows, columns)`` are left for the image.

    The legend stands below the image, or beside it where that is narrow.
    """
    size = max(SMALLEST, round(0.0165 * min(columns, 2 * rows)))
    if columns >= NARROW:
        panel = _Panel.of(legend, columns, size)
        page = np.empty((rows + panel.height, columns, 3), np.uint8)
        panel.draw(page[rows:])
        return page
    panel = _Panel.of(legend, 27 * size, size)
    page = np.empty((max(rows, panel.height), columns + panel.width, 3), np.uint8)
    _clear(page)
    panel.draw(page[:, columns:])
    return page


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of text and where its top lies."""

    text: str
    size: int
    color: tuple[int, int, int]
    top: int = field(default=0)


@dataclass(frozen=True, slots=True)
class _Panel:
    """A legend, laid out."""

    width: int
    height: int
    size: int
    """Height of letters."""

    lines: list[_Line]
    scale: Scale | None
    title: str
    """What stands above the color bar."""

    bar: tuple[slice, slice]
    """Rows and columns of the color bar, if there is a scale."""

    @classmethod
    def of(cls, legend: Legend, width: int, size: int) -> Self:
        """Lay out a legend `width` wide and as high as it must be."""
        margin = size
        wide = width >= 36 * size and legend.scale is not None
        full, bar = width - 2 * margin, round(width * 0.3) if wide else width - 2 * margin
        bar_height = round(4.4 * size)
        below = margin + bar_height if wide else 0
        lines, height = _stack(legend, (full - bar - 2 * margin, full), below, size)
        top, right = margin if wide else height, width - margin
        if legend.scale is not None:
            height = max(height, top + bar_height)
        place = np.s_[top : top + bar_height, right - bar : right]
        signed = legend.scale is not None and legend.scale.signed
        return cls(width, height, size, lines, legend.scale, BARS[legend.sense][signed], place)

    def draw(self, into: Rgb) -> None:
        """Draw it at the top of `into`, shape ``(height or more, width, 3)``."""
        _clear(into)
        into[: max(1, self.size // 12) + 1] = RULE
        for line in self.lines:
            _put(into, line.top, self.size, _strip(line.text, line.size, line.color))
        if self.scale is not None:
            _bar(into[self.bar], self.scale, self.title, self.size)


def _clear(page: Rgb) -> None:
    """Take away all ink; a row at a time is ten times as fast as pixel by pixel."""
    page[:] = np.tile(np.array(BACKGROUND, np.uint8), (page.shape[1], 1))


def _put(page: Rgb, top: int, left: int, piece: Rgb) -> None:
    """Lay a piece on the page; what reaches beyond it is cut off."""
    room = page[top : top + len(piece), left : left + piece.shape[1]]
    room[:] = piece[: room.shape[0], : room.shape[1]]


def _stack(
    legend: Legend, widths: tuple[int, int], below: int, size: int
) -> tuple[list[_Line], int]:
    """Wrap every text and place the lines; return them and their height.

    Parameters
    ----------
    widths
        Of lines beside the color bar, and of those below it.
    below
        Where the color bar ends; 0 when no line stands beside it.
    """
    large = round(size * 1.45)
    blocks = [
        (legend.heading, large, BRIGHT),
        (legend.figures, size, BRIGHT),
        (legend.grade, size, BRIGHT),
        *((warning, size, WARNING) for warning in legend.grave),
        *((line, size, MUTED) for line in legend.lines),
        *((warning, size, WARNING) for warning in legend.warnings),
        (CAUTION, size, WARNING),
    ]
    placed, top = [], round(size * 0.8)
    for text, height, color in blocks:
        words = text.split()
        while words:
            line, words = _line(words, widths[top >= below], height)
            placed.append(_Line(line, height, color, top))
            top += round(height * 1.4)
    return placed, top + round(size * 0.5)


def _line(words: list[str], width: int, size: int) -> tuple[str, list[str]]:
    """Return the words that fit `width`, one at least, as a line; and those that are left."""
    reached, space = 0.0, _length(" ", size)
    for count, word in enumerate(words):
        reached += _length(word, size) + (space if count else 0)
        if count and reached > width:
            return " ".join(words[:count]), words[count:]
    return " ".join(words), []


@lru_cache(maxsize=4096)
def _length(word: str, size: int) -> float:
    return _font(size).getlength(word)


@lru_cache(maxsize=128)
def _strip(text: str, size: int, color: tuple[int, int, int]) -> Rgb:
    """Return a line as it looks; most lines are the same on every picture."""
    page = Image.new("RGB", (math.ceil(_length(text, size)) + 1, round(size * 1.4)), BACKGROUND)
    ImageDraw.Draw(page).text((0, 0), text, font=_font(size), fill=color)
    return np.asarray(page)


def _bar(into: Rgb, scale: Scale, title: str, size: int) -> None:
    """Draw the color bar as its colors look over mid gray, with its numbers."""
    width = into.shape[1]
    level = np.linspace(0, 255, width).astype(int)
    colors = (diverging() if scale.signed else sequential())[level].astype(float)
    weight = weights(signed=scale.signed)[level][:, None] / 256
    thick, top = round(size * 1.1), round(size * 1.5)
    _put(into, 0, 0, _strip(title, size, MUTED))
    into[top : top + thick] = (colors * weight + 96 * (1 - weight)).astype(np.uint8)
    ends = (-scale.full, 0.0, scale.full) if scale.signed else (0.0, scale.full)
    for number, value in enumerate(ends):
        text = f"{value:.3g}"
        left = round(number / (len(ends) - 1) * (width - _length(text, size)))
        _put(into, top + thick + round(size * 0.3), left, _strip(text, size, MUTED))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font
