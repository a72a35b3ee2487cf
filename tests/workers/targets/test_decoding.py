"""Boxes out of raw outputs of images and volumes, held against MONAI and against boxes that were
encoded by hand."""

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

EXTENTS = {2: (32, 48), 3: (16, 32, 48)}
LAST_FIRST = {2: "xy", 3: "xyz"}
LOGITS = {"form": "corners", "scores": "sigmoid"}


@pytest.fixture(params=[2, 3])
def rank(request: pytest.FixtureRequest) -> int:
    """Axes of the image."""
    return request.param


def decoder(classes: int = 2, **words: Any) -> Decoder:
    decoding = BoxDecoding.model_validate(words)
    return Decoder(decoding, classes, EXTENTS[decoding.rank])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boxes(count: int, rank: int, seed: int = 0) -> Tensor:
    """Return boxes inside the extent: starts along each axis, then ends."""
    random = np.random.default_rng(seed)
    corners = np.sort(random.uniform(0, [[EXTENTS[rank]]], (count, 2, rank)), 1)
    return torch.from_numpy(corners.reshape(count, -1))


# --------------------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    ("axes", "strides", "grids", "shapes"),
    [
        ("yx", (4, 8), ((8, 12), (4, 6)), ((8.0, 8.0), (4.0, 12.0))),
        ("zyx", (4, 8), ((4, 8, 12), (2, 4, 6)), ((8.0, 8.0, 8.0), (2.0, 4.0, 12.0))),
        ("zyx", ((2, 4, 4), (4, 8, 8)), ((8, 8, 12), (4, 4, 6)), ((2.0, 4.0, 12.0),)),
    ],
)
def test_anchors_are_those_of_retinanet_by_monai(axes, strides, grids, shapes):
    rank = len(axes)
    double = tuple(tuple(2 * edge for edge in each) for each in shapes)
    words = {"strides": strides, "anchors": (shapes, double), "axes": axes}
    ours = decoder(layout="rows", form="anchor_deltas", scores="sigmoid", **words)
    assert ours.grids == grids
    count = len(shapes) * sum(map(math.prod, grids))
    outputs = drawn(1, count, 2 * rank + 2) * 0.2
    assert ours.fault(outputs.shape[1:]) is None
    makers = AnchorGeneratorWithAnchorShape([1, 2], shapes)
    maps = [torch.zeros(1, 1, *grid) for grid in ours.grids]
    (anchors,) = makers(torch.zeros(1, 1, *EXTENTS[rank]), maps)
    coder = BoxCoder((1.0,) * (2 * rank))
    theirs = coder.decode_single(outputs[0, :, : 2 * rank], anchors.double())
    ends = torch.tensor(EXTENTS[rank])
    clipped = theirs.view(-1, 2, rank).clamp(min=0).minimum(ends).flatten(1)
    torch.testing.assert_close(ours.boxes(outputs)[0], clipped, atol=1e-4, rtol=1e-5)


def told(form: str, true: Tensor, unit: Tensor, places: Tensor) -> Tensor:
    """Encode boxes as an output has them, in the order of the axes."""
    low, high = true.tensor_split(2, 1)
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
@pytest.mark.parametrize("axes", ["xy", "yx", "xyz", "zyx"])
@pytest.mark.parametrize("layout", ["grid", "rows", "columns"])
def test_a_box_is_the_same_however_it_is_told(form, unit, axes, layout):
    placed, rank = form in ("distances", "offset_size"), len(axes)
    steps = torch.tensor({2: [8, 8], 3: [4, 8, 8]}[rank])
    grid = {2: (4, 6), 3: (4, 4, 6)}[rank]
    true = boxes(math.prod(grid), rank)
    cells = torch.cartesian_prod(*map(torch.arange, grid))
    extent = torch.tensor(EXTENTS[rank])
    one = {"pixels": torch.ones(rank), "shares": extent, "strides": steps}
    numbers = told(form, true, one[unit], (cells + 0.5) * steps)
    if axes in ("xy", "xyz"):
        numbers = numbers.unflatten(1, (2, rank)).flip(2).flatten(1)
    flat = torch.cat([drawn(len(true), 2), numbers], 1)  # rows: proposals, channels
    laid = {"rows": flat, "columns": flat.T, "grid": flat.T.unflatten(1, grid)}[layout]
    strides = {"strides": [steps.tolist()]} if placed else {}
    words = {"form": form, "unit": unit, "axes": axes, "layout": layout, "scores": "sigmoid"}
    ours = decoder(channels=["classes", "box"], **words, **strides)
    assert ours.fault(laid.shape) is None
    proposals = ours.proposals(laid[None])
    torch.testing.assert_close(ours.boxes(proposals)[0], true, check_dtype=False)
    torch.testing.assert_close(ours.logits(proposals)[0], flat[:, :2])


