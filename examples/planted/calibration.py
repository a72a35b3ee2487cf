"""Validation cases of planted pictures: some that neither training nor testing has seen."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import save_file

from examples.planted import presence
from examples.planted.inputs import inputs
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


def write_cases(folder: Path, draw: Callable[[int], Picture]) -> Calibration:
    """Write ``images`` in half precision and ``labels``, 1 where a shape is present."""
    pictures = [draw(SEED + number) for number in range(COUNT)]
    images = inputs(pictures).numpy().astype(np.float16)
    labels = presence.present(pictures).numpy().astype(np.uint8)
    path = folder / CASES.cases
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"images": images, "labels": labels}, path)
    return CASES
