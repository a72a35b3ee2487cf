"""Scalars of a detector: what one proposal says, or what is left of its box in a changed image."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from workers.device import sent
from workers.targets.decoding import Decoder, overlaps

Box = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ProposalLogit:
    """The log odds of one proposal's score, whatever becomes of its box.

    Parameters
    ----------
    index
        The class whose score it is; `None` for the objectness.
    """

    decoder: Decoder
    proposal: int
    index: int | None

    @property
    def weights(self) -> None:
        """It is read out of more than a row of outputs."""
        return

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((ProposalLogit, self.decoder, self.proposal, self.index))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the logit of each row, shape ``(rows,)``."""
        one = self.decoder.proposals(outputs)[:, self.proposal : self.proposal + 1]
        return logits_of(self.decoder, one, self.index)[:, 0]


@dataclass(frozen=True, slots=True)
class BoxSimilarity:
    r"""How much of a box is found in a changed image, anywhere among the proposals.

    .. math:: s = \max_j \, \mathrm{IoU}(b, b_j) \, p_j

    with `p` the probability of the box's class, or its objectness. D-RISE takes the cosine
    of all classes' scores in its place, and the objectness: of a detector with one class
    the cosine is 1 whatever it says, and of independent classes it forgets how
    sure it is.

    Parameters
    ----------
    box
        As it was found on the unchanged image, in input pixels.
    index
        The class; `None` for the objectness.

    References
    ----------
    V. Petsiuk et al., "Black-box explanation of object detectors via saliency maps",
    CVPR 2021, section 3.2.
    """

    decoder: Decoder
    box: Box
    index: int | None

    @property
    def weights(self) -> None:
        """It is not linear."""
        return

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((BoxSimilarity, self.decoder, self.box, self.index))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the similarity of each row, shape ``(rows,)``."""
        proposals = self.decoder.proposals(outputs)
        probabilities = logits_of(self.decoder, proposals, self.index).sigmoid()
        box = torch.tensor(self.box, dtype=outputs.dtype, device=outputs.device)
        return (probabilities * overlaps(self.decoder.boxes(proposals), box)).amax(1)


@dataclass(frozen=True, slots=True)
class ProposalEdge:
    """Where an edge of one proposal's box lies, whatever becomes of its score.

    Parameters
    ----------
    factors
        What the box's numbers in input pixels are multiplied with, in their order.
    constant
        What is added, for a number of source pixels.
    """

    decoder: Decoder
    proposal: int
    factors: tuple[float, ...]
    constant: float

    @property
    def weights(self) -> None:
        """It is read out of more than a row of outputs."""
        return

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((ProposalEdge, self.decoder, self.proposal, self.factors, self.constant))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the edge's place in each row, in source pixels, shape ``(rows,)``."""
        every = self.decoder.boxes(self.decoder.proposals(outputs))  # each from its own place
        factors = sent(torch.tensor(self.factors, dtype=torch.float64), every.device, every.dtype)
        return every[:, self.proposal] @ factors + self.constant


def logits_of(decoder: Decoder, proposals: Tensor, index: int | None) -> Tensor:
    """Return the log odds of a class's score, or of the objectness, ``(N, P)``."""
    return decoder.objectness(proposals) if index is None else decoder.logits(proposals)[..., index]
