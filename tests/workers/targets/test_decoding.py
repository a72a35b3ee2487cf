"""Boxes out of raw outputs, held against MONAI and against boxes that were encoded by hand."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from monai.apps.detection.utils.box_coder import BoxCoder
from monai.data.box_utils import box_iou, non_max_suppression
from pydantic import ValidationError
from torch import Tensor

from service.domain.boxes import BoxDecoding
from workers.targets.decoding import Decoder, kept, overlaps

EXTENT = (32, 48)
LOGITS = {"form": "corners", "scores": "sigmoid"}


def decoder(classes: int = 2, **words: Any) -> Decoder:
    return Decoder(BoxDecoding.model_validate(words), classes, EXTENT)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boxes(count: int, seed: int = 0) -> Tensor:
    """Return boxes inside the extent: top, left, bottom, right."""
    random = np.random.default_rng(seed)
    corners = np.sort(random.uniform(0, [[EXTENT]], (count, 2, 2)), 1)
    return torch.from_numpy(corners.reshape(count, 4))


# --------------------------------------------------------------------------- boxes


def test_anchors_are_those_of_retinanet_by_monai():
    shapes = (((8.0, 8.0), (4.0, 12.0)), ((16.0, 16.0), (8.0, 24.0)))
    words = {"strides": [4, 8], "anchors": shapes, "axes": "yx"}
    ours = decoder(layout="rows", form="anchor_deltas", scores="sigmoid", **words)
    assert ours.grids == ((8, 12), (4, 6))
    outputs = drawn(1, (8 * 12 + 4 * 6) * 2, 6) * 0.2
    makers = AnchorGeneratorWithAnchorShape([1, 2], shapes[0])
    maps = [torch.zeros(1, 1, *grid) for grid in ours.grids]
    (anchors,) = makers(torch.zeros(1, 1, *EXTENT), maps)
    theirs = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(outputs[0, :, :4], anchors.double())
    clipped = theirs.view(-1, 2, 2).clamp(min=0).minimum(torch.tensor(EXTENT)).flatten(1)
    torch.testing.assert_close(ours.boxes(outputs)[0], clipped, atol=1e-4, rtol=1e-5)


def told(form: str, true: Tensor, unit: Tensor, places: Tensor) -> Tensor:
    """Encode boxes as an output has them, rows before columns."""
    low, high = true[:, :2], true[:, 2:]
    size, center = high - low, (low + high) / 2
    numbers = {
        "corners": (low, high),
        "center_size": (center, size),
        "distances": (places - low, high - places),
        "offset_size": (center - places, size),
    }[form]
    return torch.cat([each / unit for each in numbers], 1)


@pytest.mark.parametrize(
    ("form", "unit"),
    [
        *product(["corners", "center_size"], ["pixels", "shares"]),
        *product(["distances", "offset_size"], ["pixels", "shares", "strides"]),
    ],
)
@pytest.mark.parametrize("axes", ["xy", "yx"])
@pytest.mark.parametrize("layout", ["grid", "rows", "columns"])
def test_a_box_is_the_same_however_it_is_told(form, unit, axes, layout):
    placed = form in ("distances", "offset_size")
    rows, columns = (4, 6)
    true = boxes(rows * columns)
    cells = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    one = {"pixels": torch.ones(2), "shares": torch.tensor(EXTENT), "strides": torch.tensor([8, 8])}
    numbers = told(form, true, one[unit], (cells + 0.5) * 8)
    if axes == "xy":
        numbers = numbers[:, [1, 0, 3, 2]]
    flat = torch.cat([drawn(len(true), 2), numbers], 1)  # rows: proposals, channels
    laid = {"rows": flat, "columns": flat.T, "grid": flat.T.unflatten(1, (rows, columns))}[layout]
    strides = {"strides": [8]} if placed else {}
    words = {"form": form, "unit": unit, "axes": axes, "layout": layout, "scores": "sigmoid"}
    ours = decoder(channels=["classes", "box"], **words, **strides)
    assert ours.fault(laid.shape) is None
    proposals = ours.proposals(laid[None])
    torch.testing.assert_close(ours.boxes(proposals)[0], true, check_dtype=False)
    torch.testing.assert_close(ours.logits(proposals)[0], flat[:, :2])


def test_boxes_end_at_the_image():
    ours = decoder(1, layout="rows", **LOGITS)
    (found,) = ours.boxes(torch.tensor([[[-5.0, -3, 70, 90, 0]]]))
    assert found.tolist() == [[0, 0, 32, 48]]


# -------------------------------------------------------------------------- scores


def score(raw: list[float], classes: int = 2, **words: Any) -> list[float]:
    """Return the probabilities of one proposal."""
    ours = decoder(classes, layout="rows", **{**LOGITS, **words})
    row = torch.tensor([[[0.0, 0, 1, 1, *raw]]], dtype=torch.float64)
    return ours.logits(row)[0, 0].sigmoid().tolist()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_scores_become_probabilities_as_they_are_told():
    with_objectness = {"channels": ["box", "objectness", "classes"]}
    assert score([2.0, -1.0]) == pytest.approx([sigmoid(2), sigmoid(-1)])
    assert score([3.0, 2.0, -1.0], **with_objectness) == pytest.approx(
        [sigmoid(3) * sigmoid(2), sigmoid(3) * sigmoid(-1)]
    )
    assert score([0.5, 0.8, 0.1], scores="probabilities", **with_objectness) == pytest.approx(
        [0.4, 0.05]
    )
    e = np.exp([1.0, 2.0, 0.5]) / np.exp([1.0, 2.0, 0.5]).sum()
    raw, exclusive = [1.0, 2.0, 0.5], {"scores": "softmax"}
    assert score(raw, background="last", **exclusive) == pytest.approx(e[:2])
    assert score(raw, background="first", **exclusive) == pytest.approx(e[1:])
    assert score(raw, classes=3, **exclusive) == pytest.approx(e)
    assert score([0.1, 0.9, 0.2], scores="probabilities", background="first") == pytest.approx(
        [0.9, 0.2]
    )


def test_scores_that_are_certain_stay_finite():
    certain = score([0.0, 1.0], scores="probabilities")
    assert certain == pytest.approx([0, 1], abs=1e-5)
    objectness = {"channels": ["box", "objectness", "classes"]}
    ours = decoder(1, layout="rows", **LOGITS, **objectness)
    row = torch.tensor([[[0.0, 0, 1, 1, 90.0, 90.0], [0, 0, 1, 1, -90, 90]]], requires_grad=True)
    logits = ours.logits(row)
    (gradient,) = torch.autograd.grad(logits.sum(), row)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(gradient).all()


# --------------------------------------------------------------------- suppression


def test_overlap_is_monais():
    first, second = boxes(20), boxes(30, seed=1)
    ours = overlaps(first[:, None], second)
    torch.testing.assert_close(ours, box_iou(first, second), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.7])
def test_suppression_is_monais(overlap):
    every, scores = boxes(200), drawn(200).sigmoid()
    theirs = non_max_suppression(every, scores, overlap)
    assert kept(every, scores, overlap, 500) == theirs.tolist()
    assert kept(every, scores, overlap, 3) == theirs.tolist()[:3]


def test_boxes_without_area_overlap_nothing():
    line = torch.tensor([3.0, 3, 3, 9])
    assert overlaps(line, line).item() == 0


# ------------------------------------------------------------------------ manifest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"channels": ["box"]}, "'channels'"),
        ({"channels": ["box", "box", "classes"]}, "'channels'"),
        ({"strides": [8]}, "'strides'"),
        ({"form": "distances"}, "'strides'"),
        ({"form": "distances", "strides": [4, 8], "layout": "grid"}, "one of 'strides'"),
        ({"unit": "strides"}, "unit 'strides'"),
        ({"form": "anchor_deltas", "strides": [4]}, "'anchors'"),
        ({"anchors": [[[4, 4]]]}, "'anchors'"),
        (
            {
                "form": "anchor_deltas",
                "strides": [4],
                "anchors": [[[4, 4]]],
                "layout": "grid",
            },
            "layout",
        ),
        (
            {"channels": ["box", "objectness", "classes"], "scores": "softmax"},
            "'objectness'",
        ),
        ({"background": "first"}, "'background'"),
    ],
)
def test_words_that_do_not_go_together_are_told(words, said):
    with pytest.raises(ValidationError, match=said):
        BoxDecoding.model_validate({"layout": "rows", **LOGITS, **words})


def test_outputs_of_another_shape_are_told():
    grid = decoder(layout="grid", form="distances", strides=[8], scores="sigmoid")
    assert grid.fault((6, 4, 6)) is None
    assert grid.fault((6, 4, 5)) == ([6, 4, 6], [6, 4, 5])
    rows = decoder(layout="rows", **LOGITS)
    assert rows.fault((700, 6)) is None
    assert rows.fault((6, 700)) == ([-1, 6], [6, 700])
    assert decoder(layout="columns", **LOGITS).fault((6, 700)) is None
