"""What every runtime does alike: rows into one batch, outputs into scores."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final

import torch
from torch import Tensor

from service.errors.models import MethodError, NoGradientPath, UnservablePass
from workers.device import sent
from workers.passes import Scalar, Tap
from workers.rows import INPUT, VALUES
from workers.runtimes.base import Segment, Served, Work

Batch = Mapping[str, Tensor]
"""By input's name, each shape ``(rows, ...)``."""

TRIES: Final = 3


def row_shape(work: Work, variables: int = 0) -> tuple[int, ...]:
    """Return the shape of the image in one row.

    Parameters
    ----------
    variables
        How many numbers the model takes beside it.

    Raises
    ------
    UnservablePass
        If the rows name other inputs.
    """
    shapes = dict(work.rows.shapes)
    image = shapes.pop(INPUT, None)
    if image is None or shapes != ({VALUES: (variables,)} if variables else {}):
        raise UnservablePass("The model has other inputs than the rows.")
    return image


def spans(segments: Sequence[Segment]) -> Iterator[slice]:
    """Iterate over the rows of the batch that each segment holds."""
    start = 0
    for segment in segments:
        yield slice(start, start + segment.count)
        start += segment.count


def filled(
    segments: Sequence[Segment], size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Batch, dict[int, Exception]]:
    """Return a batch of `size` rows, and the failures of segments that could not be written.

    Rows beyond the segments', and those of a failed segment, are zero.
    """
    batch = {
        name: torch.zeros(size, *shape, dtype=dtype, device=device)
        for name, shape in segments[0].work.rows.shapes.items()
    }
    failures: dict[int, Exception] = {}
    for k, (segment, span) in enumerate(zip(segments, spans(segments), strict=True)):
        try:
            out = {name: each[span] for name, each in batch.items()}
            segment.work.rows.fill(out, segment.start, segment.stop)
        except Exception as error:  # noqa: BLE001 - rows are made by a method: foreign code
            for each in batch.values():
                each[span] = 0
            failures[k] = error
    return batch, failures


def scores_of(outputs: Tensor, work: Work) -> Tensor:
    """Return the scores of every target, shape ``(rows, K)``, from outputs ``(rows, ...)``.

    Raises
    ------
    MethodError
        If a target does not reduce a row to one number.
    NoGradientPath
        If a gradient is wanted and a score has none.
    """
    linear = [target.weights for target in work.targets]
    if all(weights is not None and len(weights) == 1 for weights in linear):
        pairs = [weights[0] for weights in linear if weights is not None]
        scores = _columns(outputs, [index for index, _ in pairs])
        if any(weight != 1 for _, weight in pairs):
            weights = torch.tensor([weight for _, weight in pairs], dtype=scores.dtype)
            scores = scores * sent(weights, scores.device, scores.dtype)
    else:
        # each on its own: in a stack, a score without a graph would get a blank gradient
        pairs_of = zip(work.targets, work.places, strict=True)
        scores = torch.stack([_score(each, outputs, bool(places)) for each, places in pairs_of], 1)
    if work.at and not scores.requires_grad:
        raise NoGradientPath("No gradient leads from the score to where it is asked.")
    return scores


def _columns(outputs: Tensor, indices: Sequence[int]) -> Tensor:
    """Return columns of outputs ``(rows, classes)``; one is sliced, at a fifth of the cost."""
    if max(indices) >= outputs.shape[1]:
        raise MethodError("A target names an output that the model does not have.")
    first = indices[0]
    if len(indices) == 1:
        return outputs[:, first : first + 1]
    return outputs[:, sent(torch.tensor(indices), outputs.device, torch.int64)]


def _score(target: Scalar, outputs: Tensor, graph: bool) -> Tensor:
    """Return one target's scores; refuse what is not a number to a row, or has no graph."""
    score = target(outputs)
    if score.shape != (len(outputs),):
        raise MethodError("A target must give one number for each row.")
    if graph and not score.requires_grad:
        raise NoGradientPath("No gradient leads from the score to where it is asked.")
    return score


def guarded_scores(outputs: Tensor, work: Work) -> Tensor | Exception:
    """Return the scores, or the failure of this one segment."""
    try:
        return scores_of(outputs, work)
    except Exception as error:  # noqa: BLE001 - targets join from outside: foreign code
        return error


def answered(
    work: Work, outputs: Tensor, taps: Mapping[Tap, Tensor] | None = None
) -> Served | Exception:
    """Return what a batch gave for one segment, of a model that gives no gradients."""
    scores = guarded_scores(outputs, work) if work.targets else None
    if isinstance(scores, Exception):
        return scores
    return Served(scores=scores, taps=taps or {}, outputs=outputs if work.outputs else None)


def usual_seconds(run: Callable[[], object]) -> float:
    """Return the median of the seconds that a run takes."""
    spent = []
    for _ in range(TRIES):
        began = time.perf_counter()
        run()
        spent.append(time.perf_counter() - began)
    return median(spent)
