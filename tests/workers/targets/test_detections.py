"""Boxes of a detector: found, named, followed through changed images."""

from typing import Any

import numpy as np
import pytest
import torch

from service.domain.grid import Grid, scaling
from service.domain.manifest import Manifest
from service.errors.requests import InvalidTarget
from tests.workers.targets.test_classes import CLASSES, manifest
from tests.workers.targets.test_resolve import answer, one, resolved
from workers.methods.base import METHODS
from workers.targets.detections import LOGIT, SIMILARITY
from workers.targets.resolve import predict

BOXES = {"layout": "rows", "form": "corners", "axes": "yx", "scores": "sigmoid", "match": 0.4}
KINDS = [CLASSES[0], {"key": "mass", "label": "Mass", "threshold": 0.4}]
ROWS = [  # top, left, bottom, right, nodule, mass
    [2, 2, 6, 6, 3.0, -4.0],
    [2, 2, 6, 7, 2.0, -4.0],  # the same again
    [8, 8, 12, 14, 1.0, -4.0],
    [8, 8, 12, 15, -1.0, 0.0],  # found as a mass alone
    [0, 8, 3, 12, -2.0, -4.0],  # not found
]
SHRUNK = Grid((16, 16), scaling((2.0, 3.0), (10.5, 1.0)))
"""Input pixels ``i`` are rows ``2 i + 10`` and columns ``3 i`` on of the source."""


def detection(boxes: dict[str, Any] | None = None, **changes: Any) -> Manifest:
    output = {"classes": KINDS, "decoding": "boxes", "boxes": BOXES | (boxes or {})}
    return manifest("detection", **{"outputs": [output]} | changes)


def seen(rows: Any = ROWS, model: Manifest | None = None) -> Any:
    return answer(model or detection(), np.array(rows, float), SHRUNK)


def box(**asked: Any) -> Any:
    return one(seen(), kind="detection", **asked)


# --------------------------------------------------------------------------- found


def test_boxes_are_found_once_each_and_told_in_source_pixels():
    nodule, mass = predict(seen())
    assert [each.box for each in nodule.detections] == [(14, 6, 22, 18), (26, 24, 34, 42)]
    assert [each.logit for each in nodule.detections] == [3, 1]
    assert nodule.logit == 3
    assert nodule.probability == pytest.approx(1 / (1 + np.exp(-3)))
    assert nodule.above_threshold
    assert [each.box for each in mass.detections] == [(26, 24, 34, 45)]


def test_boxes_of_a_class_that_is_not_for_use_are_not_told():
    unused = [KINDS[0], KINDS[1] | {"not_for_use": "Too few cases."}]
    output = {"classes": unused, "decoding": "boxes", "boxes": BOXES}
    _, mass = predict(seen(model=detection(outputs=[output])))
    assert (mass.detections, mass.above_threshold) == ((), None)


def test_outputs_that_the_decoding_does_not_read_are_refused():
    with pytest.raises(InvalidTarget, match="manifest"):
        predict(seen(np.zeros((5, 7))))


# --------------------------------------------------------------------------- named


def test_a_box_is_named_by_its_number():
    first, second = box(of="nodule"), box(of=0, number=1)
    assert (first.target.key, first.target.box) == ("nodule", (14, 6, 22, 18))
    assert (second.target.key, second.target.box) == ("nodule-1", (26, 24, 34, 42))
    assert (second.target.score, second.target.quantity) == (1, LOGIT)
    assert (second.target.threshold, second.target.above_threshold) == (0.5, True)


def test_a_box_of_ones_own_takes_the_best_proposal_that_overlaps_it_enough():
    nearest = box(of="nodule", box=[14, 6, 22, 21])  # nearer to the second, worse proposal
    assert nearest.target.box == (14, 6, 22, 18)
    assert nearest.target.overlap == pytest.approx(4 / 5)
    missed = box(of="nodule", box=[10, 24, 16, 36])
    assert (missed.target.above_threshold, missed.target.score) == (False, -2)
    assert missed.target.key == "nodule-box-10-24-16-36"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"of": "mass", "number": 1}, "not so many"),
        ({"of": "nodule", "box": [40, 0, 50, 9]}, "overlaps"),
    ],
)
def test_a_box_that_is_not_there_is_no_failure(asked, said):
    made = resolved(seen(), {"kind": "detection", **asked})
    assert made.chosen == ()
    assert said in made.nothing[0].detail
    assert made.nothing[0].code == "nothing_above_threshold"


