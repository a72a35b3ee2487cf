"""What of a box can be explained: its class, its objectness, its edges, its overlap."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from service.domain.boxes import EDGES
from service.domain.grid import Grid
from service.errors.requests import InvalidTarget
from tests.workers.targets.test_detections import DEEP, SHRUNK, Space, detection
from tests.workers.targets.test_resolve import answer, one
from workers.methods.base import METHODS
from workers.targets.base import Chosen
from workers.targets.resolve import predict

WITH_OBJECTNESS = detection({"channels": ["box", "objectness", "classes"]})
OBJECTS = np.array(
    [
        [2.0, 2.0, 6.0, 6.0, 1.5, 3.0, -4.0],
        [2.0, 2.0, 6.0, 7.0, -0.5, 2.0, -4.0],
        [8.0, 8.0, 12.0, 14.0, 0.25, 1.0, -4.0],
    ]
)
ANCHORED = {
    "form": "anchor_deltas",
    "strides": [8],
    "anchors": [[[4, 6]]],
    "scores": "sigmoid",
    "axes": "yx",
    "layout": "rows",
}


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(logits)))


def objects() -> Any:
    return answer(WITH_OBJECTNESS, OBJECTS, SHRUNK)


def slope(found: Chosen, outputs: torch.Tensor) -> torch.Tensor:
    """The gradient by central differences of the scalar's own values."""
    step, gradient = 1e-6, torch.zeros_like(outputs)
    for place in np.ndindex(outputs.shape):
        shift = torch.zeros_like(outputs)
        shift[place] = step
        change = found.scalar((outputs + shift)[None]) - found.scalar((outputs - shift)[None])
        gradient[place] = change.item() / (2 * step)
    return gradient


def derivative(found: Chosen, outputs: torch.Tensor) -> torch.Tensor:
    leaf = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(found.scalar(leaf[None]).sum(), leaf)
    return gradient


def rows_of(rank: int) -> torch.Tensor:
    return torch.tensor(Space(rank).rows, dtype=torch.float64)


# -------------------------------------------------------------------------- edges


@pytest.mark.parametrize("rank", [2, 3])
def test_an_edge_lies_where_the_box_is_told(rank):
    for number in (0, 1):
        box = Space(rank).box(of="nodule", number=number).target.box
        for edge, place in zip(EDGES[2 * rank], box, strict=True):
            found = Space(rank).box(of="nodule", number=number, score=edge)
            assert found.target.score == pytest.approx(place)
            assert found.target.key == f"nodule-{number}-{edge}".replace("-0-", "-")
            assert edge.partition("_")[0] in found.target.quantity
            assert found.target.box == box


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("number", range(6))
def test_an_edge_moves_with_its_own_number_by_the_source_pixels_of_one(rank, number):
    if number >= 2 * rank:
        return
    grid = SHRUNK if rank == 2 else DEEP
    found = Space(rank).box(of="nodule", score=EDGES[2 * rank][number])
    outputs = rows_of(rank)
    gradient = derivative(found, outputs)
    torch.testing.assert_close(gradient, slope(found, outputs), rtol=1e-6, atol=1e-6)
    assert gradient.nonzero().tolist() == [[0, number]]
    assert gradient[0, number].item() == pytest.approx(grid.cell[number % rank])


def test_an_edge_of_a_turned_volume_is_that_of_its_source():
    turned = np.array([[0, 0, 2, 1.5], [-1, 0, 0, 9], [0, 3, 0, 1], [0, 0, 0, 1]], float)
    rows = [[1, 2, 3, 4, 4, 5, 3.0, -4]]
    given = replace(Space(3).seen(rows), grid=Grid((10, 8, 6), turned))
    (box,) = [each.box for each in predict(given)[0].detections]
    outputs = torch.tensor(rows, dtype=torch.float64)
    for edge, place in zip(EDGES[6], box, strict=True):
        found = one(given, kind="detection", of="nodule", score=edge)
        assert found.target.score == pytest.approx(place)
        torch.testing.assert_close(derivative(found, outputs), slope(found, outputs))
    top = one(given, kind="detection", of="nodule", score="top")  # the input's slices, backward
    assert derivative(top, outputs).nonzero().tolist() == [[0, 3]]


