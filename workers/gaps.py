"""How far apart a model's validation cases with and without a finding lie, as a yardstick."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from service.domain.manifest import Manifest

MOST: Final = 256
"""Validation cases that are asked about; more tell no more."""

Ask = Callable[[Tensor], NDArray[np.float64]]
"""Takes inputs, shape ``(N, C, *spatial)``; gives logits, shape ``(N, classes)``."""


def gaps(manifest: Manifest, folder: Path, shape: tuple[int, ...], ask: Ask) -> Mapping[int, float]:
    """Return for each class its mean logit where it is present, less that where it is not.

    Parameters
    ----------
    folder
        Where the package lies unpacked.
    shape
        Shape of the model's input without the batch axis.

    Returns
    -------
    Mapping
        By class index; without those of which there are no cases of both
        kinds, or that the model does not tell apart. Empty without a
        calibration set that serves: the certificate tells what is wrong with it.
    """
    read = None if manifest.calibration is None else read_cases(folder / manifest.calibration.cases)
    if read is None or read[0].shape[1:] != shape or read[1].shape != _expected(read[0], manifest):
        return {}
    logits, present = ask(read[0].float()), read[1].numpy() > 0
    found = {}
    for k in range(len(manifest.classes)):
        if present[:, k].any() and not present[:, k].all():
            gap = float(logits[present[:, k], k].mean() - logits[~present[:, k], k].mean())
            if np.isfinite(gap) and gap > 0:
                found[k] = gap
    return found


def read_cases(path: Path) -> tuple[Tensor, Tensor] | None:
    """Return images and labels of a calibration set; `None` if it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            images, labels = file.get_slice("images")[:MOST], file.get_slice("labels")[:MOST]
    except (SafetensorError, OSError):
        return None
    usable = images.is_floating_point() and bool(torch.isfinite(images).all())
    return (images, labels) if usable else None


def _expected(images: Tensor, manifest: Manifest) -> tuple[int, int]:
    """Return the shape that labels of `images` have."""
    return (len(images), len(manifest.classes))
