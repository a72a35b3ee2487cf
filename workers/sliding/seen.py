"""A target under windows: which of them it depends on, and what each of these says."""

from collections.abc import Sequence

from torch import Tensor

from service.errors.models import UnservablePass
from workers.passes import Scalar
from workers.sliding.regions import Region
from workers.targets.scalars import OfWindows
from workers.tiling import Tiling


class Parts:
    """A target that is the greatest of what several windows say, each by itself.

    Raises
    ------
    UnservablePass
        If it is no such target.
    """

    def __init__(self, scalar: Scalar) -> None:
        if not isinstance(scalar, OfWindows):
            raise UnservablePass("Windows that are not blended serve boxes alone.")
        self._parts = dict(scalar.parts)
        self.windows = tuple(self._parts)
        """Those that see something of the box; no other says anything of it."""

    def part(self, window: int, rivals: Tensor | None = None) -> Scalar:  # noqa: ARG002 - it has none
        """Return what one window says, out of its own outputs."""
        return self._parts[window]

    def total(self, parts: Tensor) -> Tensor:
        """Return the score of what its windows say, shape ``(windows,)``."""
        return parts.amax()


Seen = Region | Parts


def seen_of(scalar: Scalar, tiling: Tiling) -> Seen:
    """Return a target under a tiling. Errors as of `Region` and `Parts`."""
    return Parts(scalar) if tiling.rules.blend == "none" else Region(scalar, tiling)


def met_by(seen: Sequence[Seen]) -> list[int]:
    """Return the windows that matter to any target, ascending."""
    return sorted({window for each in seen for window in each.windows})


def regions_among(seen: Sequence[Seen]) -> list[Region]:
    """Return those that are regions: all of a segmentation's, and none of a detection's."""
    return [each for each in seen if isinstance(each, Region)]


def demand_sums(seen: Sequence[Seen]) -> None:
    """Require of targets that their windows' gradients add up to their own.

    Raises
    ------
    UnservablePass
        One is the greatest of what several windows say.
    """
    if any(isinstance(each, Parts) and len(each.windows) > 1 for each in seen):
        raise UnservablePass("What several windows say of a box is told by its scores alone.")
