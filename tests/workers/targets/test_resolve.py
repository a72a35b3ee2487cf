"""Contrasts, values and regions, resolved by the model's answer."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from service.domain.grid import Grid
from service.domain.manifest import Manifest
from service.domain.target import Target
from service.errors.models import NonFiniteScore
from service.errors.requests import InvalidTarget
from tests.support.engine import attribute
from tests.workers.targets.test_classes import CLASSES, manifest
from workers.cells import demand_cells
from workers.methods.occlusion import Occlusion
from workers.methods.rise import Rise
from workers.rows import Given
from workers.runtimes.base import Work
from workers.runtimes.batch import scores_of
from workers.runtimes.torch import TorchRuntime
from workers.targets.base import Answer
from workers.targets.resolve import predict, resolve
from workers.targets.scalars import Linear

TARGETS = TypeAdapter(tuple[Target, ...])
VALUES = [
    {"key": "age", "label": "Bone age", "unit": "mo", "slope": 60, "intercept": 100},
    {"key": "volume", "label": "Volume", "unit": "mL", "reference": 5},
]
EXCLUSIVE = "classification-multiclass"


def answer(model: Manifest, outputs: Any, grid: Grid | None = None) -> Answer:
    made = torch.as_tensor(outputs, dtype=torch.float64)
    return Answer(model, made, grid or Grid.identity(tuple(made.shape[1:]) or (8, 8)))


def resolved(given: Answer, *asked: dict[str, Any]):
    return resolve(TARGETS.validate_python(asked), given, predict(given))


def one(given: Answer, **asked: Any):
    (found,) = resolved(given, asked).chosen
    return found


def regression(**changes: Any) -> Manifest:
    return manifest("regression", outputs=[{"values": VALUES}], **changes)


# ----------------------------------------------------------------------- contrasts


def test_a_contrast_is_the_difference_of_two_logits():
    found = one(answer(manifest(), [0.3, 2.0, 5.0]), kind="contrast", of="effusion", versus=0)
    assert found.target.key == "effusion-versus-nodule"
    assert found.target.label == "Effusion rather than Nodule"
    assert found.target.score == pytest.approx(1.7)
    assert found.target.probability == pytest.approx(1 / (1 + np.exp(-2.0)))
    rows = torch.tensor([[1.0, 4.0, 9.0], [0.0, -1.0, 9.0]])
    assert found.scalar(rows).tolist() == [3, -1]
    assert found.scalar.weights == ((1, 1.0), (0, -1.0))


def test_the_rest_are_the_log_odds_of_classes_that_exclude_each_other():
    given = answer(manifest(EXCLUSIVE), [0.3, 2.0, 5.0])
    found = one(given, kind="contrast", of="top1", versus="rest")
    p = predict(given)[2].probability
    assert p is not None
    assert (found.target.about, found.target.key) == ("fracture", "fracture-versus-rest")
    assert found.target.score == pytest.approx(np.log(p / (1 - p)))


def test_top1_is_another_class_than_the_one_it_is_held_against():
    given = answer(manifest(), [0.3, 2.0, 5.0])
    assert one(given, kind="contrast", of="top1", versus="fracture").target.about == "effusion"


def test_two_targets_of_one_class_are_told_apart_by_name():
    given = answer(manifest(), [0.3, 2.0, 5.0])
    made = resolved(
        given,
        {"of": "nodule"},
        {"kind": "contrast", "of": "nodule", "versus": "fracture"},
        {"kind": "contrast", "of": 0, "versus": 2},
    )
    assert [each.target.key for each in made.chosen] == ["nodule", "nodule-versus-fracture"]


def test_targets_whose_names_meet_are_both_explained():
    """One value counted from two references, and a class named as another one's margin."""
    both = resolved(
        answer(regression(), [0.5, 7.0]),
        {"kind": "regression", "of": "age", "reference": 100},
        {"kind": "regression", "of": "age", "reference": 150},
        {"kind": "regression", "of": 0, "reference": 100},
    ).chosen
    assert [(each.target.key, each.target.score) for each in both] == [("age", 30), ("age-2", -20)]
    classes = [{"key": key, "label": key} for key in ("nodule", "nodule-margin")]
    model = manifest(EXCLUSIVE, outputs=[{"classes": classes}])
    asked = ({"of": "nodule-margin"}, {"of": "nodule", "score": "margin"})
    for order in (asked, asked[::-1]):
        made = resolved(answer(model, [0.5, 2.0]), *order).chosen
        assert [each.target.key for each in made] == ["nodule-margin", "nodule-margin-2"]
        assert sorted(each.target.score for each in made) == [-1.5, 2.0]


