"""The finished picture of one map: image, evidence, legend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.domain.catalog import Sense
from service.domain.explanation import Check, ModelRef, Restriction
from service.domain.figures import fall_outside, in_windows, kept_to, largest_fall, probed, seen
from service.domain.grid import Grid
from service.domain.parity import WORDS as PARITY_WORDS
from service.domain.parity import MapParity, Parity
from service.domain.request import Style
from service.domain.resolved import ResolvedTarget
from service.domain.target import PROBABILITY
from service.domain.trust import (
    ALWAYS,
    OF_THE_METHOD,
    STATEMENTS,
    UNFULFILLED,
    Flag,
    Grade,
    PrecisionRef,
    TrustReport,
)
from service.domain.variable import VariableFact, VariableShare
from workers.drawing.contour import contours, frame, on_slice, outline, slices_of
from workers.drawing.legend import Legend, legible, page_with
from workers.drawing.overlay import Rgb, Scale, overlay, plain
from workers.regions import Box
from workers.restriction import parts

DEGENERATE = "Degenerate map: it says nothing and is not drawn in color."
BLANK = "The map holds no evidence for the target: nothing is drawn."
FAINT = "Beside this model's usual maps the evidence is too faint to be drawn."
OWN_SCALE = "Colors are scaled to this map alone: faint evidence looks as strong as clear."
FAINT_VIEW = "Beside the other images the evidence here is too faint to be drawn."
JOINT_SCALE = "Colors are scaled alike in all images of this target and method."
USUAL_SCALE = "Colors are scaled to this model's usual maps of this method."
OWN_FULL = "Full strength is this map's alone: faint evidence has lines as clear evidence has."
JOINT_FULL = "Full strength is that of all images of this target and method."
USUAL_FULL = "Full strength is that of this model's usual maps of this method."
SIDES: Final[Mapping[Sense, str]] = {
    "evidence": "Orange lines: evidence for the target. Blue lines: evidence against it.",
    "sensitivity": "Orange lines: a higher pixel value raises the score. Blue lines: it lowers it.",
    "guided": "Orange lines: guided gradient above zero. Blue lines: below zero.",
}
NEITHER: Final[Mapping[Sense, str]] = {
    "sensitivity": (
        "Values tell how the score moves with pixel values, not what speaks for or against."
    ),
    "guided": "The sign of a guided gradient tells neither for nor against the target.",
}
"""What is said of maps whose values do not speak for or against the target."""

LINE = "The line surrounds the strongest evidence (half of full or more), not the finding itself."
FRAME = "The white frame is the box of the model that is explained."
BOXED = "The box that is explained is on slices {first} to {last} by position."
NO_LINE = "No evidence reaches half of full strength: no line is drawn."

FIGURES = {
    Flag.DEPENDS_OUTSIDE_EXPECTED_REGION: fall_outside,
    Flag.EVIDENCE_ELSEWHERE: largest_fall,
}
"""What says in numbers how much a flag weighs."""

WHOLE = 0.995
"""Share of an image that is called all of it."""

LEAST_SHOWN = 0.1
"""Numbers nearer to zero are told by their first digits that are not zero."""

PLANE = 2
"""Axes of a map on a single image."""

REGIONS = {
    "predicted_mask": "where the model sees it",
    "box": "in a box",
    "point": "at a point",
    "segment": "where a segmentation marks it",
}
"""What a segmentation was asked about."""

EVIDENCE = frozenset(STATEMENTS[grade] for grade in Grade)
GRAVE = OF_THE_METHOD | UNFULFILLED | {Flag.PARITY_MISMATCH, Flag.PARITY_MISMATCH_ELSEWHERE}
"""Flags that outweigh what this case's own checks say of the map."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the legend is made of."""

    target: ResolvedTarget
    method: str
    model: ModelRef
    checks: tuple[Check, ...]
    trust: TrustReport
    parity: MapParity
    degenerate: bool
    restriction: Restriction | None = None
    seen_share: float = 1.0
    """Share of the image that the model was given."""

    sense: Sense = "evidence"
    given: tuple[VariableFact, ...] = ()
    """What stood beside the image."""

    variables: tuple[VariableShare, ...] = ()
    """What that adds to the score, where the method says."""


