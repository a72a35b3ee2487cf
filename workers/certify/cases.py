"""The cases on which a model's methods are measured, out of its package's calibration set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from service.domain.manifest import Manifest

CASES: Final = 24
"""Cases of a certificate: with fewer its intervals are too wide to say much."""

BINARY: Final = 2


class NotCertifiable(Exception):
    """Nothing can be said of a method on this model; the code says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """An image of the calibration set and the classes that are explained on it."""

    image: Tensor
    """As the model takes it, shape ``(C, *spatial)``, float32."""

    target: int
    """A class that is present."""

    other: int | None
    """Another class, absent if any is; `None` where its score only mirrors the target's."""

    present: tuple[int, ...]
    """Every class that is present."""

    several: bool = False
    """Whether the image is several views, shape ``(C, views, rows, columns)``."""

    @property
    def extent(self) -> tuple[int, ...]:
        """Spatial shape of the image, or of each view."""
        return tuple(self.image.shape[2 if self.several else 1 :])

    @property
    def images(self) -> tuple[Tensor, ...]:
        """The image alone, or each view by itself."""
        return self.image.unbind(1) if self.several else (self.image,)

    @property
    def explained(self) -> tuple[int, ...]:
        """Every class whose map is wanted of the model as it is, the target first."""
        others = () if self.other is None else (self.other,)
        return tuple(dict.fromkeys((self.target, *others, *self.present)))


def read_cases(
    path: Path, manifest: Manifest, shape: Sequence[int], count: int = CASES
) -> tuple[Case, ...]:
    """Choose `count` cases, each with a class that it shows, classes in turn.

    Parameters
    ----------
    path
        The calibration set: ``images`` and ``labels``, see `Calibration`.
    shape
        Shape of the model's input without the batch axis.

    Raises
    ------
    NotCertifiable
        ``invalid_calibration_set``: no such tensors, of another shape, or not
        finite. ``too_few_cases``: fewer than `count` show a class.
    """
    try:
        with safe_open(path, framework="pt") as file:
            labels = _labels(file, len(manifest.classes))
            pairs = choose(labels, count)
            if len(pairs) < count:
                raise NotCertifiable("too_few_cases")
            images = file.get_slice("images")
            if tuple(images.get_shape()) != (len(labels), *shape):
                raise NotCertifiable("invalid_calibration_set")
            rows = [images[index] for index, _ in pairs]
    except (SafetensorError, OSError):
        raise NotCertifiable("invalid_calibration_set") from None
    if not all(row.is_floating_point() and row.isfinite().all() for row in rows):
        raise NotCertifiable("invalid_calibration_set")
    mirrored = manifest.task == "classification-multiclass" and len(manifest.classes) == BINARY
    cases = tuple(
        _case(row.float(), target, labels[index], rank, mirrored=mirrored)
        for rank, (row, (index, target)) in enumerate(zip(rows, pairs, strict=True))
    )
    return tuple(replace(each, several=manifest.image.several) for each in cases)


def choose(labels: NDArray[np.bool_], count: int) -> list[tuple[int, int]]:
    """Return up to `count` pairs of case and class present, each case once, classes in turn.

    Parameters
    ----------
    labels
        Whether a class is present, shape ``(cases, classes)``.
    """
    left: list[list[int]] = [np.flatnonzero(column).tolist() for column in labels.T]
    chosen: dict[int, int] = {}
    while len(chosen) < count and any(left):
        for target, cases in enumerate(left):
            free = [case for case in cases if case not in chosen]
            left[target] = free[1:]
            if free and len(chosen) < count:
                chosen[free[0]] = target
    return list(chosen.items())


def _labels(file: safe_open, classes: int) -> NDArray[np.bool_]:
    """Return the labels, shape ``(cases, classes)``."""
    labels: Tensor = file.get_tensor("labels")  # type: ignore[no-untyped-call]
    if labels.dim() != 2 or labels.shape[1] != classes:  # noqa: PLR2004 - cases and classes
        raise NotCertifiable("invalid_calibration_set")
    if not torch.isin(labels.double(), torch.tensor([0.0, 1.0], dtype=torch.double)).all():
        raise NotCertifiable("invalid_calibration_set")
    return labels.bool().numpy()


def _case(
    image: Tensor, target: int, labels: NDArray[np.bool_], rank: int, *, mirrored: bool
) -> Case:
    """Return one case; which absent class is its other changes from case to case."""
    rest = [k for k in range(len(labels)) if k != target]
    others = [k for k in rest if not labels[k]] or rest
    other = None if mirrored or not others else others[rank % len(others)]
    return Case(image, target, other, tuple(int(k) for k in np.flatnonzero(labels)))