@pytest.mark.parametrize("method", [Occlusion(window=6), Rise(samples=64)])
@pytest.mark.parametrize("constant", [130.0, -1e5, 1e8])
def test_what_a_value_is_counted_from_does_not_move_its_map(method, constant):
    """In float32 a large one swallowed what hiding a place changes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 2))
    runtime, image = TorchRuntime(net.eval(), (1, 24, 24)), torch.randn(1, 24, 24)
    plain, counted = (
        attribute(method, runtime, image, (Linear(((0, 3.0),), each),)).values
        for each in (0.0, constant)
    )
    torch.testing.assert_close(counted, plain, rtol=1e-4, atol=1e-6)


def test_a_score_that_is_no_number_is_refused_before_anything_is_written_of_it():
    values = [{**VALUES[0], "slope": 1.7e308, "intercept": -1.7e308}]
    model = manifest("regression", outputs=[{"values": values}])
    with pytest.raises(NonFiniteScore, match="numbers of the request"):
        one(answer(model, [-5.0]), kind="regression", of=0)


@pytest.mark.parametrize(
    ("of", "versus"), [("nodule", "nodule"), ("nodule", "rest"), ("x", "nodule"), ("nodule", 9)]
)
def test_what_no_contrast_is_is_refused(of, versus):
    with pytest.raises(InvalidTarget):
        one(answer(manifest(), [0.3, 2.0, 5.0]), kind="contrast", of=of, versus=versus)


# --------------------------------------------------------------------- regressions


def test_a_value_is_given_in_its_unit():
    age, volume = predict(answer(regression(), [0.5, 7.0]))
    assert (age.key, age.value, age.unit, age.probability) == ("age", 130, "mo", None)
    assert (volume.value, volume.logit, volume.above_threshold) == (7, 7, None)


def test_the_score_is_counted_from_a_reference():
    given = answer(regression(), [0.5, 7.0])
    plain = one(given, kind="regression", of="age")
    assert (plain.target.score, plain.target.reference) == (130, None)
    above = one(given, kind="regression", of="age", reference=120)
    assert (above.target.score, above.target.quantity) == (10, "value above the reference")
    below = one(given, kind="regression", of="age", reference=120, direction="decrease")
    assert (below.target.score, below.target.key) == (-10, "age-decrease")
    assert below.scalar(torch.tensor([[0.0, 0.0]])).tolist() == [20]
    assert one(given, kind="regression", of="volume").target.score == 2  # the manifest's own


def test_scores_of_a_batch_hold_the_unit_and_the_reference():
    """Values with a constant, and without one, share a batch with each other."""
    given = answer(regression(), [0.5, 7.0])
    asked = [
        {"kind": "regression", "of": "age", "reference": 100},
        {"kind": "regression", "of": "volume"},
    ]
    scalars = tuple(each.scalar for each in resolved(given, *asked).chosen)
    outputs = torch.tensor([[0.5, 7.0], [1.0, 0.0]])
    work = Work(Given(torch.zeros(2, 1)), scalars, ((), ()))
    assert scores_of(outputs, work).tolist() == [[30, 2], [60, -5]]


# -------------------------------------------------------------------- segmentations

REGIONS = {**CLASSES[0]}, {"key": "cyst", "label": "Cyst"}
LOGITS = np.full((2, 4, 4), -2.0)
LOGITS[1, 1:3, 0:2] = 3.0
LOGITS[0, 0, 0] = 1.0
HALVED = Grid.partition((4, 4), (8, 8))
"""The model sees every other pixel of the source."""


def segmentation(decoding: str = "voxel_regions") -> Manifest:
    return manifest("segmentation", outputs=[{"classes": REGIONS, "decoding": decoding}])


def region(of: str = "cyst", decoding: str = "voxel_regions", **asked: Any):
    given = answer(segmentation(decoding), LOGITS, HALVED)
    return one(given, kind="segmentation", of=of, **asked)


def test_a_segmentation_says_how_much_of_the_image_is_of_each_class():
    first, second = predict(answer(segmentation(), LOGITS, HALVED))
    assert (first.cells, second.cells, second.share) == (1, 4, 0.25)
    tied = np.zeros((2, 4, 4))
    assert [each.cells for each in predict(answer(segmentation("voxel_classes"), tied))] == [16, 0]


def test_the_mask_stays_that_of_the_unchanged_image():
    found = region()
    assert (found.target.score, found.target.key) == (3, "cyst")
    assert found.target.region.cells == 4
    assert found.target.region.box == (2, 0, 6, 4)  # of the source's pixels
    elsewhere = torch.zeros(1, 2, 4, 4)
    elsewhere[0, 1, 3, 3] = 100.0
    assert found.scalar(elsewhere).tolist() == [0]
    elsewhere[0, 1, 1, 1] = 8.0
    assert found.scalar(elsewhere).tolist() == [2]


def test_a_region_is_reduced_as_it_is_asked_for():
    assert region(reduce="sum").target.score == 12
    assert region(reduce="margin").target.score == 3  # above the logit of one half
    assert region(reduce="margin", decoding="voxel_classes").target.score == 5  # above the other


def test_a_box_and_a_point_are_of_the_source():
    box = region(region={"kind": "box", "box": [0, 0, 4, 2]})
    assert (box.target.score, box.target.region.cells) == (0.5, 2)  # cells (0, 0) and (1, 0)
    assert box.target.key == "cyst-box-0-0-4-2"
    point = region(region={"kind": "point", "at": [5, 3]})
    assert (point.target.score, point.target.region.box) == (3, (4, 2, 6, 4))


def turned(shape: tuple[int, ...]) -> Grid:
    """Axes swapped, one turned over, all scaled and one aslant."""
    affine = np.array(
        [[0, 0.5, 0, 3], [-2, 0, 0.25, 30], [0, 0, 1.5, -1], [0, 0, 0, 1]], np.float64
    )
    return Grid(shape, affine)


def test_a_box_and_its_bounds_are_those_of_each_cells_own_place():
    shape = (12, 10, 14)
    grid, box = turned(shape), (3.5, 8.0, 2.0, 6.5, 25.0, 15.0)
    cells = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    places = grid.to_source(cells) + 0.5
    inside = ((places >= box[:3]) & (places < box[3:])).all(-1)
    assert 100 < inside.sum() < inside.size / 2
    given = answer(segmentation(), np.zeros((2, *shape)), grid)
    found = one(given, kind="segmentation", of="cyst", region={"kind": "box", "box": box})
    assert (found.scalar.mask == inside).all()
    half = np.abs(grid.affine[:3, :3]).sum(1) / 2
    bounds = np.concatenate([places[inside].min(0) - half, places[inside].max(0) + half])
    assert found.target.region.box == pytest.approx(bounds, abs=0.051)


def test_a_region_of_a_volume_takes_less_memory_than_its_voxels_places():
    shape = (40, 160, 160)
    logits = np.zeros((2, *shape), np.float32)
    logits[1, 1:] = 1.0  # nearly everywhere
    given = Answer(segmentation(), torch.from_numpy(logits), Grid.identity(shape))
    whole = {"kind": "box", "box": [0, 0, 0, *shape]}
    said = predict(given)
    asked = TARGETS.validate_python(
        [
            {"kind": "segmentation", "of": "cyst", "region": each}
            for each in (whole, {"kind": "predicted_mask"})
        ]
    )
    tracemalloc.start()
    resolve(asked, given, said)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * np.prod(shape)  # bytes; the place of each voxel would be 24


def test_what_is_seen_nowhere_leaves_no_target_and_says_so():
    unseen = answer(segmentation(), np.full((2, 4, 4), -2.0), HALVED)
    made = resolved(unseen, {"kind": "segmentation", "of": "cyst"})
    assert made.chosen == ()
    assert [each.code for each in made.nothing] == ["nothing_above_threshold"]


CROPPED = Grid(HALVED.shape, np.array([[2, 0, 2.5], [0, 2, 2.5], [0, 0, 1]]))
"""What is left of it without the outermost pixels: 2 to 10 of the source's rows."""


