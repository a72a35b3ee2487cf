"""Scalars: how a row's outputs become the one number that is explained."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from service.domain.value import Sha256
from workers.device import sent
from workers.passes import Scalar


@dataclass(frozen=True, slots=True)
class ClassLogit:
    """The scalar of a class target: one column of the logits."""

    index: int

    @property
    def weights(self) -> tuple[tuple[int, float], ...]:
        """The one output that counts."""
        return ((self.index, 1.0),)

    @override
    def __hash__(self) -> int:
        """Hash by the class."""
        return hash((ClassLogit, self.index))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the class's logit of each row, shape ``(rows,)``."""
        return outputs[:, self.index]


@dataclass(frozen=True, slots=True)
class ClassProbability:
    r"""What the network's activation makes of a class's logit.

    .. math:: s = \frac{e^{z_k}}{\sum_j e^{z_j}} \quad\text{or}\quad s = \frac{1}{1 + e^{-z_k}}

    Its derivative with respect to the logit is ``s (1 - s)``, next to nothing where the network
    is certain. It is taken in float64: in float32 every probability of a logit over 17 is 1, and
    nothing that is hidden or left out would take anything off it.

    Parameters
    ----------
    index
        The class.
    exclusive
        Whether classes exclude each other, so that probabilities are a softmax's.
    """

    index: int
    exclusive: bool

    @property
    def weights(self) -> None:
        """It is not linear."""
        return

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((ClassProbability, self.index, self.exclusive))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the class's probability in each row, shape ``(rows,)``."""
        logits = outputs.double()
        every = logits.softmax(1) if self.exclusive else logits.sigmoid()
        return every[:, self.index]


@dataclass(frozen=True, slots=True)
class Linear:
    """Outputs times weights, plus a constant."""

    terms: tuple[tuple[int, float], ...]
    constant: float = 0.0

    @property
    def weights(self) -> tuple[tuple[int, float], ...] | None:
        """The outputs that count; `None` with a constant, which weights cannot tell."""
        return None if self.constant else self.terms

    @override
    def __hash__(self) -> int:
        """Hash by the numbers."""
        return hash((Linear, self.terms, self.constant))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the sum of each row, shape ``(rows,)``.

        A constant is added in float64: what changes of a sum would be lost beside a large one.
        """
        parts = torch.stack([outputs[:, index] * weight for index, weight in self.terms]).sum(0)
        return parts.double() + self.constant if self.constant else parts


@dataclass(frozen=True, slots=True)
class LogOdds:
    r"""One class against all others together, of classes that exclude each other.

    .. math:: s = z_k - \log \sum_{j \ne k} e^{z_j} = \log \frac{p_k}{1 - p_k}
    """

    index: int

    @property
    def weights(self) -> None:
        """It is not linear."""
        return

    @override
    def __hash__(self) -> int:
        """Hash by the class."""
        return hash((LogOdds, self.index))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the log odds of each row, shape ``(rows,)``."""
        others = torch.cat([outputs[:, : self.index], outputs[:, self.index + 1 :]], 1)
        return outputs[:, self.index] - others.logsumexp(1)


@dataclass(frozen=True, slots=True)
class OfWindows:
    """The greatest of what several windows say, each of its own outputs.

    Parameters
    ----------
    parts
        Windows by their numbers, ascending, each with what is read out of its outputs.
    """

    parts: tuple[tuple[int, Scalar], ...]

    @property
    def weights(self) -> None:
        """It is not linear."""
        return

    @property
    def windows(self) -> tuple[int, ...]:
        """Those that it depends on."""
        return tuple(window for window, _ in self.parts)

    def renumbered(self) -> "OfWindows":
        """Return the same of an image that has these windows alone."""
        return OfWindows(tuple(enumerate(part for _, part in self.parts)))

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((OfWindows, self.parts))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Reduce outputs of all windows, ``(rows, windows, ...)``, to ``(rows,)``."""
        said = [part(outputs[:, window]) for window, part in self.parts]
        return torch.stack(said).amax(0)


@dataclass(frozen=True, slots=True, eq=False)
class RegionLogits:
    """A class's logits over a region that does not change with the image.

    Parameters
    ----------
    index
        The class.
    mask
        The region on the model's input, bool, shape ``spatial``, not empty.
    digest
        Of the mask: two scalars of one digest are equal.
    mean
        Whether the mean is taken and not the sum.
    against
        The margin is over the highest logit of the other classes (``others``)
        or over a logit (a number); `None` for the logits themselves.
    """

    index: int
    mask: NDArray[np.bool_] = field(repr=False)
    digest: Sha256
    mean: bool = True
    against: float | str | None = None

    @property
    def weights(self) -> None:
        """It weighs pixels, not outputs."""
        return

    @property
    def _identity(self) -> tuple[object, ...]:
        return (self.index, self.digest, self.mask.shape, self.mean, self.against)

    @override
    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return isinstance(other, RegionLogits) and self._identity == other._identity

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash(self._identity)

    def __call__(self, outputs: Tensor) -> Tensor:
        """Reduce ``(rows, classes, *spatial)`` to ``(rows,)``."""
        mask = sent(torch.from_numpy(self.mask.astype(np.float32)), outputs.device, outputs.dtype)
        total = (self._logits(outputs) * mask).flatten(1).sum(1)
        return total / int(self.mask.sum()) if self.mean else total

    def _logits(self, outputs: Tensor) -> Tensor:
        """Return the class's logits or margins, shape ``(rows, *spatial)``."""
        own = outputs[:, self.index]
        if self.against is None:
            return own
        if isinstance(self.against, float):
            return own - self.against
        others = torch.cat([outputs[:, : self.index], outputs[:, self.index + 1 :]], 1)
        return own - others.amax(1)
