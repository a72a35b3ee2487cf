"""The windows that a detector sees: what is read out of which, and where they lie."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from service.domain.inputs import SlidingWindow
from workers.passes import Scalar
from workers.targets.decoding import corners
from workers.targets.scalars import OfWindows
from workers.tiling import Tiling


class Windows:
    """Those of one image; of a model that sees images whole the image itself is the only one.

    Parameters
    ----------
    rules
        What the manifest says of windows.
    shape
        Spatial shape of the prepared image.
    """

    def __init__(self, rules: SlidingWindow | None, shape: Sequence[int]) -> None:
        self._tiling = None if rules is None else Tiling(rules, tuple(shape))
        self.extent = tuple(shape) if rules is None else rules.size
        """Spatial shape of each."""

        firsts = [(0,) * len(shape)] if self._tiling is None else self._tiling.corners
        self.firsts = torch.tensor(firsts)
        """First pixel of each as a place in the image, below 0 where it is padded, shape
        ``(windows, axes)``."""

    @property
    def inner(self) -> tuple[tuple[int, int], ...] | None:
        """Where the image lies in every window, as of `Decoder`; `None` if it fills all."""
        if self._tiling is None:
            return None
        axes = zip(self._tiling.inner, self._tiling.shape, self.extent, strict=True)
        # an axis that is padded has one window
        return tuple(
            (at.start, at.stop) if length < edge else (0, edge) for at, length, edge in axes
        )

    def here(self, window: int, scalar: Scalar) -> Scalar:
        """Return what is read out of one window's outputs as read out of all windows'."""
        return scalar if self._tiling is None else OfWindows(((window, scalar),))

    def about(self, box: Tensor, read: Callable[[int], Scalar]) -> Scalar:
        """Return the greatest of what is read out of the windows that overlap a box.

        No window's boxes reach beyond it, so no other has one that overlaps this.

        Parameters
        ----------
        box
            In pixels of the image.
        read
            Of a window by its number, what is read out of its outputs.
        """
        if self._tiling is None:
            return read(0)
        low, high = corners(box)
        met = (self.firsts < high) & (low < self.firsts + torch.tensor(self.extent))
        return OfWindows(tuple((k, read(k)) for k in torch.where(met.all(-1))[0].tolist()))

    def covered(self, scalar: Scalar) -> tuple[int, Tensor] | None:
        """Return how many windows a scalar is read out of, and the part that they cover.

        That is a box in pixels of the image; there is `None` of an image that is seen whole.
        """
        if self._tiling is None or not isinstance(scalar, OfWindows):
            return None
        firsts = self.firsts[[*scalar.windows]]
        ends = firsts.amax(0) + torch.tensor(self.extent)
        low = firsts.amin(0).clamp(min=0)
        return len(firsts), torch.cat([low, ends.minimum(torch.tensor(self._tiling.shape))])