def draw(
    display: NDArray[np.uint8],
    values: NDArray[np.float32],
    grid: Grid,
    words: Words,
    scale: Scale | None,
    *,
    style: Style = "overlay",
    where: str | None = None,
    number: int | None = None,
    cell: tuple[float, ...] | None = None,
    regions: Sequence[Box] = (),
) -> Rgb:
    """Draw a map over the image it explains.

    Parameters
    ----------
    display
        The image as displayed, shape ``(rows, columns[, 3])``.
    values
        The raw map, shape ``(C, *grid.shape)``; channels are summed.
    scale
        How values become color; without one nothing is drawn.
    style
        Colors over the image, or lines around what reaches half of full strength.
    where
        Which slice of a volume it is, in words.
    number
        Which one, counted from 0.
    cell
        Edges of a map cell in source voxels, of a volume; else the grid's own.
    regions
        Where evidence is drawn, each as an image of its own; everywhere if empty.

    Returns
    -------
    Rgb
        The source image fills the top left corner pixel by pixel, the legend
        the rest.
    """
    rows, columns = display.shape[:2]
    relevance = values.sum(axis=0)
    placed = () if where is None else (where,)
    edges = cell or grid.cell
    if scale is None or style == "overlay":
        page = page_with(_colored(words, edges, scale, number, *placed), rows, columns)
        image = page[:rows, :columns]
        if scale is None or regions:
            plain(display, image)
        if scale is not None:
            for part in parts(grid, regions):
                seen, into = display[part.pixels], image[part.pixels]
                overlay(seen, relevance[part.cells], part.grid, scale, into)
        return _framed(page, words.target, (rows, columns), number)
    image = np.empty((rows, columns, 3), np.uint8)
    plain(display, image)
    drawn = [
        _lined(display[part.pixels], relevance[part.cells], part.grid, scale, image[part.pixels])
        for part in parts(grid, regions)
    ]
    said = [LINE, *([SIDES[words.sense]] if scale.signed else [])] if any(drawn) else [NO_LINE]
    page = page_with(_outlined(words, edges, scale, number, *said, *placed), rows, columns)
    page[:rows, :columns] = image
    return _framed(page, words.target, (rows, columns), number)


def _lined(
    display: NDArray[np.uint8], relevance: NDArray[np.float32], grid: Grid, scale: Scale, into: Rgb
) -> bool:
    """Draw lines around the evidence; tell whether there are any."""
    shape = (display.shape[0], display.shape[1])
    return outline(display, contours(relevance, grid, shape, scale), into)


def _framed(page: Rgb, target: ResolvedTarget, shape: tuple[int, int], number: int | None) -> Rgb:
    """Return the page with a frame about the box that is explained, if one is on it."""
    box = target.box if target.box is None or number is None else on_slice(target.box, number)
    if box is not None:
        rows, columns = shape
        frame(box, page[:rows, :columns])
    return page


def _box(target: ResolvedTarget, number: int | None) -> list[str]:
    """Say where the box is that is explained, if one is."""
    if target.box is None:
        return []
    if number is None:
        return [FRAME]
    first, last = (each + 1 for each in slices_of(target.box))
    return [*([FRAME] if first <= number + 1 <= last else []), BOXED.format(first=first, last=last)]


def _colored(
    words: Words, edges: tuple[float, ...], scale: Scale | None, number: int | None, *more: str
) -> Legend:
    """Return the legend of a picture in color, or of one that has nothing to draw."""
    scaled = [] if scale is None or scale.own else [JOINT_SCALE if scale.joint else USUAL_SCALE]
    legend = _legend(words, edges, number, *scaled, *more)
    return replace(
        legend, warnings=tuple(_warnings(words, scale, OWN_SCALE)), scale=scale, sense=words.sense
    )


def _outlined(
    words: Words, edges: tuple[float, ...], scale: Scale, number: int | None, *more: str
) -> Legend:
    """Return the legend of a picture with lines: it needs no color bar."""
    scaled = [] if scale.own else [JOINT_FULL if scale.joint else USUAL_FULL]
    legend = _legend(words, edges, number, *scaled, *more)
    return replace(legend, warnings=tuple(_warnings(words, scale, OWN_FULL)))


def _legend(words: Words, edges: tuple[float, ...], number: int | None, *more: str) -> Legend:
    """Return what every legend says, whatever is drawn how."""
    target, model = words.target, words.model
    cell = " x ".join(f"{length:.3g}" for length in edges)
    title = legible(model.title, model.name)
    return Legend(
        heading=legible(target.label, target.key),
        figures=_figures(target),
        grade=_grade(words),
        grave=tuple(_grave(words)),
        lines=(
            next(each for each in words.trust.statements if each in EVIDENCE),
            ALWAYS,
            *_parity(words),
            f"{words.method} of {title} {model.version}",
            *([NEITHER[words.sense]] if words.sense in NEITHER else []),
            *_precision(words.trust.precision),
            *_beside(words),
            *_box(target, number),
            *([] if target.windows is None else [in_windows(target.windows)]),
            f"One map cell covers {cell} image {'pixels' if len(edges) == PLANE else 'voxels'}.",
            *([] if words.restriction is None else [kept_to(words.restriction)]),
            *([seen(words.seen_share)] if words.seen_share < WHOLE else []),
            *more,
        ),
    )


