"""Pictures that were looked at once, and must stay as they are.

Run as ``python -m tests.support.golden`` to draw them anew after a change that is
meant; then look at them before they are committed.
"""

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from service.domain.grid import Grid
from service.domain.parity import MapParity
from service.domain.request import Style
from tests.support.sheets import MODEL, REPORT, TARGET, blob
from workers.drawing.contour import contours, outline
from workers.drawing.overlay import overlay, scale_of
from workers.drawing.picture import Words, draw

FOLDER = Path(__file__).parent.parent / "workers" / "drawing" / "golden"
SHAPE = (120, 160)
CELLS = (14, 14)
WORDS = Words(
    target=TARGET,
    method="Grad-CAM",
    model=MODEL,
    checks=(),
    trust=REPORT,
    parity=MapParity(),
    degenerate=False,
)


def chest() -> NDArray[np.uint8]:
    """Two dark lungs in a bright body, with some grain."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    body = 190 - 60 * ((row - 60) / 90.0) ** 2 - 70 * ((column - 80) / 100.0) ** 2
    for center in (48, 112):
        body -= 120 * np.exp(-(((column - center) / 20.0) ** 2) - ((row - 60) / 38.0) ** 2)
    grain = np.random.default_rng(0).normal(0, 4, SHAPE)
    return np.asarray(np.clip(body + grain, 0, 255), np.uint8)


def pictures() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Draw every style on the same image, by name."""
    grid, image = Grid.partition(CELLS, SHAPE), chest()
    for name, signed in (("evidence", False), ("evidence_for_and_against", True)):
        relevance = blob(CELLS, signed=signed)[0]
        scale = scale_of(relevance, signed=signed)
        assert scale is not None
        colored = np.empty((*SHAPE, 3), np.uint8)
        overlay(image, relevance, grid, scale, colored)
        yield name, colored
        lined = np.empty((*SHAPE, 3), np.uint8)
        outline(image, contours(relevance, grid, SHAPE, scale), lined)
        yield f"{name}_by_lines", lined


def pages() -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Draw finished pictures, with legend and any color bar: name, page, and the image drawn on.

    The legend stands below a wide image and beside a narrow one.
    """
    narrow = chest()
    wide = narrow.repeat(3, axis=0).repeat(3, axis=1)
    drawn: tuple[tuple[str, bool, NDArray[np.uint8], Style], ...] = (
        ("page_of_evidence", False, wide, "overlay"),
        ("page_of_evidence_for_and_against", True, narrow, "overlay"),
        ("page_of_lines_for_and_against", True, wide, "contour"),
    )
    for name, signed, image, style in drawn:
        relevance = blob(CELLS, signed=signed)
        grid = Grid.partition(CELLS, (image.shape[0], image.shape[1]))
        scale = scale_of(relevance[0], signed=signed)
        yield name, draw(image, relevance, grid, WORDS, scale, style=style), image


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    drawn = dict(pictures()) | {name: page for name, page, _ in pages()}
    for name, picture in drawn.items():
        (FOLDER / f"{name}.png").write_bytes(imagecodecs.png_encode(picture, level=9))


if __name__ == "__main__":
    main()
