"""How a network ends, where that is not what is explained: in probabilities, or in an image."""

from typing import Protocol

from torch import Tensor, nn

from service.domain.manifest import Manifest
from workers.activation import Activation
from workers.deviation import Deviation


class Ending(Protocol):
    """What is made of a network's outputs before anything is asked of them."""

    def said(self, image: Tensor, outputs: Tensor) -> Tensor:
        """Return what counts of outputs, given the images ``(N, C, *spatial)`` they are of."""

    def join(self, network: nn.Module) -> None:
        """Have a network put that out itself, behind whatever it ends in."""

    def undo(self, network: nn.Module, row: Tensor) -> None:
        """Have a network put that out itself, or take away what makes it end otherwise.

        Parameters
        ----------
        row
            A batch of one, to see what runs.
        """


def ending_of(manifest: Manifest) -> Ending | None:
    """Return what the manifest tells; `None` where outputs count as they are."""
    return Deviation() if manifest.task == "reconstruction" else Activation.of(manifest)
