"""Whether a network that stands in for a model says what the model says of one image."""

from collections.abc import Sequence

from service.domain.manifest import Manifest
from service.errors import SurrogateDisagrees
from workers.targets.classes import predictions_of


def disagreement(
    manifest: Manifest, original: Sequence[float], surrogate: Sequence[float]
) -> SurrogateDisagrees | None:
    """Return the failure of methods that run on the surrogate, or `None` if both agree.

    They agree when no logit differs by more than the manifest's tolerance, and
    all decisions are the same: what reaches its threshold, and of classes that
    exclude each other which one comes first.

    Parameters
    ----------
    original, surrogate
        Logits of the image that is explained, in the order of the classes.
    """
    limit = manifest.surrogate
    apart = limit.difference(original, surrogate)
    same = _decisions(manifest, original) == _decisions(manifest, surrogate)
    if same and apart <= limit.tolerance:
        return None
    return SurrogateDisagrees(
        "On this image the network that stands in for the model, and has its gradients, does not"
        " say what the model says; methods that need no gradients run on the model itself.",
        difference=apart,
        tolerance=limit.tolerance,
        same_decision=same,
    )


def _decisions(manifest: Manifest, logits: Sequence[float]) -> tuple[object, ...]:
    """Return what a reader is told of logits."""
    reached = tuple(each.above_threshold for each in predictions_of(manifest, logits))
    if manifest.task != "classification-multiclass":
        return reached
    return (*reached, max(range(len(logits)), key=logits.__getitem__))
