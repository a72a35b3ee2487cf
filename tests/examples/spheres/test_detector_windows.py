"""The detector of spheres, given a volume in windows: what is found, and maps that point at it."""

import numpy as np
import pytest
import torch

from examples.spheres.detector import DETECTING, inputs
from examples.spheres.phantom import draw
from service.domain.grid import Grid
from service.domain.inputs import SlidingWindow
from service.domain.target import DetectionTarget
from tests.support.detector import EDGE, OF_SPHERES
from tests.support.engine import run_alone, settled
from tests.support.windowed_boxes import proposals_in_windows
from workers.catalog import refusal
from workers.methods.base import METHODS
from workers.passes import Forward
from workers.rows import Clean
from workers.runtimes.torch import TorchRuntime
from workers.sliding.passes import Sliding, windowed
from workers.targets.base import Answer
from workers.targets.resolve import predict, resolve

WINDOWS = SlidingWindow(size=(EDGE,) * 3, overlap=0.5, blend="none")
MANIFEST = OF_SPHERES.manifest.model_copy(update={"sliding_window": WINDOWS})
PHANTOM = draw(5_362, ["dense", "dense", "hollow"])
QUICK = {
    "occlusion": {"window": 8, "stride": 6},
}
NEAR = 3
"""Pixels about a box that count as its own: what tells an edge lies on both sides."""


@pytest.fixture(scope="module")
def runtime():
    layers = [each.name for each in MANIFEST.explain.layers]
    return TorchRuntime(OF_SPHERES.network(), (1, *WINDOWS.size), layers)


@pytest.fixture(scope="module")
def sliding():
    return Sliding(WINDOWS, torch.zeros(0))


@pytest.fixture(scope="module")
def image():
    return inputs([PHANTOM])[0]


def seen(runtime, sliding, image):
    """What the detector says of an image."""

    def plan():
        return (yield Forward(Clean(image), outputs=True))

    outputs = run_alone(sliding.led(plan()), runtime).outputs[0]
    return Answer(MANIFEST, outputs, Grid.identity(image.shape[1:]))


def planted(phantom):
    """Each sphere's finding, and its box on the input."""
    scale = np.tile(np.divide(DETECTING.small, DETECTING.drawn), 2)
    return [(each.finding, np.array(each.box) * scale) for each in phantom.spheres]


@pytest.fixture(scope="module")
def chosen(runtime, sliding, image):
    answer = seen(runtime, sliding, image)
    asked = [
        DetectionTarget(kind="detection", of=of, box=box.tolist()) for of, box in planted(PHANTOM)
    ]
    return resolve(asked, answer, predict(answer)).chosen


def test_boxes_are_those_of_monais_windows_and_suppression(runtime, sliding, image):
    answer = seen(runtime, sliding, image)
    assert len(answer.outputs) == 8
    proposals = proposals_in_windows(runtime.model, image, WINDOWS.size, WINDOWS.overlap)
    for k, prediction in enumerate(predict(answer)):
        expected = proposals.kept(k, 0.5, DETECTING.decoding.overlap)
        boxes = [each.box for each in prediction.detections]
        np.testing.assert_allclose(boxes, proposals.boxes[expected], atol=0.0501)


def test_each_sphere_is_found_whole_once_and_all_else_is_a_piece_that_a_window_cut(
    runtime, sliding, image
):
    answer = seen(runtime, sliding, image)
    predictions, whole = predict(answer), []
    for prediction in predictions:
        there = [box for of, box in planted(PHANTOM) if of == prediction.key]
        for number in range(len(prediction.detections)):
            asked = DetectionTarget(kind="detection", of=prediction.key, number=number)
            (found,) = resolve([asked], answer, predictions).chosen
            box, window = np.array(found.target.box), np.array(found.target.windows.box)
            sphere = max(there, key=lambda each: crossing(each, box))
            if np.abs(box - sphere).max() <= 1.5:
                whole.append(tuple(sphere))
            else:
                assert crossing(box, sphere) > 0.5 * crossing(box, box)
                assert (sphere[:3] < window[:3]).any() or (sphere[3:] > window[3:]).any()
    assert sorted(whole) == sorted(tuple(box) for _, box in planted(PHANTOM))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_sphere_on_a_windows_border_is_found_whole_by_another(runtime, sliding, image, axis):
    """Its middle is moved to where the first windows end; the last ones hold it whole."""
    (_, box), *_ = planted(PHANTOM)
    middle = (box[axis] + box[axis + 3]) / 2
    by = EDGE - round(middle)
    moved = torch.roll(image, by, axis + 1)
    there, answer = box.copy(), seen(runtime, sliding, moved)
    there[[axis, axis + 3]] += by
    asked = DetectionTarget(kind="detection", of="dense", box=there.tolist())
    (found,) = resolve([asked], answer, predict(answer)).chosen
    assert np.abs(np.subtract(found.target.box, there)).max() <= 1.5
    window = found.target.windows.box
    assert (window[axis], window[axis + 3]) == (32 - EDGE, 32)
    maps = (
        run_alone(sliding.maps(METHODS["saliency"](), moved, (found.scalar,), None), runtime)
        .values[0, 0]
        .abs()
    )
    peak = np.unravel_index(int(maps.argmax()), maps.shape)
    assert ((there[:3] - NEAR <= peak) & (peak < there[3:] + NEAR)).all()


def crossing(one, other):
    low, high = np.maximum(one[:3], other[:3]), np.minimum(one[3:], other[3:])
    return float((high - low).clip(min=0).prod())


SERVED = [
    name
    for name in METHODS
    if not METHODS[name].marks_alike and name not in ("class_activation_map", "gradient_attention")
]


def test_it_is_served_what_the_same_detector_is_served_whole(runtime):
    for probe in (runtime.probed, windowed(runtime.probed, WINDOWS)):
        assert [name for name in METHODS if refusal(name, probe, MANIFEST) is None] == SERVED


TRIED = [
    "saliency",
    "hires_cam",
    "guided_backprop",
    "integrated_gradients",
    "deep_lift",
    "occlusion",
]
"""One of each kind that windows answer in their own way."""


@pytest.mark.parametrize("name", TRIED)
def test_the_map_of_a_box_lies_in_its_sphere_and_not_in_another(
    runtime, sliding, image, chosen, name
):
    method = settled(METHODS[name](**QUICK.get(name, {})), runtime)
    targets = tuple(each.seen_by(method).scalar for each in chosen)
    maps = run_alone(sliding.maps(method, image, targets, None), runtime, 64)
    boxes = [box for _, box in planted(PHANTOM)]
    for k in range(len(boxes)):
        values = maps.values[k].sum(0).double().clamp(min=0).numpy()
        cells = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1)
        places = cells * np.diag(maps.affine)[:3] + maps.affine[:3, 3] + 0.5
        shares = [mass(values, places, box) for box in boxes]
        own = shares.pop(k)
        assert own > 0.15
        assert own > 3 * max(shares)


def mass(values, places, box):
    """Return the share of a map that lies in a box, or near it."""
    inside = ((places >= box[:3] - NEAR) & (places < box[3:] + NEAR)).all(-1)
    return values[inside].sum() / values.sum()
