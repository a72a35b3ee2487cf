"""Validation cases of planted pictures: some that neither training nor testing has seen."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from examples.planted import presence
from examples.planted.pictures import Picture
from service.domain.files import Calibration

SEED: Final = 20240401
COUNT: Final = 40
"""With this seed each shape is in 20 of them or more."""

CASES: Final = Calibration(
    cases="calibration/cases.safetensors",
    synthetic=True,
    title="Drawn plates that neither training nor testing has seen.",
)


def write_cases(
    folder: Path,
    draw: Callable[[int], Picture],
    prepared: Callable[[Picture], NDArray[np.float32]],
) -> Calibration:
    """Write ``images`` in half precision and ``labels``, 1 where a shape is present."""
    pictures = [draw(SEED + number) for number in range(COUNT)]
    images = np.stack([prepared(each) for each in pictures]).astype(np.float16)
    labels = presence.present(pictures).numpy().astype(np.uint8)
    path = folder / CASES.cases
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"images": images, "labels": labels}, path)
    return CASES
