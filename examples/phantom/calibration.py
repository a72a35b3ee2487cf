"""A model's calibration cases: phantoms that neither training nor testing has seen."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from examples.phantom.chest import cases
from examples.phantom.marking import Marking, marked
from examples.phantom.samples import Samples, radiographs_of

SEED = 20240306
COUNT = 48
"""With this seed every finding is in 12 of them or more."""

PATH = "calibration/cases.safetensors"


def calibration(marking: Marking) -> Samples:
    """Draw the cases at full size, with the marker as the model met it in training."""
    return radiographs_of(tuple(marked(cases(SEED, COUNT), marking, SEED)))


def write_calibration(folder: Path, samples: Samples) -> None:
    """Write ``images`` in half precision and ``labels``, 1 where a finding is present."""
    path = folder / PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    images, labels = samples.images.astype(np.float16), samples.labels.astype(np.uint8)
    save_file({"images": images, "labels": labels}, path)
