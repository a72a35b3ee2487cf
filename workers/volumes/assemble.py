"""Planes put in order along their normal: one volume, or why there is none.

Nothing is averaged and nothing is filled in. A volume is what its slices'
own positions say, to a tolerance; where they say something else, the verdict
tells what, with the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from service.domain.volume import Geometry, Point, Row, Slice, Steps, Volume
from workers.volumes.planes import Plane

Array = NDArray[np.float64]

COSINE: Final = 1e-3
"""How far the direction cosines of one orientation may differ."""

SPACING: Final = 1e-3
"""How far equal pixel spacings may differ, as a share."""

STEP_SHARE, STEP_MM, STEP_MOST = 0.01, 0.1, 0.1
"""How far equal steps may differ: a share, or mm where that is more, but never over a tenth."""

DUPLICATE, TWIN = 0.01, 0.1
"""Closer than this, in mm or as a share of most other steps, two slices are at one place."""

USUAL: Final = 75
"""Percentile of the steps that most are told by, even if every slice has a twin."""

TILT: Final = 0.1
"""Degrees from which on the way from slice to slice is aslant."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A step that is not as the others, and the slices on its two sides."""

    after: Plane
    before: Plane
    step: float
    """In mm along the normal."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """What the planes of a series are to each other."""

    geometry: Geometry
    differing: tuple[str, ...] = ()
    """In what `MIXED` planes differ: ``orientation``, ``spacing``, ``size``,
    ``frame_of_reference``."""

    odd: tuple[Plane, ...] = ()
    """Which of `MIXED` planes are unlike most."""

    steps: Steps | None = None
    """Where the planes are parallel."""

    missing: int = 0
    """Slices that lack, where every step is a multiple of the least."""

    gaps: tuple[Gap, ...] = ()
    """The steps to blame, of planes of which some are doubled, missing or unevenly spaced."""

    unplaced: tuple[Plane, ...] = ()
    """Planes that do not say where they lie."""

    volume: Volume | None = None
    """Of `REGULAR` and `SHEARED` planes."""

    order: tuple[int, ...] = ()
    """Which plane each slice of the volume is, counted from 0."""


def assemble(planes: Sequence[Plane]) -> Assembly:
    """Judge the planes of one series, in any order, and put them together if they fit.

    The slices are sorted by where they lie along the common normal, never by
    number or time; the answer does not depend on the order of `planes`.
    """
    unplaced = tuple(plane for plane in planes if not plane.placed)
    if len(planes) < 2 or unplaced:  # noqa: PLR2004 - a step
        return Assembly(Geometry.NONE, unplaced=unplaced)
    if differing := _differing(planes):
        odd = np.any([*differing.values()], axis=0)
        unlike = tuple(plane for plane, each in zip(planes, odd, strict=True) if each)
        return Assembly(Geometry.MIXED, tuple(differing), unlike)
    first = min(planes, key=lambda plane: (plane.sop_instance_uid, plane.frame or 0))
    normal = _normal(first)
    places = np.array([plane.position for plane in planes])
    order = np.lexsort((*places.T, places @ normal))
    places = places[order]
    gaps = np.diff(places @ normal)
    steps = Steps(median=float(np.median(gaps)), least=gaps.min(), greatest=gaps.max())
    ordered = [planes[int(each)] for each in order]
    close = max(DUPLICATE, TWIN * float(np.percentile(gaps, USUAL, method="higher")))
    if steps.least < close:
        twins = _gaps(ordered, gaps, gaps < close)
        return Assembly(Geometry.DUPLICATES, steps=steps, gaps=twins)
    if not _even(places, gaps):
        missing = _missing(gaps)
        usual = steps.least if missing else steps.median
        odd = _gaps(ordered, gaps, np.abs(gaps - usual) > _tolerance(usual))
        return Assembly(Geometry.IRREGULAR, steps=steps, missing=missing, gaps=odd)
    volume = _volume(ordered, first, steps)
    return Assembly(volume.geometry, steps=steps, volume=volume, order=tuple(map(int, order)))


def _differing(planes: Sequence[Plane]) -> dict[str, NDArray[np.bool_]]:
    """Name what the planes of one volume have in common and these do not: which are unlike most."""
    _, frames = np.unique([plane.frame_of_reference_uid for plane in planes], return_inverse=True)
    said: dict[str, tuple[Array, float]] = {
        "orientation": (np.array([plane.orientation for plane in planes]), COSINE),
        "spacing": (np.log([plane.spacing for plane in planes]), np.log1p(SPACING)),
        "size": (np.array([(plane.rows, plane.columns) for plane in planes], float), 0),
        "frame_of_reference": (frames[:, None].astype(float), 0),
    }
    return {
        name: _unlike(values, tolerance)
        for name, (values, tolerance) in said.items()
        if np.ptp(values, axis=0).max() > tolerance
    }


def _unlike(values: Array, tolerance: float) -> NDArray[np.bool_]:
    """Tell which rows are not as the most common one; some are, of rows that spread further."""
    _, first, times = np.unique(values.round(2), axis=0, return_index=True, return_counts=True)
    usual = values[first[times.argmax()]]
    return np.asarray(np.abs(values - usual).max(axis=1) > tolerance / 2)


def _normal(plane: Plane) -> Array:
    row, column = np.reshape(plane.orientation, (2, 3))
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def _tolerance(step: float) -> float:
    """Return how far steps may be from `step`, in mm."""
    return max(STEP_SHARE * step, min(STEP_MM, STEP_MOST * step))


def _gaps(planes: Sequence[Plane], steps: Array, odd: NDArray[np.bool_]) -> tuple[Gap, ...]:
    """Return the steps that are `odd` between sorted planes."""
    found = map(int, np.flatnonzero(odd))
    return tuple(Gap(planes[each], planes[each + 1], float(steps[each])) for each in found)


def _even(places: Array, gaps: Array) -> bool:
    """Tell whether equal steps lead from the first place to the last by way of all others."""
    step = float(np.median(gaps))
    tolerance = _tolerance(step)
    if np.abs(gaps - step).max() > tolerance:
        return False
    shares = np.linspace(0, 1, len(places))[:, None]
    straight = places[0] + shares * (places[-1] - places[0])
    return bool(np.linalg.norm(places - straight, axis=1).max() <= tolerance)


def _missing(gaps: Array) -> int:
    """Count the slices that lack if every gap is a multiple of the least; else 0."""
    least = float(gaps.min())
    times = np.rint(gaps / least)
    whole = np.abs(gaps - times * least).max() <= _tolerance(least)
    return int((times - 1).sum()) if whole else 0


def _angle(step: Array, normal: Array) -> float:
    """Return the angle between two directions, in degrees."""
    along = float(step @ normal)
    aside = float(np.linalg.norm(step - along * normal))
    return float(np.degrees(np.arctan2(aside, along)))


def _volume(planes: Sequence[Plane], first: Plane, steps: Steps) -> Volume:
    """Return sorted planes as one volume, with the directions that `first` has."""
    row, column = np.reshape(first.orientation, (2, 3))
    step = np.subtract(planes[-1].position, planes[0].position) / (len(planes) - 1)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = column * first.spacing[0]
    affine[:3, 2] = row * first.spacing[1]
    affine[:3, 3] = planes[0].position
    tilt = _angle(step, _normal(first))
    thicknesses = {plane.thickness for plane in planes}
    return Volume(
        geometry=Geometry.SHEARED if tilt > TILT else Geometry.REGULAR,
        affine=cast(tuple[Row, Row, Row, Row], tuple(map(tuple, affine.tolist()))),
        rows=first.rows,
        columns=first.columns,
        slices=tuple(
            Slice(
                sop_class_uid=plane.sop_class_uid,
                sop_instance_uid=plane.sop_instance_uid,
                frame=plane.frame,
                position=cast(Point, plane.position),
                instance=plane.instance,
                instance_number=plane.instance_number,
            )
            for plane in planes
        ),
        series_instance_uid=first.series_instance_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        orientation=cast(tuple[float, float, float, float, float, float], first.orientation),
        pixel_spacing=cast(tuple[float, float], first.spacing),
        thickness=thicknesses.pop() if len(thicknesses) == 1 else None,
        steps=steps,
        tilt=tilt,
    )