@pytest.mark.parametrize(
    ("asked", "grid", "first"),
    [
        ({"kind": "point", "at": [80, 3]}, HALVED, 1),
        ({"kind": "box", "box": [0, 0, 0.5, 0.5]}, HALVED, 1),
        ({"kind": "point", "at": [1, 5]}, CROPPED, 3),
        ({"kind": "box", "box": [4, 4, 5, 5]}, CROPPED, 3),
    ],
)
def test_a_region_that_holds_nothing_is_refused_with_what_there_is(asked, grid, first):
    seen = {"kind": "segmentation", "of": "cyst"}
    targets = TARGETS.validate_python([seen, seen | {"region": asked}])
    with pytest.raises(InvalidTarget) as refused:
        demand_cells(targets, grid)
    facts = {"field": "/targets/1/region", "reason": "empty_region", "cell": [2, 2]}
    assert refused.value.facts == facts | {"first": [first] * 2, "last": [first + 6] * 2}


def test_a_region_that_holds_one_pixel_is_no_empty_one():
    for asked in ({"kind": "point", "at": [7, 0]}, {"kind": "box", "box": [0.9, 0.9, 1.1, 1.1]}):
        target = {"kind": "segmentation", "of": "cyst", "region": asked}
        demand_cells(TARGETS.validate_python([target]), HALVED)