def test_a_class_that_is_not_there_is_refused():
    with pytest.raises(InvalidTarget):
        box(of="effusion")


def test_what_was_resolved_can_be_asked_for_again():
    for found in (box(of=0, number=1), box(of="nodule", box=[14, 6, 22, 21])):
        again = one(seen(), **found.target.again.model_dump())
        assert (again.scalar, again.perturbed.scalar) == (found.scalar, found.perturbed.scalar)
        assert again.target.key == found.target.key


# ------------------------------------------------------------------------- followed


def test_derivatives_are_of_the_proposal_and_not_of_what_is_kept():
    found = box(of="nodule")
    changed = torch.tensor([ROWS], dtype=torch.float64)
    changed[0, 0, :4] = torch.tensor([0.0, 0, 1, 1])  # the box is gone, its score is not
    changed[0, 1, 4] = 9.0
    changed.requires_grad_()
    score = found.scalar(changed)
    assert score.tolist() == [3]
    (gradient,) = torch.autograd.grad(score.sum(), changed)
    assert gradient.nonzero().tolist() == [[0, 0, 4]]


def test_changed_images_are_held_against_the_box_wherever_it_is_seen():
    found = box(of="nodule").perturbed
    assert found.target.quantity == SIMILARITY
    p = (1 / (1 + np.exp(-np.array(ROWS)[:, 4]))).tolist()
    assert found.target.score == pytest.approx(p[0])
    changed = torch.tensor([ROWS, ROWS], dtype=torch.float64)
    changed[0, 0, 4] = -9.0  # the second proposal has most of the box
    changed[1, :2, 4] = -9.0  # nothing of it is seen; the other box overlaps nowhere
    first, second = found.scalar(changed).tolist()
    assert first == pytest.approx(p[1] * 16 / 20)
    assert second < 1e-3


def test_methods_that_take_derivatives_explain_the_logit_and_others_the_similarity():
    found = box(of="nodule")
    said = {name: found.seen_by(METHODS[name]).target.quantity for name in METHODS}
    for name in ("saliency", "integrated_gradients", "grad_cam", "layer_cam", "guided_backprop"):
        assert said[name] == LOGIT
    for name in ("occlusion", "rise", "score_cam", "ablation_cam", "lime", "kernel_shap"):
        assert said[name] == SIMILARITY


# ------------------------------------------------------------------------- manifests

OUTPUT = {"classes": KINDS, "decoding": "boxes", "boxes": BOXES}
VOLUME = {"kind": "volume", "layout": "NCDHW", "steps": [{"name": "orient"}]}


@pytest.mark.parametrize(
    ("task", "output", "said"),
    [
        ("detection", {"classes": KINDS}, "decoding 'boxes'"),
        ("detection", {"classes": KINDS, "decoding": "boxes"}, "needs 'boxes'"),
        ("segmentation", OUTPUT, "decoding"),
        ("segmentation", OUTPUT | {"decoding": "voxel_classes"}, "no other has it"),
        ("detection", OUTPUT | {"classes": CLASSES}, "'threshold'"),
        (
            "detection",
            OUTPUT | {"classes": KINDS[:1], "boxes": BOXES | {"scores": "softmax"}},
            "'background'",
        ),
    ],
)
def test_what_a_detection_needs_is_told(task, output, said):
    with pytest.raises(ValueError, match=said):
        manifest(task, outputs=[output])


def test_volumes_are_refused():
    accept = {"modalities": ["CT"], "volume": {}}
    with pytest.raises(ValueError, match="takes no volume"):
        detection(inputs=[VOLUME | {"accept": accept}])


def test_a_package_that_names_no_targets_has_the_best_box_of_each_class():
    assert [(each.of, each.number) for each in detection().default_targets] == [
        ("nodule", 0),
        ("mass", 0),
    ]