def test_boxes_end_at_the_image(rank):
    ours = decoder(1, layout="rows", axes=LAST_FIRST[rank], **LOGITS)
    beyond = [-5.0] * rank + [90.0] * rank
    (found,) = ours.boxes(torch.tensor([[[*beyond, 0]]]))
    assert found.tolist() == [[*[0] * rank, *EXTENTS[rank]]]


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


def test_overlap_is_monais(rank):
    first, second = boxes(20, rank), boxes(30, rank, seed=1)
    ours = overlaps(first[:, None], second)
    torch.testing.assert_close(ours, box_iou(first, second), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.7])
def test_suppression_is_monais(rank, overlap):
    every, scores = boxes(200, rank), drawn(200).sigmoid()
    theirs = non_max_suppression(every, scores, overlap)
    assert kept(every, scores, overlap, 500) == theirs.tolist()
    assert kept(every, scores, overlap, 3) == theirs.tolist()[:3]


def test_overlap_is_the_share_of_cells_that_two_boxes_have_in_common(rank):
    shape, random = (9, 8, 7)[:rank], np.random.default_rng(4)
    corners = np.sort(random.integers(0, [[shape]], (12, 2, rank)), 1)
    corners[:, 1] += 1
    inside = np.zeros((12, *shape), bool)
    for mask, (low, high) in zip(inside, corners, strict=True):
        mask[tuple(map(slice, low, high))] = True
    flat = inside.reshape(12, -1).astype(int)
    shared = flat @ flat.T
    counted = shared / (flat.sum(1)[:, None] + flat.sum(1) - shared)
    every = torch.from_numpy(corners.reshape(12, -1).astype(float))
    np.testing.assert_allclose(overlaps(every[:, None], every).numpy(), counted)


@pytest.mark.parametrize("flat", [[3.0, 3, 3, 9], [3.0, 3, 4, 9, 9, 4]])
def test_boxes_without_extent_overlap_nothing(flat):
    line = torch.tensor(flat)
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
        ({"form": "distances", "strides": [[4, 4, 4]]}, "2 numbers"),
        ({"form": "distances", "strides": [[4, 4]], "axes": "zyx"}, "3 numbers"),
        (
            {"form": "anchor_deltas", "strides": [4], "anchors": [[[4, 4]]], "axes": "zyx"},
            "3 numbers",
        ),
    ],
)
def test_words_that_do_not_go_together_are_told(words, said):
    with pytest.raises(ValidationError, match=said):
        BoxDecoding.model_validate({"layout": "rows", **LOGITS, **words})


def test_outputs_of_another_shape_are_told():
    grid = decoder(layout="grid", form="distances", strides=[8], scores="sigmoid")
    assert grid.fault((6, 4, 6)) is None
    assert grid.fault((6, 4, 5)) == ([6, 4, 6], [6, 4, 5])
    deep = decoder(layout="grid", form="distances", strides=[8], scores="sigmoid", axes="zyx")
    assert deep.fault((8, 2, 4, 6)) is None
    assert deep.fault((8, 4, 6)) == ([8, 2, 4, 6], [8, 4, 6])
    rows = decoder(layout="rows", **LOGITS)
    assert rows.fault((700, 6)) is None
    assert rows.fault((6, 700)) == ([-1, 6], [6, 700])
    assert decoder(layout="columns", **LOGITS).fault((6, 700)) is None
