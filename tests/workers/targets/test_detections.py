"""Boxes of a detector, in images and volumes: found, named, followed through changed images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from service.domain.grid import Grid, scaling
from service.domain.manifest import Manifest
from service.domain.target import DetectionTarget
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

DEEP = Grid((16, 16, 16), scaling((1.5, 2.0, 3.0), (4.25, 10.5, 1.0)))
"""Input slices ``i`` are slices ``1.5 i + 4`` on of the source."""

VOLUME = {
    "kind": "volume",
    "layout": "NCDHW",
    "steps": [{"name": "orient"}],
    "accept": {"modalities": ["CT"], "volume": {}},
}
TILTED = np.array([[0, 0.6, -0.48, 7], [0.0, 0.0, 0.64, -20], [3, 0.8, 0, 100], [0, 0, 0, 1]])
"""Voxels to the patient: an oblique series whose gantry leans."""


def detection(boxes: dict[str, Any] | None = None, **changes: Any) -> Manifest:
    output = {"classes": KINDS, "decoding": "boxes", "boxes": BOXES | (boxes or {})}
    return manifest("detection", **{"outputs": [output]} | changes)


@dataclass(frozen=True)
class Space:
    """The same boxes in an image, or in a volume: slices 2 to 6 of the input, 7 to 13 there."""

    rank: int

    def deep(self, box: Sequence[float], first: float = 7, last: float = 13) -> tuple[float, ...]:
        """Return a box of the image as it is here."""
        return tuple(box) if self.rank == 2 else (first, *box[:2], last, *box[2:])

    @property
    def rows(self) -> list[list[float]]:
        """What the network puts out."""
        return [[*self.deep(each[:4], 2, 6), *each[4:]] for each in ROWS]

    @property
    def model(self) -> Manifest:
        if self.rank == 2:
            return detection()
        return detection({"axes": "zyx"}, inputs=[VOLUME])

    def seen(self, rows: Any = None) -> Any:
        outputs = np.array(self.rows if rows is None else rows, float)
        grid, volume = (SHRUNK, None) if self.rank == 2 else (DEEP, TILTED)
        return replace(answer(self.model, outputs, grid), volume=volume)

    def box(self, **asked: Any) -> Any:
        return one(self.seen(), kind="detection", **asked)


@pytest.fixture(params=[2, 3], ids=["image", "volume"])
def space(request: pytest.FixtureRequest) -> Space:
    return Space(request.param)


# --------------------------------------------------------------------------- found


def test_boxes_are_found_once_each_and_told_in_source_pixels(space):
    nodule, mass = predict(space.seen())
    expected = [space.deep((14, 6, 22, 18)), space.deep((26, 24, 34, 42))]
    assert [each.box for each in nodule.detections] == expected
    assert [each.logit for each in nodule.detections] == [3, 1]
    assert nodule.logit == 3
    assert nodule.probability == pytest.approx(1 / (1 + np.exp(-3)))
    assert nodule.above_threshold
    assert [each.box for each in mass.detections] == [space.deep((26, 24, 34, 45))]


def test_boxes_that_lie_in_other_slices_are_others():
    space = Space(3)
    rows = [[2, 2, 2, 6, 6, 6, 3.0, -4], [7, 2, 2, 11, 6, 6, 2.0, -4], [6, 2, 2, 10, 6, 6, 1, -4]]
    given = space.seen(rows)
    nodule, _ = predict(given)
    assert [each.box[::3] for each in nodule.detections] == [(7, 13), (14.5, 20.5)]
    asked = {"kind": "detection", "of": "nodule", "box": [14.5, 14, 6, 20.5, 22, 18]}
    assert one(given, **asked).target.score == 2
    perturbed = one(given, **asked).perturbed.scalar(torch.tensor([rows[2:]]).double())
    assert perturbed.item() == pytest.approx(3 / 5 / (1 + np.exp(-1)))


def test_a_box_of_a_turned_volume_is_told_along_the_axes_of_its_source():
    turned = np.array([[0, 0, 2, 1.5], [-1, 0, 0, 9], [0, 3, 0, 1], [0, 0, 0, 1]], float)
    rows = [[1, 2, 3, 4, 4, 5, 3.0, -4]]  # of the source's rows backward, columns and slices
    given = replace(Space(3).seen(rows), grid=Grid((10, 8, 6), turned))
    nodule, _ = predict(given)
    inside = np.stack(np.meshgrid([1, 2, 3], [2, 3], [3, 4], indexing="ij"), -1).reshape(-1, 3)
    centers = given.grid.to_source(inside)
    half = np.array([2, 1, 3]) / 2
    low, high = centers.min(0) - half, centers.max(0) + half
    assert nodule.detections[0].box == (*(low + 0.5), *(high + 0.5))
    again = one(given, kind="detection", of="nodule", box=nodule.detections[0].box)
    assert again.target.overlap == pytest.approx(1)
    place = centers.mean(0)
    assert one(given, kind="detection", of="nodule", at=place.tolist()).target.score == 3


def test_a_box_of_a_volume_is_placed_in_the_patient():
    nodule, _ = predict(Space(3).seen())
    placed = nodule.detections[0].patient
    corners = [  # of voxels: half a voxel about the first and the last center
        TILTED @ (s, r, c, 1) for s, r, c in product((6.5, 12.5), (13.5, 21.5), (5.5, 17.5))
    ]
    np.testing.assert_allclose(placed.center, np.mean(corners, 0)[:3])
    np.testing.assert_allclose(placed.size, (6 * 3, 8 * 1, 12 * 0.8))
    assert one(Space(3).seen(), kind="detection", of="nodule").target.patient == placed
    nodule, _ = predict(Space(2).seen())
    assert nodule.detections[0].patient is None


def test_boxes_of_a_class_that_is_not_for_use_are_not_told():
    unused = [KINDS[0], KINDS[1] | {"not_for_use": "Too few cases."}]
    output = {"classes": unused, "decoding": "boxes", "boxes": BOXES}
    _, mass = predict(answer(detection(outputs=[output]), np.array(ROWS, float), SHRUNK))
    assert (mass.detections, mass.above_threshold) == ((), None)


def test_outputs_that_the_decoding_does_not_read_are_refused(space):
    with pytest.raises(InvalidTarget, match="manifest"):
        predict(space.seen(np.zeros((5, 7))))


# --------------------------------------------------------------------------- named


def test_a_box_is_named_by_its_number(space):
    first, second = space.box(of="nodule"), space.box(of=0, number=1)
    assert (first.target.key, first.target.box) == ("nodule", space.deep((14, 6, 22, 18)))
    assert (second.target.key, second.target.box) == ("nodule-1", space.deep((26, 24, 34, 42)))
    assert (second.target.score, second.target.quantity) == (1, LOGIT)
    assert (second.target.threshold, second.target.above_threshold) == (0.5, True)


def test_a_box_of_ones_own_takes_the_best_proposal_that_overlaps_it_enough(space):
    # nearer to the second, worse proposal
    nearest = space.box(of="nodule", box=space.deep([14, 6, 22, 21]))
    assert nearest.target.box == space.deep((14, 6, 22, 18))
    assert nearest.target.overlap == pytest.approx(4 / 5)
    missed = space.box(of="nodule", box=space.deep([10, 24, 16, 36]))
    assert (missed.target.above_threshold, missed.target.score) == (False, -2)
    said = {2: "nodule-box-10-24-16-36", 3: "nodule-box-7-10-24-13-16-36"}
    assert missed.target.key == said[space.rank]


def test_a_place_takes_the_best_proposal_that_holds_it(space):
    slices = () if space.rank == 2 else (9,)
    found = space.box(of="nodule", at=(*slices, 18, 12))
    assert (found.target.box, found.target.score) == (space.deep((14, 6, 22, 18)), 3)
    assert (found.target.overlap, found.target.key[:9]) == (None, "nodule-at")
    beside = space.box(of="nodule", at=(*slices, 18, 19))  # past the better box's end, column 18
    assert beside.target.score == 2
    assert space.box(of="mass", at=(*slices, 28, 43)).target.above_threshold


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"of": "mass", "number": 1}, "not so many"),
        ({"of": "nodule", "box": [40, 0, 50, 9]}, "overlaps"),
        ({"of": "nodule", "at": [41, 1]}, "holds the place"),
    ],
)
def test_a_box_that_is_not_there_is_no_failure(space, asked, said):
    if "box" in asked:
        asked = asked | {"box": space.deep(asked["box"])}
    if "at" in asked and space.rank == 3:
        asked = asked | {"at": [9, *asked["at"]]}
    made = resolved(space.seen(), {"kind": "detection", **asked})
    assert made.chosen == ()
    assert said in made.nothing[0].detail
    assert made.nothing[0].code == "nothing_above_threshold"


def test_a_place_in_another_slice_is_none():
    made = resolved(Space(3).seen(), {"kind": "detection", "of": "nodule", "at": [14, 18, 12]})
    assert made.chosen == ()


@pytest.mark.parametrize("asked", [{"of": "effusion"}, {"of": "nodule", "at": [1, 2, 3]}])
def test_what_the_model_does_not_have_is_refused(asked):
    with pytest.raises(InvalidTarget):
        Space(2).box(**asked)


def test_a_box_of_other_axes_than_the_image_is_refused():
    with pytest.raises(InvalidTarget, match="axes"):
        Space(3).box(of="nodule", box=[14, 6, 22, 18])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"number": 1, "box": [1, 1, 2, 2]}, "not both"),
        ({"at": [1, 1], "box": [1, 1, 2, 2]}, "not both"),
        ({"box": [1, 1, 2, 1]}, "after its start"),
        ({"box": [1, 1, 1, 2, 2]}, "four numbers or six"),
    ],
)
def test_a_box_that_is_named_twice_or_holds_nothing_is_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        DetectionTarget(kind="detection", of="nodule", **asked)


def test_what_was_resolved_can_be_asked_for_again(space):
    place = (18, 12) if space.rank == 2 else (9, 18, 12)
    ways = ({"number": 1}, {"box": space.deep([14, 6, 22, 21])}, {"at": place})
    for found in [space.box(of="nodule", **each) for each in ways]:
        again = one(space.seen(), **found.target.again.model_dump())
        assert (again.scalar, again.perturbed.scalar) == (found.scalar, found.perturbed.scalar)
        assert again.target.key == found.target.key


# ------------------------------------------------------------------------- followed


def test_derivatives_are_of_the_proposal_and_not_of_what_is_kept(space):
    found, nodule = space.box(of="nodule"), 2 * space.rank
    changed = torch.tensor([space.rows], dtype=torch.float64)
    changed[0, 0, :nodule] = torch.tensor(
        space.deep([0.0, 0, 1, 1], 0, 1)
    )  # gone but for its score
    changed[0, 1, nodule] = 9.0
    changed.requires_grad_()
    score = found.scalar(changed)
    assert score.tolist() == [3]
    (gradient,) = torch.autograd.grad(score.sum(), changed)
    assert gradient.nonzero().tolist() == [[0, 0, nodule]]


def test_changed_images_are_held_against_the_box_wherever_it_is_seen(space):
    found, nodule = space.box(of="nodule").perturbed, 2 * space.rank
    assert found.target.quantity == SIMILARITY
    p = (1 / (1 + np.exp(-np.array(ROWS)[:, 4]))).tolist()
    assert found.target.score == pytest.approx(p[0])
    changed = torch.tensor([space.rows, space.rows], dtype=torch.float64)
    changed[0, 0, nodule] = -9.0  # the second proposal has most of the box
    changed[1, :2, nodule] = -9.0  # nothing of it is seen; the other box overlaps nowhere
    first, second = found.scalar(changed).tolist()
    assert first == pytest.approx(p[1] * 16 / 20)
    assert second < 1e-3


def test_methods_that_take_derivatives_explain_the_logit_and_others_the_similarity():
    found = Space(2).box(of="nodule")
    said = {name: found.seen_by(METHODS[name]).target.quantity for name in METHODS}
    for name in ("saliency", "integrated_gradients", "grad_cam", "layer_cam", "guided_backprop"):
        assert said[name] == LOGIT
    for name in ("occlusion", "rise", "score_cam", "ablation_cam", "lime", "kernel_shap"):
        assert said[name] == SIMILARITY


# ------------------------------------------------------------------------- manifests

OUTPUT = {"classes": KINDS, "decoding": "boxes", "boxes": BOXES}


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


def selftests(*boxes: list[float]) -> list[dict[str, Any]]:
    told = [{"of": "mass", "box": each} for each in boxes]
    return [
        {"title": "Of one", "input": "t.dcm", "logits": [0, 0], "tolerance": 0.1, "boxes": told}
    ]


@pytest.mark.parametrize(
    ("boxes", "changes", "said"),
    [
        ({}, {"inputs": [VOLUME]}, "'xyz' or 'zyx' for volumes"),
        ({"axes": "zyx"}, {}, "'xy' or 'yx'"),
        ({}, {"selftests": selftests([1, 1, 1, 2, 2, 2])}, "4 numbers"),
        (
            {"axes": "zyx"},
            {"inputs": [VOLUME], "selftests": selftests([1, 1, 1, 2, 2, 2], [1, 1, 2, 2])},
            "6 numbers",
        ),
        (
            {"axes": "zyx"},
            {"inputs": [VOLUME], "sliding_window": {"size": [8, 8, 8]}},
            "of a detection is 'none'",
        ),
        (
            {},
            {"sliding_window": {"size": [8, 8, 8], "blend": "none"}},
            "one number for each of 2 axes",
        ),
    ],
)
def test_boxes_have_the_axes_of_what_the_model_takes(boxes, changes, said):
    with pytest.raises(ValueError, match=said):
        detection(boxes, **changes)


def test_a_package_that_names_no_targets_has_the_best_box_of_each_class():
    assert [(each.of, each.number) for each in detection().default_targets] == [
        ("nodule", 0),
        ("mass", 0),
    ]
