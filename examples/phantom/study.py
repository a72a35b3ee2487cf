"""Write the bundled demo studies: ``python -m examples.phantom.study``.

Radiographs of DICOM size, with the exact place of each finding beside them, so
that a demonstration can tell whether a map points at the lesion. One shows no
finding but the corner marker, and tells who takes it for a nodule.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples.dicom import Photometric
from examples.packaging import write_object
from examples.phantom.canvas import Mask
from examples.phantom.chest import Case, draw
from examples.phantom.dicom import dataset
from examples.phantom.samples import full_size

FOLDER = Path(__file__).parents[1] / "studies" / "chest"


@dataclass(frozen=True, slots=True)
class Bundled:
    """A radiograph of the bundle; `name` is the stem of its files."""

    name: str
    case: Case
    photometric: Photometric


BUNDLE = (
    Bundled("nodule", Case(41, frozenset({"nodule"})), "MONOCHROME2"),
    Bundled("effusion", Case(42, frozenset({"effusion", "cardiomegaly"})), "MONOCHROME1"),
    Bundled("pneumothorax", Case(66, frozenset({"pneumothorax", "consolidation"})), "MONOCHROME2"),
    Bundled("marker", Case(69, marker=True), "MONOCHROME2"),
)


def main() -> None:
    """Write the radiographs, their masks and ``lesions.json``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    index = {"images": [store(FOLDER, each) for each in BUNDLE]}
    (FOLDER / "lesions.json").write_text(json.dumps(index, indent=2) + "\n")


def store(folder: Path, bundled: Bundled) -> dict[str, Any]:
    """Write one radiograph and its masks; return its entry in ``lesions.json``.

    ``marker`` is there only where the image has one.
    """
    radiograph = draw(bundled.case, full_size(bundled.case))
    data = dataset(bundled.case, radiograph, bundled.photometric)
    write_object(folder / f"{bundled.name}.dcm", data, compress=True)
    lesions = [
        {"finding": finding, **_place(folder, f"{bundled.name}.{finding}.png", mask)}
        for finding, mask in radiograph.masks.items()
    ]
    rows, columns = radiograph.stored.shape
    entry = {
        "dicom": f"{bundled.name}.dcm",
        "sop_instance_uid": str(data.SOPInstanceUID),
        "rows": rows,
        "columns": columns,
        "lesions": lesions,
    }
    if radiograph.marker is not None:
        entry["marker"] = _place(folder, f"{bundled.name}.marker.png", radiograph.marker)
    return entry


def _place(folder: Path, name: str, mask: Mask) -> dict[str, Any]:
    """Write a mask as a picture; return where it is."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name, optimize=True)
    return {"mask": name, "box": box(mask)}


def box(mask: Mask) -> list[int]:
    """Return top, left, bottom and right of a mask, the last two past its end."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1]


if __name__ == "__main__":
    main()
