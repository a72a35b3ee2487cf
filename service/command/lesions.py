"""The known lesions of the bundled phantoms, and whether a map's peak lies in one."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.command.failure import CommandFailure

TRUTH = "lesions.json"
Peak = tuple[float, float]
"""Row and column in source pixels; the center of the first pixel is ``(0, 0)``."""


class Lesions:
    """The exact masks of a folder of phantom studies.

    Parameters
    ----------
    folder
        Holds ``lesions.json``, the DICOM files and the masks it names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            images = json.loads((folder / TRUTH).read_text())["images"]
        except (OSError, ValueError, KeyError):
            raise CommandFailure(f"{folder} holds no bundled studies.") from None
        self._masks: dict[str, dict[str, Path]] = {
            image["dicom"]: {
                lesion["finding"]: folder / lesion["mask"] for lesion in image["lesions"]
            }
            for image in images
        }

    def studies(self) -> list[Path]:
        """Return the DICOM files, in the order of the truth file."""
        return [self._folder / name for name in self._masks]

    def findings(self, study: Path) -> frozenset[str]:
        """Return the findings that were drawn into a study."""
        return frozenset(self._masks[study.name])

    def hit(self, study: Path, finding: str, peak: Peak) -> bool | None:
        """Tell whether `peak` lies in the lesion; `None` when the image has no such lesion."""
        path = self._masks[study.name].get(finding)
        if path is None:
            return None
        mask = _mask(path)
        row, column = (round(value) for value in peak)
        inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
        return inside and bool(mask[row, column])


def _mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask, shape ``(rows, columns)``; the lesion is what is not black."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L")) > 0
