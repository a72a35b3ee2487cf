"""Whether a map marks what a reader marked."""

from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from service.domain.explanation import Check
from workers.measures.base import MEASURES, Box, Case, Measure
from workers.restriction import peak

SIDES: Final = {2: 256, 3: 64}
"""Points along each axis at which map and boxes are compared, by the number of axes."""


@MEASURES.register("localization")
class Localization(Measure):
    """Pointing, share of the energy, and precision against a reader's boxes.

    All three are taken at evenly spaced points of the area, or the volume, that the map
    covers, each with the value of its cell, so that coarse cells count by their size.

    References
    ----------
    Zhang et al. (2016). Top-down neural attention by excitation backprop.
    ECCV. arXiv:1608.00507, section 4.2 (pointing game). Wang et al. (2020).
    Score-CAM. CVPR Workshops. arXiv:1910.01279, section 4.4 (energy).
    """

    title = "Localization"
    version: ClassVar = 2
    meaning = "The map's most relevant place lies in the area that a reader marked."
    limits = "A model may rightly use places that a reader did not mark."
    words: ClassVar = {
        "pass": "The map's most relevant place lies in the area that was annotated.",
        "fail": "The map's most relevant place lies outside the area that was annotated.",
        "not_applicable": "No annotation of this class was given, or the map has no peak.",
    }

    @override
    def judge(self, case: Case) -> Check:
        """Return whether the peak is inside, the energy's share, and the AUPRC."""
        finite = bool(np.isfinite(case.values).all())
        if not case.boxes or case.values.ndim - 1 not in SIDES or not finite:
            return self.check("not_applicable")
        relevance = case.values.astype(np.float64).sum(axis=0)
        points, values = _points(case, relevance)
        inside = _inside(points, case.boxes)
        if not inside.any():
            return self.check("not_applicable")
        found = peak(relevance, case.source, case.image)
        if found is None:
            return self.check("not_applicable")
        hit = bool(_inside(np.array(found[:1]), case.boxes)[0])
        positive = np.maximum(values, 0)
        return self.check(
            "pass" if hit else "fail",
            values={
                "energy_share": float(positive[inside].sum() / positive.sum())
                if positive.any()
                else 0.0,
                "auprc": precision(values, inside),
                "area_share": float(inside.mean()),
            },
        )


def _points(
    case: Case, relevance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points ``(n, axes)`` in source pixels, and the map's value at each."""
    side = SIDES[relevance.ndim]
    axes = [(np.arange(side) + 0.5) * size / side - 0.5 for size in relevance.shape]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, relevance.ndim)
    index = np.rint(cells).astype(int)
    values = relevance[tuple(np.clip(index, 0, np.array(relevance.shape) - 1).T)]
    return case.source.to_source(cells), values


def _inside(points: NDArray[np.float64], boxes: tuple[Box, ...]) -> NDArray[np.bool_]:
    """Tell for each point (a pixel index: 0 is the first pixel's center) whether a box holds it."""
    ends = (np.split(np.array(each), 2) for each in boxes)
    held = [((low <= points + 0.5) & (points + 0.5 < high)).all(1) for low, high in ends]
    return np.asarray(np.any(held, axis=0), np.bool_)


def precision(values: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Return the area under the precision-recall curve; ties are taken together."""
    levels, place = np.unique(-values, return_inverse=True)
    taken = np.cumsum(np.bincount(place, minlength=len(levels)))
    right = np.cumsum(np.bincount(place, weights=inside, minlength=len(levels)))
    gained = np.diff(right, prepend=0) / inside.sum()
    return float((gained * right / taken).sum())
