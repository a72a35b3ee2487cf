"""What a self-test expects of a detector: each class's best score, and every box."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.domain.explanation import Prediction
from service.domain.files import SelfTest
from service.domain.grid import Grid
from service.domain.manifest import Manifest
from service.errors.models import ModelUnavailable
from workers.targets.base import Answer
from workers.targets.decoding import overlaps
from workers.targets.detections import by_window, decoder_of, predictions_of

SAME: Final = 0.9
"""Overlap (IoU) of a box that is found with the one expected."""


def demand_fixed(found: Sequence[int], probed: Sequence[int]) -> None:
    """Hold one image's outputs against those of another: proposals must stay in their places.

    Raises
    ------
    ModelUnavailable
        Their shape depends on the image.
    """
    if tuple(found) != tuple(probed):
        raise ModelUnavailable(
            "How many boxes the model puts out depends on the image: it suppresses or sorts them"
            " itself, and none could be followed. Export it without suppression.",
            pointer="/outputs/0/boxes",
            found=[*found],
            probed=[*probed],
        )


def demand_boxes(
    manifest: Manifest, test: SelfTest, outputs: Tensor, grid: Grid, probed: Sequence[int]
) -> NDArray[np.float64]:
    """Return each class's best logit, the boxes being those expected.

    Parameters
    ----------
    outputs
        Of the one image, float64, without the batch axis; of a model that sees windows, of each.
    grid
        The model input's pixels in the test's image.
    probed
        Shape of the network's outputs on another image, or on another window.

    Raises
    ------
    ModelUnavailable
        The outputs' shape depends on the image, they are not what the manifest's decoding reads,
        or the boxes are others.
    """
    one = by_window(manifest, outputs)[0]
    demand_fixed(one.shape, probed)
    fault = decoder_of(manifest, grid.shape).fault(one.shape)
    if fault is not None:
        raise ModelUnavailable(
            "The model's output has another shape than its 'boxes' read; -1 is any number. Mend"
            " 'boxes' of the output: 'layout', 'channels', 'strides', 'anchors' or 'background'.",
            pointer="/outputs/0/boxes",
            expected=[*fault[0]],
            found=[*fault[1]],
        )
    predictions = predictions_of(Answer(manifest, outputs, grid))
    if not all(_are_found(each, test) for each in predictions):
        raise ModelUnavailable(
            "A self-test of the model failed: it finds other boxes than those expected. Mend the"
            " thresholds or 'boxes' of the output ('form', 'unit', 'axes', 'place'), or the test.",
            pointer="/selftests",
            selftest=test.title,
            expected=len(test.boxes),
            found=sum(len(each.detections) for each in predictions),
        )
    return np.array([each.logit for each in predictions])


def _are_found(prediction: Prediction, test: SelfTest) -> bool:
    """Tell whether the boxes of one class are those expected, each once."""
    wanted = [each.box for each in test.boxes if each.of == prediction.key]
    found = [each.box for each in prediction.detections]
    if len(wanted) != len(found):
        return False
    if not wanted:
        return True
    near = overlaps(torch.tensor(wanted)[:, None], torch.tensor(found)) >= SAME
    return bool(near.any(0).all() and near.any(1).all())
