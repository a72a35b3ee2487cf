"""How a method's maps fare on cases whose findings are present and reported."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.domain.certificate import MethodCalibration, Plane, Quantiles
from service.domain.trust import SUPPORTED_TO
from workers.certify.ground import Ground
from workers.certify.maps import Drawing, Drawn, MapsByClass
from workers.certify.similarity import DIGITS, Array
from workers.drawing.overlay import scale_of
from workers.measures.bearing import Bearings, bearings, brought
from workers.targets.base import key_of

SIDES: Final = {2: 16, 3: 8}
"""Cells of a template along each axis, by the number of axes."""

DECIMALS: Final = 5
"""Of a template's cells, whose squares sum to 1."""

SIGNIFICANT: Final = 6
"""Digits of the reference magnitude."""


def calibrated(ground: Ground, maps: MapsByClass, *, signed: bool) -> MethodCalibration | None:
    """Hold the maps of findings that are present and reported against the probe bank.

    Of several views it is the map of that in which the method finds most: nobody says in which
    of them a finding is to be seen.

    Parameters
    ----------
    maps
        Of the unchanged model, by class, for the first cases of `ground`.
    signed
        Whether the method's negative values mean evidence against.

    Returns
    -------
    MethodCalibration or None
        `None` when there was no such map, or no bank to hold it against.
    """
    found = [
        (ground.manifest.classes[k].key, drawn[k], _bearings(ground, case, k, drawn[k]))
        for case, drawn in enumerate(maps)
        for k in ground.reported(case)
        if k in drawn
    ]
    if not found:
        return None
    views = [each.key for each in ground.manifest.image.views]
    measured = [each for _, _, each in found if each.outcome == "measured"]
    supported = sum(each.p is not None and each.p <= SUPPORTED_TO for each in measured)
    return MethodCalibration(
        maps=len(found),
        supported=round(supported / len(found), DIGITS),
        r=_quantiles(each.r for each in measured),
        p=_quantiles(each.p for each in measured),
        reference=_reference([drawn for _, drawn, _ in found], signed=signed),
        templates=_templates(
            (name, drawn)
            for key, drawing, _ in found
            for name, drawn in zip(_names(key, views), drawing, strict=True)
        ),
    )


def _names(key: str, views: Sequence[str]) -> list[str]:
    """Return what a class's maps are called: as of the targets that are explained."""
    return [key_of(key, view) for view in views] or [key]


def _bearings(ground: Ground, case: int, target: int, drawing: Drawing) -> Bearings:
    """Compare one map with what hiding each place did to its class."""
    banks = ground.banks[case]
    if banks is None:
        return Bearings("no_bank")
    masses = [float(np.nan_to_num(np.abs(each.values.sum(axis=0))).sum()) for each in drawing]
    most = int(np.argmax(masses))
    drawn, bank = drawing[most], banks[most]
    return bearings(
        drawn.values, drawn.grid, drawn.extent, bank.drops[:, target], float(bank.scores[target])
    )


def _quantiles(values: Iterable[float | None]) -> Quantiles | None:
    """Return the distribution of the numbers that there are."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    p05, p25, p50, p75, p95 = np.round(np.percentile(known, [5, 25, 50, 75, 95]), DIGITS).tolist()
    return Quantiles(p05=p05, p25=p25, p50=p50, p75=p75, p95=p95)


def _reference(maps: Sequence[Drawing], *, signed: bool) -> float | None:
    """Return the usual value that is drawn in full color; `None` when all maps are blank."""
    summed = [np.stack([each.values.sum(axis=0) for each in drawing]) for drawing in maps]
    scales = [scale_of(each, signed=signed) for each in summed]
    full = [scale.full for scale in scales if scale is not None]
    return float(f"{np.median(full):.{SIGNIFICANT}g}") if full else None


def _templates(maps: Iterable[tuple[str, Drawn]]) -> dict[str, Plane | tuple[Plane, ...]]:
    """Return the mean map of each class, where each map counts alike."""
    sums: dict[str, Array] = {}
    for key, drawn in maps:
        sums[key] = sums.get(key, 0.0) + _unit(_coarse(drawn))
    return {key: _nested(_unit(total)) for key, total in sums.items() if total.any()}


def _coarse(drawn: Drawn) -> NDArray[np.float64]:
    """Return a map on the template's grid, zero where it is not finite."""
    side = SIDES[len(drawn.extent)]
    if not np.isfinite(drawn.values).all():
        return np.zeros((side,) * len(drawn.extent))
    return brought(drawn.values, drawn.grid, drawn.extent, side)


def _unit(values: Array) -> Array:
    """Return a map of unit length; one of zeros stays as it is."""
    length = float(np.linalg.norm(values))
    return values / length if length > 0 else values


def _nested(values: Array) -> Any:
    """Return a template as it is published: tuples in tuples, an axis each."""
    return _tuples(np.round(values, DECIMALS).tolist())


def _tuples(values: Any) -> Any:
    return tuple(map(_tuples, values)) if isinstance(values, list) else values
