r"""Targets of embeddings: how alike two images are, and what an autoencoder cannot give back.

.. math:: s = \frac{e(x) \cdot e(r)}{\lVert e(x) \rVert \, \lVert e(r) \rVert}

of an image `x` and a reference `r`, whose embedding is made once and stays as it is.
"""

import hashlib
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from service.domain.explanation import Prediction
from service.domain.resolved import ResolvedTarget
from service.domain.target import EmbeddingTarget, RegressionTarget
from service.domain.value import Sha256
from service.errors.models import NonFiniteScore
from service.errors.requests import InvalidTarget
from workers.device import sent
from workers.targets import regressions
from workers.targets.base import Answer, Chosen, key_of


@dataclass(frozen=True, slots=True, eq=False)
class Cosine:
    """The cosine similarity of a row's embedding with one that stays the same.

    Parameters
    ----------
    reference
        That embedding, of length 1, shape ``(D,)``, float64 on the CPU.
    digest
        Of it: two scalars of one digest are equal.
    """

    reference: Tensor = field(repr=False)
    digest: Sha256

    @property
    def weights(self) -> None:
        """It is not linear."""
        return

    @override
    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return isinstance(other, Cosine) and self.digest == other.digest

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((Cosine, self.digest))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the similarity of each row, shape ``(rows,)``, of outputs ``(rows, D)``."""
        reference = sent(self.reference, outputs.device, outputs.dtype)
        return normalize(outputs, dim=1) @ reference


def predictions_of(answer: Answer) -> tuple[Prediction, ...]:
    """Return nothing: an embedding says nothing of its image alone.

    Raises
    ------
    InvalidTarget
        The output is no vector as long as self-tests say.
    """
    if answer.outputs.shape != (answer.manifest.width,):
        raise InvalidTarget("The model's outputs are not the vector that its self-tests give.")
    return ()


def resolve(target: EmbeddingTarget, answer: Answer) -> Chosen:
    """Make a similarity or an error definite.

    Raises
    ------
    InvalidTarget
        The error is not for use, or there is no such image to be held against.
    NonFiniteScore
        An embedding is zero, and has no direction.
    """
    if target.similarity_to is None:
        return _error(target, answer)
    if target.similarity_to not in answer.references:
        raise InvalidTarget("There is no such image to hold this one against.")
    outputs, sha256 = answer.references[target.similarity_to]
    if not (outputs.norm() > 0 and answer.outputs.norm() > 0):
        raise NonFiniteScore("An embedding is zero, so nothing is alike or unlike it.")
    reference = normalize(outputs, dim=0)
    scalar = Cosine(reference, hashlib.sha256(reference.numpy().tobytes()).hexdigest())
    return Chosen(
        ResolvedTarget(
            kind="embedding",
            key=key_of("similarity-to", target.similarity_to),
            label=f"Similarity to {target.similarity_to}",
            index=0,
            asked_as=target.similarity_to,
            score=scalar(answer.outputs[None]).item(),
            quantity="cosine similarity of embeddings",
            probability=None,
            threshold=None,
            above_threshold=None,
            against=sha256,
            again=target,
        ),
        scalar,
    )


def _error(target: EmbeddingTarget, answer: Answer) -> Chosen:
    """Make an error definite; it is counted from the manifest's reference, if that names one."""
    made = regressions.resolve(RegressionTarget(kind="regression", of=0), answer)
    above = "" if made.target.reference is None else " above the reference"
    said = {
        "kind": "embedding",
        "asked_as": target.of,
        "quantity": f"mean squared error of the reconstruction{above}",
        "again": target,
    }
    return replace(made, target=made.target.model_copy(update=said))
