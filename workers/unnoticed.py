"""What the self-tests of a package would not notice: tried at load, told in the catalog.

A self-test guards a step only if the step changes its image, and the change its answer. So each
step is left out once, the channels of color are reversed, and outputs are exchanged: what would
pass every self-test is named, with the field and with what to add.
"""

import sys
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.acceptance import refusals
from service.dicom.header import read_header
from service.dicom.photometric import MONOCHROME
from service.domain.manifest import Manifest
from service.errors.base import WhylightError
from workers.selftests import Passed

SHOWN: Final = 3
"""Pairs of outputs that are told."""

Image = NDArray[np.float32]


def unnoticed(
    manifest: Manifest,
    folder: Path,
    passed: Sequence[Passed],
    prepare: Callable[[Manifest, Passed], Image],
    passes: Callable[[Passed, Image], bool],
) -> dict[str, str]:
    """Return what could be wrong and pass every self-test, by JSON pointer.

    A step that changes the shape is taken as noticed, and so is one that changes the image of a
    network that works in windows, which is too dear to be asked.

    Parameters
    ----------
    folder
        The unpacked package.
    passed
        The self-tests, all of them passed.
    prepare
        Prepares a test's image by the steps of another manifest; raises if they do not take it.
    passes
        Tells whether the test would pass on another image of the same shape.
    """
    told = _unaccepted(manifest, folder)
    for number, step in enumerate(manifest.image.steps):
        mutant = _without(manifest, number)
        if not any(
            _notices(manifest, each, _prepared(prepare, mutant, each), passes) for each in passed
        ):
            told[f"/inputs/0/steps/{number}"] = (
                f"No self-test would fail if the step '{step.name}' were left out. Add one whose"
                " image it changes, and with it the answers by more than the tolerance."
            )
    if set(manifest.image.accept.photometric_interpretations) - {*MONOCHROME} and not any(
        _notices(manifest, each, each.image[::-1], passes) for each in passed
    ):
        told["/inputs/0"] = (
            "No self-test would fail if the channels of color came in reversed order. Add one in"
            " color, whose answers they change by more than the tolerance."
        )
    if alike := _exchangeable(manifest, passed):
        told[f"/outputs/0/{'values' if manifest.values else 'classes'}"] = (
            f"No self-test would fail if outputs were exchanged: {', '.join(alike)}. Add one whose"
            " answers to them differ by more than the tolerance."
        )
    return told


def _unaccepted(manifest: Manifest, folder: Path) -> dict[str, str]:
    """Return what is told where no self-test's image is one that requests may bring."""
    accept = manifest.image.accept
    broken = []
    for test in manifest.selftests:
        headers = [read_header(folder / path, max_samples=sys.maxsize) for path in test.paths]
        broken.append({rule for each in headers for rule in refusals(each, accept)})
    if not all(broken):
        return {}
    rules = ", ".join(sorted(set().union(*broken)))
    return {
        "/inputs/0/accept": f"Each self-test has an image that a request is refused for ({rules}):"
        " whatever 'accept' takes was not tried. Add one that it takes."
    }


def _without(manifest: Manifest, number: int) -> Manifest:
    """Return the manifest without one of its steps."""
    steps = tuple(step for k, step in enumerate(manifest.image.steps) if k != number)
    image = manifest.image.model_copy(update={"steps": steps})
    inputs = tuple(image if each is manifest.image else each for each in manifest.inputs)
    return manifest.model_copy(update={"inputs": inputs})


def _prepared(
    prepare: Callable[[Manifest, Passed], Image], mutant: Manifest, test: Passed
) -> Image | None:
    """Return what a test's image becomes, or `None` if the steps do not take it."""
    try:
        return prepare(mutant, test)
    except WhylightError:
        return None


def _notices(
    manifest: Manifest, test: Passed, image: Image | None, passes: Callable[[Passed, Image], bool]
) -> bool:
    """Tell whether a test would fail on another image than its own."""
    if image is None or image.shape != test.image.shape:
        return True
    if np.array_equal(image, test.image):
        return False
    return manifest.sliding_window is not None or not passes(test, np.ascontiguousarray(image))


def _exchangeable(manifest: Manifest, passed: Sequence[Passed]) -> list[str]:
    """Return pairs of outputs that every self-test would take for each other, the first few."""
    if manifest.task == "detection":  # each box is of a class
        return []
    count = min(len(manifest.named), len(passed[0].answer))
    pairs = [
        f"'{manifest.named[one].key}' and '{manifest.named[other].key}'"
        for one, other in combinations(range(count), 2)
        if all(_alike(each, one, other) for each in passed)
    ]
    return pairs[:SHOWN]


def _alike(passed: Passed, one: int, other: int) -> bool:
    """Tell whether a test would pass with two of its answers exchanged."""
    expected, tolerance = passed.test.expected, passed.test.tolerance
    return bool(
        abs(passed.answer[one] - expected[other]) <= tolerance
        and abs(passed.answer[other] - expected[one]) <= tolerance
    )
