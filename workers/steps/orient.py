"""Turn a volume's axes to the patient."""

from dataclasses import replace
from itertools import permutations
from typing import Annotated, Final

import numpy as np
from pydantic import StringConstraints, field_validator
from typing_extensions import override

from service.domain.grid import Grid
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage

DIRECTIONS: Final = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
"""Unit vectors in patient coordinates (LPS) by the letter of where they lead."""


@STEPS.register("orient")
class Orient(Step):
    """Swap and turn over the axes of a volume, so that each leads where its letter says.

    Nothing is interpolated: a volume that lies oblique or sheared stays so, and
    each axis goes to the direction that it is nearest to.

    Parameters
    ----------
    axes
        One letter for each axis of the result, in array order: toward the
        patient's Right or Left, Anterior or Posterior, Superior or Inferior.
        ``RAS`` is what MONAI and NIfTI mean by it; ``SPL`` is how axial slices
        are stored, from the feet up.
    """

    axes: Annotated[str, StringConstraints(pattern="^[RLAPSI]{3}$")]

    @field_validator("axes")
    @classmethod
    def _one_of_each_pair(cls, value: str) -> str:
        """Require a letter out of each pair."""
        if any(len(set(value) & set(pair)) != 1 for pair in ("RL", "AP", "SI")):
            raise ValueError("axes need one letter of each pair RL, AP and SI")
        return value

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        ways = image.axes
        wanted = np.array([DIRECTIONS[letter] for letter in self.axes])
        nearness = wanted @ (ways / np.linalg.norm(ways, axis=0))
        order = max(
            permutations(range(3)),
            key=lambda each: sum(abs(nearness[to, each[to]]) for to in range(3)),
        )
        turned = tuple(to for to in range(3) if nearness[to, order[to]] < 0)
        shape = tuple(image.values.shape[1 + each] for each in order)
        values = image.values.transpose(0, *(1 + each for each in order))
        padding = None if image.padding is None else image.padding.transpose(order)
        return replace(
            image,
            values=np.flip(values, tuple(1 + each for each in turned)),
            padding=None if padding is None else np.flip(padding, turned),
            grid=Grid(shape, _move(shape, order, turned)).within(image.grid),
        )


def _move(
    shape: tuple[int, ...], order: tuple[int, ...], turned: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the affine that takes indices of the result to those before."""
    move = np.zeros((4, 4))
    move[3, 3] = 1
    for to, axis in enumerate(order):
        move[axis, to] = -1 if to in turned else 1
        move[axis, 3] = shape[to] - 1 if to in turned else 0
    return move