def test_a_region_of_other_axes_than_the_image_is_refused():
    with pytest.raises(InvalidTarget):
        region(region={"kind": "point", "at": [1, 1, 1]})


def test_equal_regions_are_one_scalar():
    first, second = region(), region(region={"kind": "box", "box": [2, 0, 6, 4]})
    assert first.scalar == second.scalar
    assert len({first.scalar, second.scalar, region(reduce="sum").scalar}) == 2


def test_a_kind_that_the_task_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(InvalidTarget) as refused:
        resolved(answer(regression(), [0.5, 7.0]), {"of": "age"})
    assert refused.value.failure().facts["kinds"] == ["regression"]


def test_what_was_resolved_can_be_asked_for_again():
    for found in (
        region(reduce="sum", region={"kind": "point", "at": [5, 3]}),
        one(answer(regression(), [0.5, 7.0]), kind="regression", of=1, direction="decrease"),
        one(answer(manifest(), [0.3, 2.0, 5.0]), kind="contrast", of="top1", versus=0),
    ):
        task = found.target.kind
        models = {"segmentation": segmentation, "regression": regression, "contrast": manifest}
        outputs = {"segmentation": LOGITS, "regression": [0.5, 7.0], "contrast": [0.3, 2.0, 5.0]}
        given = answer(models[task](), outputs[task], HALVED)
        again = resolve([found.target.again], given, predict(given)).chosen[0]
        assert again.scalar == found.scalar
        assert again.target.key == found.target.key


# ------------------------------------------------------------------------ manifests


@pytest.mark.parametrize(
    ("task", "output"),
    [
        ("regression", {"classes": CLASSES}),
        ("classification-multilabel", {"values": VALUES}),
        ("segmentation", {"classes": CLASSES}),
        ("classification-multilabel", {"classes": CLASSES, "decoding": "voxel_classes"}),
        ("regression", {"values": [VALUES[0], VALUES[0]]}),
        ("regression", {"values": [{**VALUES[0], "slope": 0}]}),
    ],
)
def test_outputs_that_do_not_fit_the_task_are_refused(task, output):
    with pytest.raises(ValueError, match=r"needs|differ|slope"):
        manifest(task, outputs=[output])


def test_a_package_that_names_no_targets_has_those_of_its_task():
    assert [each.of for each in regression().default_targets] == ["age", "volume"]
    assert [each.kind for each in segmentation().default_targets] == ["segmentation"] * 2
    assert [each.of for each in manifest().default_targets] == ["above_threshold"]
