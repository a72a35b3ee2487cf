"""Whether a network that stands in for a model says what the model says of one image."""

from collections.abc import Sequence

from torch import Tensor

from service.domain.manifest import Manifest
from service.errors.models import SurrogateDisagrees
from workers.targets.classes import predictions_of
from workers.targets.detections import by_window, decoder_of
from workers.targets.survival import by_time


def disagreement(
    manifest: Manifest, original: Tensor, surrogate: Tensor, extent: Sequence[int]
) -> SurrogateDisagrees | None:
    """Return the failure of methods that run on the surrogate, or `None` if both agree.

    They agree when no output differs by more than the manifest's tolerance, and
    all decisions of a classifier are the same: what reaches its threshold, and of
    classes that exclude each other which one comes first; so are those of an event by
    each time. Of a detector the tolerance is of its scores, and of its boxes' places as
    shares of the input.

    Parameters
    ----------
    original, surrogate
        Outputs on the image that is explained, one row without its axis.
    extent
        Spatial shape of the prepared image.
    """
    limit = manifest.surrogate
    parts = zip(
        _parts(manifest, original, extent), _parts(manifest, surrogate, extent), strict=True
    )
    apart = max(limit.difference(*(each.flatten().tolist() for each in pair)) for pair in parts)
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


def _parts(manifest: Manifest, outputs: Tensor, extent: Sequence[int]) -> tuple[Tensor, ...]:
    """Return what is compared part by part: numbers of one kind must not hide those of another."""
    if manifest.task != "detection":
        return (outputs,)
    decoder = decoder_of(manifest, extent)
    proposals = decoder.proposals(by_window(manifest, outputs))
    return decoder.logits(proposals), decoder.boxes(proposals) / max(decoder.extent)


def _decisions(manifest: Manifest, outputs: Tensor) -> tuple[object, ...]:
    """Return what a reader is told of a classifier's logits, or of an event by each time.

    Of other models nothing is decided.
    """
    if manifest.task == "survival":
        return tuple(each.above_threshold for each in by_time(manifest, outputs))
    if not manifest.task.startswith("classification"):
        return ()
    logits = outputs.tolist()
    reached = tuple(each.above_threshold for each in predictions_of(manifest, logits))
    if manifest.task != "classification-multiclass":
        return reached
    return (*reached, max(range(len(logits)), key=logits.__getitem__))