def test_an_edge_that_an_anchor_decodes_has_the_slope_of_what_it_is_made_of():
    rows = np.array([[0.1, -0.2, 0.3, -0.1, 2.0, -4.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]])
    rows = np.concatenate([rows - 1.0, rows])  # the third is the best, and stands at (12, 4)
    outputs = {"classes": detection().outputs[0].model_dump()["classes"], "decoding": "boxes"}
    given = answer(detection(outputs=[outputs | {"boxes": ANCHORED}]), rows, SHRUNK)
    values = torch.tensor(rows)
    for edge in EDGES[4]:
        found = one(given, kind="detection", of="nodule", score=edge)
        place = found.target.box[EDGES[4].index(edge)]
        assert found.target.score == pytest.approx(place, abs=0.06)  # told to a tenth
        torch.testing.assert_close(
            derivative(found, values), slope(found, values), rtol=1e-5, atol=1e-6
        )


def test_every_method_explains_one_and_the_same_edge():
    found = Space(2).box(of="nodule", score="left")
    for name in METHODS:
        assert found.seen_by(METHODS[name]) is found


@pytest.mark.parametrize("score", ["first_slice", "end_slice"])
def test_a_box_of_an_image_has_no_slices(score):
    with pytest.raises(InvalidTarget):
        Space(2).box(of="nodule", score=score)


# --------------------------------------------------------------------- objectness


def test_the_objectness_is_that_of_the_boxs_own_proposal():
    found = one(objects(), kind="detection", of="nodule", score="objectness")
    assert found.target.score == 1.5
    assert found.target.key == "nodule-objectness"
    assert found.target.probability == pytest.approx(sigmoid(1.5) * sigmoid(3.0))
    gradient = derivative(found, torch.tensor(OBJECTS))
    assert gradient.nonzero().tolist() == [[0, 4]]
    assert gradient[0, 4] == 1


def test_without_derivatives_the_objectness_is_followed_by_the_overlap():
    found = one(objects(), kind="detection", of="nodule", score="objectness").perturbed
    assert found is not None
    assert found.target.score == pytest.approx(sigmoid(1.5))
    changed = torch.tensor(OBJECTS)
    changed[0, 4] = -9.0
    assert found.scalar(changed[None]).item() == pytest.approx(sigmoid(-0.5) * 16 / 20)


def test_a_probability_of_objectness_is_told_as_log_odds():
    model = detection({"channels": ["box", "objectness", "classes"], "scores": "probabilities"})
    rows = OBJECTS.copy()
    rows[:, 4:] = sigmoid(rows[:, 4:])
    found = one(answer(model, rows, SHRUNK), kind="detection", of="nodule", score="objectness")
    assert found.target.score == pytest.approx(1.5)
    values = torch.tensor(rows)
    torch.testing.assert_close(
        derivative(found, values), slope(found, values), rtol=1e-6, atol=1e-6
    )


# ---------------------------------------------------------------- weighed by overlap


def test_a_box_weighed_by_overlap_is_what_methods_without_derivatives_explain_anyway():
    usual = Space(2).box(of="nodule").perturbed
    found = Space(2).box(of="nodule", score="iou_weighted")
    assert usual is not None
    assert found.perturbed is None
    assert found.scalar == usual.scalar
    assert found.target.score == pytest.approx(sigmoid(3.0))
    assert found.target.key == "nodule-iou_weighted"


def test_what_was_resolved_can_be_asked_for_again():
    for score in ("class", "objectness", "iou_weighted", "left"):
        found = one(objects(), kind="detection", of="nodule", score=score)
        again = one(objects(), **found.target.again.model_dump())
        assert (again.scalar, again.target.key) == (found.scalar, found.target.key)