def _grave(words: Words) -> list[str]:
    """Say what outweighs the evidence; a mismatch with what both sides said, or where it is."""
    flags = words.trust.flags
    said = [STATEMENTS[flag] for flag in flags if flag in GRAVE]
    figures = _pairs(words) if Flag.PARITY_MISMATCH in flags else ()
    places = words.parity.said_elsewhere if Flag.PARITY_MISMATCH_ELSEWHERE in flags else ()
    return [*said, *figures, *places]


def _precision(measured: PrecisionRef | None) -> list[str]:
    """Say that a map was computed in less than float32, and how near such maps are."""
    if measured is None:
        return []
    known = f"on {measured.cases} known cases such maps correlate at least {measured.worst:.6f}"
    return [f"Computed in {measured.precision}: {known} with those in float64."]


def _beside(words: Words) -> list[str]:
    """Say what the values beside the image add; the values themselves are no picture's business."""
    if words.variables:
        shares = (
            f"{legible(each.label, each.key)} {each.relevance:+.3g}" for each in words.variables
        )
        return [f"Beside the image, in units of the score: {', '.join(shares)}."]
    names = ", ".join(legible(each.label, each.key) for each in words.given)
    return [f"The model was also given: {names}; the map is of the image alone."] if names else []


def _parity(words: Words) -> list[str]:
    """Say that the issuing system said the same, or that none was asked; see `_grave`."""
    if words.parity.outcome is Parity.MISMATCHED:
        return []
    return [PARITY_WORDS[words.parity.outcome], *_pairs(words)]


def _pairs(words: Words) -> list[str]:
    """Return what the issuing system and the model here said of this target."""
    return [pair.said for pair in words.parity.pairs]


def _grade(words: Words) -> str:
    """Say the grade in one line, with what decided it and this case's own figures."""
    grade = words.trust.grade.replace("_", " ").upper()
    because = words.trust.because
    figures = probed(words.checks)
    if because is not None:
        grade, figures = f"{grade} {because}", figures and f"this image alone: {figures}"
    return f"Map: {grade}" if figures is None else f"Map: {grade} ({figures})"


def _figures(target: ResolvedTarget) -> str:
    """Say the score in one line, after what the model says."""
    score = f"{target.quantity} {_number(target.score)}"
    score += "" if target.versus is None else f" ({target.versus})"
    if target.value is not None:
        unit = "" if target.unit in (None, "1") else f" {target.unit}"
        against = (
            "" if target.reference is None else f" (reference {_number(target.reference, 1)}{unit})"
        )
        return f"{_number(target.value, 1)}{unit}{against}, {score}{unit}"
    if target.region is not None:
        return f"{score} ({REGIONS[target.region.kind]}, {target.region.cells} cells)"
    if target.probability is None:
        return score
    text = f"probability {target.probability:.3f}"
    if target.threshold is not None:
        text += f" (threshold {target.threshold:.2f})"
    return f"{text}, explained itself" if target.quantity == PROBABILITY else f"{text}, {score}"


def _number(value: float, digits: int = 2) -> str:
    """Return a number to some digits behind the point; a small one to two of its own."""
    return f"{value:.2g}" if 0 < abs(value) < LEAST_SHOWN else f"{value:.{digits}f}"


def _warnings(words: Words, scale: Scale | None, own: str) -> list[str]:
    """Say what a reader must know before believing the picture, each thing once.

    `own` is what is said where the scale is the map's own.
    """
    said = []
    if words.degenerate:
        said.append(DEGENERATE)
    elif scale is None:
        said.append(BLANK)
    elif scale.faint:
        said.append(FAINT_VIEW if scale.joint else FAINT)
    elif scale.own:
        said.append(own)
    for flag in words.trust.flags:
        if flag not in GRAVE:
            said.append(STATEMENTS[flag])
        if flag in FIGURES:
            said.extend(filter(None, [FIGURES[flag](words.checks)]))
    if not words.degenerate:
        said.extend(check.meaning for check in words.checks if _unsaid(check))
    return list(dict.fromkeys(said))


def _unsaid(check: Check) -> bool:
    """Tell whether a check failed in a way that neither grade nor flags tell of."""
    return check.outcome == "fail" and check.name == "integrity"
