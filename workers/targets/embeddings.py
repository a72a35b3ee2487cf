"""Targets of an autoencoder: how far what it gives back is from what it was given."""

from dataclasses import replace

from service.domain.target import EmbeddingTarget, RegressionTarget
from workers.targets import regressions
from workers.targets.base import Answer, Chosen


def resolve(target: EmbeddingTarget, answer: Answer) -> Chosen:
    """Make the error definite; it is counted from the manifest's reference, if that names one.

    Raises
    ------
    InvalidTarget
        It is not for use.
    """
    made = regressions.resolve(RegressionTarget(kind="regression", of=0), answer)
    above = "" if made.target.reference is None else " above the reference"
    said = {
        "kind": "embedding",
        "asked_as": target.of,
        "quantity": f"mean squared error of the reconstruction{above}",
        "again": target,
    }
    return replace(made, target=made.target.model_copy(update=said))
