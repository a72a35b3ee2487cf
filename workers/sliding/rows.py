"""The windows of one row of a pass: cut out of it when a batch is filled."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from workers.rows import INPUT, Beside, Clean, Patched, Rows
from workers.tiling import Tiling, overlap, within


class Source:
    """One row of a pass over whole images, from which windows are cut.

    Parameters
    ----------
    rows
        The pass's rows, of whole images, perhaps with numbers beside them.
    row
        Which of them.
    like
        A tensor of the model's type, on its device.
    """

    def __init__(self, rows: Rows, row: int, tiling: Tiling, like: Tensor) -> None:
        self._rows = rows.rows if isinstance(rows, Beside) else rows
        self._row = row
        self.values = rows.of(row) if isinstance(rows, Beside) else None
        """Numbers beside the image, and so beside each of its windows, shape ``(variables,)``."""

        self.tiling = tiling
        self._like = like

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return self._rows.shapes[INPUT][0]

    @property
    def clean(self) -> "Source | None":
        """The image that this row is a version of, if it is one, beside the row's own numbers.

        Of the image itself it is the row itself.
        """
        image = getattr(self._rows, "image", None)
        if image is None or isinstance(self._rows, Clean):
            return None if image is None else self
        rows: Rows = Clean(image)
        rows = rows if self.values is None else Beside(rows, self.values)
        return Source(rows, 0, self.tiling, self._like)

    @property
    def token(self) -> Hashable | None:
        """Equal for the windows of one and the same image beside the same numbers."""
        numbers = None if self.values is None else tuple(self.values.tolist())
        return None if self._rows.token is None else (self._rows.token, numbers)

    @cached_property
    def image(self) -> Tensor | None:
        """The unchanged image, shape ``(C, *extent)``, if there is one."""
        image = getattr(self._rows, "image", None)
        return None if image is None else self.tiling.padded(image)

    @cached_property
    def _whole(self) -> Tensor:
        """The row, shape ``(C, *extent)``: the image itself, or as the rows write it."""
        if isinstance(self._rows, Clean) and self.image is not None:
            return self.image
        whole = self._like.new_empty(1, *self._rows.shapes[INPUT])
        self._rows.fill({INPUT: whole}, self._row, self._row + 1)
        return self.tiling.padded(whole[0])

    def cut(self, window: int) -> Tensor:
        """Return a window, shape ``(C, *size)``; not to be written to."""
        box = self.tiling.boxes[window]
        if not isinstance(self._rows, Patched) or self.image is None:
            return self._whole[:, *box]
        # a patch is small beside the volume: the row is never written whole
        patch = tuple(
            slice(each.start + inner.start, min(each.stop + inner.start, inner.stop))
            for each, inner in zip(self._rows.boxes[self._row], self.tiling.inner, strict=True)
        )
        piece, both = self.image[:, *box], overlap(patch, box)
        if both is None:
            return piece
        piece = piece.clone()
        piece[:, *within(both, box)] = self._rows.value
        return piece

    def rows(self, windows: Sequence[int]) -> Rows:
        """Return windows as rows that the network is given, in order."""
        rows = Windows(self, tuple(windows))
        return rows if self.values is None else Beside(rows, self.values)

    def touches(self, window: int) -> bool:
        """Tell whether a window differs from the same window of the unchanged image."""
        return self.image is None or not torch.equal(
            self.cut(window), self.image[:, *self.tiling.boxes[window]]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of one source, in order."""

    source: Source
    windows: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.windows)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one row, for each input of the model."""
        return {INPUT: (self.source.channels, *self.source.tiling.size)}

    @property
    def token(self) -> Hashable | None:
        """Never shared: what is made of windows is folded up at once."""
        return None

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write windows ``start`` to ``stop``."""
        for slot, window in enumerate(self.windows[start:stop]):
            out[INPUT][slot] = self.source.cut(window)
