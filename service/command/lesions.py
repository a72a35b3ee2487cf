"""The known lesions of the bundled phantoms, and where a map's peak lies."""

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.command.failure import CommandFailure

TRUTH = "lesions.json"
ISSUED = "issued.json"
Peak = tuple[float, float]
"""Row and column in source pixels; the center of the first pixel is ``(0, 0)``."""


class Lesions:
    """The exact masks of a folder of phantom studies.

    Parameters
    ----------
    folder
        Holds ``lesions.json``, the DICOM files and the masks it names, and
        ``issued.json``: what the AI said when it issued its results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            images = json.loads((folder / TRUTH).read_text())["images"]
            self._issued = json.loads((folder / ISSUED).read_text())
        except (OSError, ValueError, KeyError):
            raise CommandFailure(f"{folder} holds no bundled studies.") from None
        self._markers: dict[str, Path] = {
            image["dicom"]: folder / image["marker"]["mask"]
            for image in images
            if "marker" in image
        }
        self._masks: dict[str, dict[str, Path]] = {
            image["dicom"]: {
                lesion["finding"]: folder / lesion["mask"] for lesion in image["lesions"]
            }
            for image in images
        }

    def studies(self) -> list[Path]:
        """Return the DICOM files, in the order of the truth file."""
        return [self._folder / name for name in self._masks]

    def marked(self, study: Path) -> bool:
        """Tell whether a study shows the planted marker."""
        return study.name in self._markers

    def issued(self, study: Path, model: str) -> dict[str, float]:
        """Return the logits that were issued for a study, by finding; empty if none were."""
        found: dict[str, float] = self._issued.get(model, {}).get(study.stem, {})
        return found

    def findings(self, study: Path) -> frozenset[str]:
        """Return the findings that were drawn into a study."""
        return frozenset(self._masks[study.name])

    def hit(self, study: Path, finding: str, peak: Peak) -> bool | None:
        """Tell whether `peak` lies in the lesion; `None` when the image has no such lesion."""
        path = self._masks[study.name].get(finding)
        return None if path is None else _holds(path, peak)

    def on_marker(self, study: Path, peak: Peak, cell: Peak) -> bool | None:
        """Tell whether the map's cell at `peak` covers part of the planted marker.

        `cell` holds the cell's edges, in source pixels; `None` where no marker is.
        """
        path = self._markers.get(study.name)
        if path is None:
            return None
        rows, columns = (
            slice(max(0, math.ceil(center - edge / 2)), math.floor(center + edge / 2) + 1)
            for center, edge in zip(peak, cell, strict=True)
        )
        return bool(_mask(path)[rows, columns].any())


def _holds(path: Path, peak: Peak) -> bool:
    """Tell whether a mask holds a point."""
    mask = _mask(path)
    row, column = (round(value) for value in peak)
    inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
    return inside and bool(mask[row, column])


def _mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask, shape ``(rows, columns)``; the lesion is what is not black."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L")) > 0
