"""Row sets: what a pass feeds the model, as cheap values that hold no batch.

A row set is *reproducible by row index*: any range of its rows can be written
again at any time, so nothing is ever materialized beyond the batch in hand.
The runtime owns the batch tensor and hands out the slice to fill.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Final, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from workers.device import sent

INPUT: Final = "input"
"""Name of the image among the model's inputs, and of the place where its gradient is taken."""

VALUES: Final = "values"
"""Name of the numbers beside the image, shape ``(rows, variables)``, and likewise of the place."""

LEAVES: Final = frozenset({INPUT, VALUES})
"""Places that are inputs, not layers."""

SPREAD: Final = 0x9E3779B1
"""An odd number near 2^32 by the golden ratio: its multiples spread evenly."""

Box = tuple[slice, ...]
"""A box of cells, one slice for each spatial axis."""


class Rows(Protocol):
    """An ordered set of model inputs."""

    @property
    def count(self) -> int:
        """Number of rows."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one row, for each input of the model."""

    @property
    def token(self) -> Hashable | None:
        """Equal tokens mean equal rows; `None` means never shared."""

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write rows ``start`` to ``stop`` into ``out[name]``, shape ``(stop - start, ...)``."""


class Same:
    """A hashable stand-in for an object, equal only to itself.

    It keeps the object alive, so that an equal identity is never a reused one.
    """

    __slots__ = ("_thing",)

    def __init__(self, thing: object) -> None:
        self._thing = thing

    @override
    def __eq__(self, other: object) -> bool:
        """Tell whether both stand for one object."""
        return isinstance(other, Same) and self._thing is other._thing

    @override
    def __hash__(self) -> int:
        """Hash the object's identity."""
        return id(self._thing)


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """What the families made of one image have in common."""

    image: Tensor
    """Shape ``(C, *spatial)``, in model-input units."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one row, for each input of the model."""
        return {INPUT: tuple(self.image.shape)}


@dataclass(frozen=True, slots=True, eq=False)
class Clean(_Image):
    """The image itself: one row, or as many as stand beside different values."""

    count: int = 1

    @property
    def token(self) -> Hashable:
        """Equal for one and the same image tensor."""
        return (Clean, Same(self.image), self.count)

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the image."""
        out[INPUT][: stop - start] = self.image


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Rows that exist already, shape ``(count, C, *spatial)``."""

    rows: Tensor

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.rows.shape[0]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one row, for each input of the model."""
        return {INPUT: tuple(self.rows.shape[1:])}

    @property
    def token(self) -> Hashable:
        """Equal for one and the same tensor."""
        return (Given, Same(self.rows))

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the given rows."""
        out[INPUT][:] = self.rows[start:stop]


@dataclass(frozen=True, slots=True, eq=False)
class Blend(_Image):
    """Points between a constant baseline and the image: ``b + w (x - b)``."""

    baseline: float
    """Value of the reference image, in model-input units."""

    weights: tuple[float, ...]
    """Share of the image in each row; 0 is the baseline, 1 the image."""

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.weights)

    @property
    def token(self) -> Hashable:
        """Equal for one image, baseline and list of weights."""
        return (Blend, Same(self.image), self.baseline, self.weights)

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the blends."""
        shape = (-1,) + (1,) * self.image.dim()
        shares = torch.tensor(self.weights[start:stop], dtype=self.image.dtype)
        weights = sent(shares, self.image.device, self.image.dtype).reshape(shape)
        out[INPUT][:] = self.baseline + weights * (self.image - self.baseline)


def start_of(seed: int, stream: int) -> int:
    """Return where a generator, which keeps 32 bits, starts for one stream of a seed.

    Seeds below 4096 have 2^20 streams each, which never meet. The bits above
    are spread over all starts: no two seeds below 2^31 begin alike, as the last
    20 bits of their start tell the bits above, and what is left the others.
    """
    above, below = divmod(seed, 1 << 12)
    return ((below << 20) + above * SPREAD + stream) % (1 << 32)


@dataclass(frozen=True, slots=True, eq=False)
class Noisy(_Image):
    """The image with Gaussian noise, each row's noise drawn from its own seed."""

    sigma: float
    """Standard deviation of the noise, in model-input units."""

    seed: int
    samples: int
    antithetic: bool = False
    """Rows 2i and 2i + 1 bear the same noise with opposite signs."""

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.samples

    @property
    def token(self) -> Hashable:
        """Equal for one image and one description of the noise."""
        return (Noisy, Same(self.image), self.sigma, self.seed, self.samples, self.antithetic)

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the image with the noise of rows ``start`` to ``stop``."""
        pair = 2 if self.antithetic else 1
        drawn: tuple[int, Tensor] | None = None
        for slot, row in enumerate(range(start, stop)):
            stream, second = divmod(row, pair)
            if drawn is None or drawn[0] != stream:
                drawn = stream, self.sigma * self._noise(stream)
            combine = torch.sub if second else torch.add
            combine(self.image, drawn[1], out=out[INPUT][slot])

    def _noise(self, stream: int) -> Tensor:
        """Draw standard normal noise on the CPU, the same on every device."""
        generator = torch.Generator().manual_seed(start_of(self.seed, stream))
        noise = torch.randn(self.image.shape, generator=generator)
        return sent(noise, self.image.device, self.image.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Masked(_Image):
    """The image where a mask is 1 and a constant baseline where it is 0."""

    baseline: float
    masks: Callable[[int, int], Tensor]
    """Masks of rows ``start`` to ``stop``, shape ``(rows, 1 or C, *spatial)``, in [0, 1].

    A function of the row index, so that large sets are rebuilt and never kept.
    """

    count: int

    @property
    def token(self) -> Hashable:
        """Equal for one image, baseline and mask function."""
        return (Masked, Same(self.image), self.baseline, Same(self.masks), self.count)

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the masked image."""
        masks = self.masks(start, stop)
        torch.mul(masks, self.image - self.baseline, out=out[INPUT]).add_(self.baseline)


@dataclass(frozen=True, slots=True, eq=False)
class Boxed(_Image):
    """The image, changed in one box in each row: a runtime may compute what changes alone."""

    boxes: tuple[Box, ...]

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.boxes)

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the image, changed in each row's box."""
        out[INPUT][:] = self.image
        for slot, row in enumerate(range(start, stop)):
            inside: tuple[EllipsisType | slice, ...] = (..., *self.boxes[row])
            self.paint(out[INPUT][slot][inside], row)

    def paint(self, inside: Tensor, row: int) -> None:
        """Write what a row is in its box, shape ``(C, *box)``, over the image there."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Patched(Boxed):
    """The image with one box of a constant value in each row, in all channels."""

    value: float
    """Value inside the box, in model-input units."""

    @property
    def token(self) -> Hashable:
        """Equal for one image, one value and one tuple of boxes."""
        return (Patched, Same(self.image), self.value, Same(self.boxes))

    @override
    def paint(self, inside: Tensor, row: int) -> None:
        """Cover the box."""
        inside.fill_(self.value)


@dataclass(frozen=True, slots=True, eq=False)
class Blurred(Boxed):
    """The image mixed with its own blurred version in one box in each row."""

    blurred: Tensor
    """The blurred image, of the image's shape and units."""

    share: Callable[[int], Tensor]
    """Share of the blurred image in a row's box, shape ``(1, *box)``."""

    @property
    def token(self) -> Hashable:
        """Equal for one image, one blurred image, one tuple of boxes and one share."""
        things = (self.image, self.boxes, self.blurred, self.share)
        return (Blurred, *map(Same, things))

    @override
    def paint(self, inside: Tensor, row: int) -> None:
        """Blur the box as far as its share says."""
        box: tuple[EllipsisType | slice, ...] = (..., *self.boxes[row])
        inside += (self.blurred[box] - inside) * self.share(row)


@dataclass(frozen=True, slots=True, eq=False)
class Ablated(_Image):
    """The image itself, with one channel of a layer's output set to zero in each row."""

    place: str
    """A declared layer, whose output has shape ``(rows, channels, ...)``."""

    channels: tuple[int, ...]
    view: int | None = None
    """Of a layer that keeps several views apart, ``(rows, channels, views, ...)``: in which one
    the channel is zero; `None` in all of it."""

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.channels)

    @property
    def token(self) -> Hashable:
        """Equal for one image, one layer, one list of channels and one view."""
        return (Ablated, Same(self.image), self.place, self.channels, self.view)

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the image; the runtime sets the channels to zero on its way."""
        out[INPUT][: stop - start] = self.image


@dataclass(frozen=True, slots=True, eq=False)
class Between(_Image):
    """Points between references, another one in each row, and the image: ``r + w (x - r)``."""

    references: Callable[[int, int], Tensor]
    """References of rows ``start`` to ``stop``, shape ``(rows, C, *spatial)``.

    A function of the row index, so that large sets are rebuilt and never kept.
    """

    weights: tuple[float, ...]
    """Share of the image in each row; 0 is the reference, 1 the image."""

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.weights)

    @property
    def token(self) -> Hashable:
        """Equal for one image, one reference function and one list of weights."""
        return (Between, Same(self.image), Same(self.references), self.weights)

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the points."""
        references = self.references(start, stop)
        shape = (-1,) + (1,) * self.image.dim()
        shares = torch.tensor(self.weights[start:stop], dtype=references.dtype)
        weights = sent(shares, references.device, references.dtype).reshape(shape)
        out[INPUT][:] = references + weights * (self.image - references)


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut(_Image):
    """A bag ``(C, instances, *spatial)`` with another one of its instances left out in each row."""

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.image.shape[1]

    @property
    @override
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one row, which has one instance less than the bag."""
        channels, instances, *spatial = self.image.shape
        return {INPUT: (channels, instances - 1, *spatial)}

    @property
    def token(self) -> Hashable:
        """Equal for one and the same bag."""
        return (LeftOut, Same(self.image))

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the bag without the instances ``start`` to ``stop``."""
        for slot, left in enumerate(range(start, stop)):
            out[INPUT][slot][:, :left] = self.image[:, :left]
            out[INPUT][slot][:, left:] = self.image[:, left + 1 :]


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """Rows of an image, with the numbers that the model takes beside it."""

    rows: Rows
    values: Tensor
    """As the model takes them: of each row, shape ``(count, variables)``, or of all alike,
    shape ``(variables,)``."""

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.rows.count

    def of(self, row: int) -> Tensor:
        """Return the numbers beside one row, shape ``(variables,)``."""
        return self.values if self.values.dim() == 1 else self.values[row]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one row, for each input of the model."""
        return {**self.rows.shapes, VALUES: tuple(self.values.shape[-1:])}

    @property
    def token(self) -> Hashable | None:
        """Equal for equal rows beside one and the same tensor."""
        token = self.rows.token
        return None if token is None else (Beside, token, Same(self.values))

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the rows and their values."""
        self.rows.fill(out, start, stop)
        out[VALUES][:] = self.values if self.values.dim() == 1 else self.values[start:stop]


def ablated(rows: Rows) -> Ablated | None:
    """Return the rows as those that lack a layer's channels, if they do."""
    rows = rows.rows if isinstance(rows, Beside) else rows
    return rows if isinstance(rows, Ablated) else None
