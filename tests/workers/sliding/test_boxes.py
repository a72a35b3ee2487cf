"""Detectors in windows, against MONAI's windows and suppression and one graph of each window."""

from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from service.domain.grid import Grid
from service.domain.target import DetectionTarget
from service.errors.models import ModelUnavailable, UnservablePass
from tests.support.engine import CONV, run_alone, settled, short_of_time, through
from tests.support.windowed_boxes import proposals_in_windows
from tests.workers.targets.test_detections import VOLUME, detection
from workers.methods.base import METHODS
from workers.passes import Forward, Gradient, TimeUp
from workers.rows import INPUT, Clean, Masked, Patched
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.sliding.passes import Sliding, windowed
from workers.targets.base import Answer
from workers.targets.resolve import predict, resolve

SIZE = {2: (12, 10), 3: (8, 8, 6)}
SHAPE = {2: (31, 24), 3: (19, 8, 15)}
THRESHOLDS = (0.5, 0.4)
OVERLAP = 0.3
LAYER = "body.1"
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)


class Net(nn.Module):
    """Two classes and a box at every second pixel, of a neighborhood that windows cut off."""

    def __init__(self, axes):
        super().__init__()
        torch.manual_seed(11)
        first = CONV[axes](1, 6, 4, stride=2, padding=1)
        self.body = nn.Sequential(first, nn.ReLU())
        self.head = CONV[axes](6, 2 + 2 * axes, 3, padding=1)

    def forward(self, images):
        raw = self.head(self.body(images))
        return torch.cat([10 * raw[:, :2] - 2, 0.8 + raw[:, 2:].square()], 1)


class Bench:
    """A detector under windows."""

    def __init__(self, axes, overlap=0.5):
        words = {"layout": "grid", "channels": ["classes", "box"], "form": "distances"}
        words |= {"unit": "strides", "strides": [2], "axes": "xyz"[:axes], "overlap": OVERLAP}
        windows = {"size": SIZE[axes], "overlap": overlap, "blend": "none"}
        inputs = {} if axes == 2 else {"inputs": [VOLUME]}
        self.manifest = detection(words, sliding_window=windows, **inputs)
        self.net = Net(axes).double().eval()
        self.runtime = TorchRuntime(self.net, (1, *SIZE[axes]), (LAYER,))
        assert self.runtime.probed
        self.seen = []
        self.net.register_forward_pre_hook(lambda _, args: self.seen.append(len(args[0])))
        self.runtime.check = lambda: None  # the hook above is no change of the model
        self.sliding = Sliding(self.manifest.sliding_window, torch.zeros(0, dtype=torch.float64))
        self.overlap = overlap
        self.axes = axes

    def run(self, ask, **options):
        return run_alone(self.sliding.led(asking(ask)), self.runtime, **options)

    def answer(self, image, **options):
        outputs = self.run(Forward(Clean(image), outputs=True), **options).outputs
        return Answer(self.manifest, outputs[0], Grid.identity(image.shape[1:]))

    def chosen(self, image, **asked):
        answer, target = self.answer(image), DetectionTarget(kind="detection", **asked)
        (found,) = resolve([target], answer, predict(answer)).chosen
        self.seen.clear()
        return found

    def maps(self, name, image, *targets, **parameters):
        method = settled(METHODS[name](**parameters), self.runtime)
        return run_alone(self.sliding.maps(method, image, targets, None), self.runtime)

    def proposals(self, image):
        """Reference: every proposal, by MONAI's windows."""
        return proposals_in_windows(self.net, image, SIZE[self.axes], self.overlap)


def asking(ask):
    return (yield ask)


def image_of(axes, shape=None):
    generator = torch.Generator().manual_seed(axes)
    return torch.randn(1, *(shape or SHAPE[axes]), generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Best:
    """The best box of a class, by the reference."""

    box: torch.Tensor
    logit: torch.Tensor
    window: tuple[slice, ...]


def best(bench, image, index=0):
    proposals = bench.proposals(image)
    first = proposals.kept(index, THRESHOLDS[index], OVERLAP)[0]
    ends = zip(proposals.starts[first].long().tolist(), SIZE[bench.axes], strict=True)
    window = tuple(slice(start, start + edge) for start, edge in ends)
    return Best(proposals.boxes[first], proposals.logits[first, index], window)


@pytest.fixture(params=[2, 3], ids=["image", "volume"])
def axes(request):
    return request.param


# ---------------------------------------------------------------------------- boxes


@pytest.mark.parametrize("overlap", [0.25, 0.6])
def test_boxes_are_those_of_monais_windows_and_suppression(axes, overlap):
    bench, image = Bench(axes, overlap), image_of(axes)
    proposals = bench.proposals(image)
    for prediction in predict(bench.answer(image)):
        k = prediction.index
        expected = proposals.kept(k, THRESHOLDS[k], OVERLAP)
        assert len({tuple(each) for each in proposals.starts[expected].tolist()}) > 1
        found = prediction.detections
        np.testing.assert_allclose([e.logit for e in found], proposals.logits[expected, k])
        np.testing.assert_allclose([e.box for e in found], proposals.boxes[expected], atol=0.0501)
        assert prediction.logit == pytest.approx(proposals.logits[:, k].max().item())


def test_an_image_smaller_than_a_window_has_its_boxes_within_it():
    bench, shape = Bench(3), (6, 11, 4)
    image = 3 * image_of(3, shape)
    padded = nn.functional.pad(image, (1, 1, 0, 0, 1, 1))
    proposals = bench.proposals(padded)
    starts, ends = (proposals.boxes - torch.tensor([1, 0, 1] * 2)).split(3, 1)
    inner = torch.cat([e.clamp(min=0).minimum(torch.tensor(shape)) for e in (starts, ends)], 1)
    answer = bench.answer(image)
    for k, prediction in enumerate(predict(answer)):
        for each in prediction.detections:
            same = (inner - torch.tensor(each.box)).abs().amax(1) < 0.0501
            logits = proposals.logits[same, k]
            assert (logits - each.logit).abs().min() < 1e-9
    found = bench.chosen(image, of="nodule")
    assert found.perturbed.target.score == pytest.approx(found.target.probability)
    told = np.array(found.target.windows.box)
    assert told[[0, 2, 3, 5]].tolist() == [0, 0, shape[0], shape[2]]


def test_how_many_proposals_a_window_has_must_not_depend_on_what_is_in_it():
    class Sorting(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, images):
            found = 3 + int(images.mean() > 0)
            return self.scale * images.flatten(1)[:, : 6 * found].reshape(len(images), found, 6)

    bench = Bench(2)
    bench.runtime = TorchRuntime(Sorting().double().eval(), (1, *SIZE[2]), ())
    with pytest.raises(ModelUnavailable, match="depends on the image"):
        bench.answer(image_of(2), chunk=1)


# ------------------------------------------------------------------------- followed


def test_a_box_is_followed_by_its_proposal_in_its_own_window_alone(axes):
    bench, image = Bench(axes), image_of(axes)
    wanted = best(bench, image)
    found = bench.chosen(image, of="nodule")
    assert found.target.score == pytest.approx(wanted.logit.item())
    window = image[:, *wanted.window].clone()[None].requires_grad_()
    raw = bench.net(window)
    bench.seen.clear()
    own = (raw[0, 0] - wanted.logit).abs().argmin()
    (gradient,) = torch.autograd.grad(raw[0, 0].flatten()[own], window)
    expected = torch.zeros_like(image)
    expected[:, *wanted.window] = gradient[0]
    step = bench.run(Gradient(Clean(image), (found.scalar,)))
    close(step.gradients[INPUT][0, 0], expected)
    close(step.scores, wanted.logit[None, None])
    assert sum(bench.seen) == 1
    bench.seen.clear()
    maps = bench.maps("saliency", image, found.scalar)
    close(maps.values[0], expected)
    assert sum(bench.seen) == 1


def test_changed_images_are_held_against_the_box_in_the_windows_that_overlap_it(axes):
    bench, image = Bench(axes), image_of(axes)
    wanted, found = best(bench, image), bench.chosen(image, of="nodule").perturbed
    masks = torch.rand(5, *image.shape[1:], generator=torch.Generator().manual_seed(0)) > 0.3
    rows = torch.where(masks[:, None], image, 0.2)
    low, high = wanted.box.split(bench.axes)
    expected = []
    for row in rows:
        proposals = bench.proposals(row)
        starts, ends = proposals.boxes.split(bench.axes, 1)
        shared = (ends.minimum(high) - starts.maximum(low)).clamp(min=0).prod(1)
        union = (high - low).prod() + (ends - starts).clamp(min=0).prod(1) - shared
        expected.append((shared / union * proposals.logits[:, 0].sigmoid()).max())
    starts = proposals.starts.unique(dim=0)
    meet = ((starts < high) & (starts + torch.tensor(SIZE[axes]) > low)).all(1).sum().item()
    bench.seen.clear()
    hidden = Masked(image, 0.2, lambda a, b: masks[a:b, None].double(), 5)
    step = bench.run(Forward(hidden, (found.scalar,)))
    close(step.scores[:, 0], torch.stack(expected))
    assert sum(bench.seen) == 5 * meet < 5 * len(starts)
    assert (found.target.windows.count, found.target.windows.of) == (meet, len(starts))
    assert found.target.score == pytest.approx(wanted.logit.sigmoid().item())


def test_of_hidden_places_only_windows_that_hold_them_are_run(axes):
    bench, image = Bench(axes), image_of(axes)
    found = bench.chosen(image, of="nodule").perturbed
    corner = tuple(slice(0, 2) for _ in range(axes))
    far = tuple(slice(length - 2, length) for length in image.shape[1:])
    step = bench.run(Forward(Patched(image, (corner, far), 0.0), (found.scalar,)))
    assert sum(bench.seen) <= 2 + found.target.windows.count
    for row, box in enumerate((corner, far)):
        changed = image.clone()
        changed[:, *box] = 0
        expected = found.scalar(bench.run(Forward(Clean(changed), outputs=True)).outputs)
        close(step.scores[row], expected)


def test_what_of_the_image_counts_is_told(axes):
    bench, image = Bench(axes), image_of(axes)
    wanted, found = best(bench, image), bench.chosen(image, of="nodule")
    one, near = found.target.windows, found.perturbed.target.windows
    ends = [[at.start for at in wanted.window], [at.stop for at in wanted.window]]
    assert (one.count, one.of) == (1, bench.sliding.tiling(image.shape).count)
    assert one.box == tuple(np.concatenate(ends))
    outside = torch.ones(image.shape[1:], dtype=torch.bool)
    outside[tuple(map(slice, *np.split(np.array(near.box, int), 2)))] = False
    changed = torch.where(outside, image + 5, image)
    score = bench.run(Forward(Clean(changed), (found.perturbed.scalar,))).scores
    assert score.item() == pytest.approx(found.perturbed.target.score)


def test_what_several_windows_say_has_no_derivative(axes):
    bench, image = Bench(axes), image_of(axes)
    found = bench.chosen(image, of="nodule").perturbed
    assert found.target.windows.count > 1
    with pytest.raises(UnservablePass):
        bench.run(Gradient(Clean(image), (found.scalar,)))


# -------------------------------------------------------------------------- methods


def test_maps_of_boxes_of_several_windows_are_those_of_each_alone(axes):
    bench, image = Bench(axes), image_of(axes)
    chosen = [bench.chosen(image, of="nodule", number=k) for k in range(3)]
    assert len({each.scalar.windows for each in chosen}) > 1
    names = ("layer_cam", "integrated_gradients", "smooth_grad", "deep_lift", "occlusion", "rise")
    for name in names:
        seen = [each if METHODS[name].differentiates() else each.perturbed for each in chosen]
        targets = [each.scalar for each in seen]
        quick = {"occlusion": {"window": 4}, "rise": {"samples": 32}}.get(name, {})
        together = bench.maps(name, image, *targets, **quick)
        for k, each in enumerate(targets):
            alone = bench.maps(name, image, each, **quick)
            close(together.values[k], alone.values[0])
            if alone.extras:
                assert together.extras[k] == pytest.approx(alone.extras[0])
            assert together.affine.tolist() == np.eye(axes + 1).tolist()
            inside = torch.zeros(image.shape[1:], dtype=torch.bool)
            ends = np.split(np.array(seen[k].target.windows.box, int), 2)
            inside[tuple(map(slice, *ends))] = True
            assert alone.values[0][:, inside].ne(0).any()
            assert not alone.values[0][:, ~inside].any()


@pytest.mark.parametrize("score", ["iou_weighted", "top", "right"])
def test_other_scores_of_a_box_are_read_in_its_own_window(axes, score):
    bench, image = Bench(axes), image_of(axes)
    wanted, found = best(bench, image), bench.chosen(image, of="nodule", score=score)
    window = image[:, *wanted.window].clone()[None].requires_grad_()
    raw = bench.net(window)[0]
    own = (raw[0].flatten() - wanted.logit).abs().argmin()
    near, far = (each.flatten(1).flip(0) for each in raw[2:].split(axes))
    places = 2 * torch.cartesian_prod(*(torch.arange(n) + 0.5 for n in raw.shape[1:])).T
    start = torch.tensor([at.start for at in wanted.window])[:, None]
    edge = torch.tensor(SIZE[axes])[:, None]
    lows = (places - 2 * near).clamp(min=0).minimum(edge) + start
    highs = (places + 2 * far).clamp(min=0).minimum(edge) + start
    low, high = wanted.box[:axes, None], wanted.box[axes:, None]
    shared = (highs.minimum(high) - lows.maximum(low)).clamp(min=0).prod(0)
    union = (high - low).prod() + (highs - lows).prod(0) - shared
    said = {
        "iou_weighted": (raw[0].flatten().sigmoid() * shared / union).max(),
        "top": lows[axes - 2, own],
        "right": highs[axes - 1, own],
    }[score]
    (gradient,) = torch.autograd.grad(said, window)
    assert found.target.score == pytest.approx(said.item())
    assert found.target.windows.count == 1
    maps = bench.maps("saliency", image, found.scalar)
    close(maps.values[0][:, *wanted.window], gradient[0])
    assert (found.perturbed is None) == (score != "iou_weighted")


def test_integrated_gradients_add_up_to_the_change_in_the_proposals_score(axes):
    bench, image = Bench(axes), image_of(axes)
    target = bench.chosen(image, of="nodule").scalar
    total = bench.maps("integrated_gradients", image, target, steps=64).values.sum()
    both = [bench.run(Forward(Clean(each), (target,))).scores for each in (image, 0 * image)]
    assert total.item() == pytest.approx((both[0] - both[1]).item(), rel=0.02)


def test_hidden_places_are_those_of_the_part_that_the_boxs_windows_cover(axes):
    bench, image = Bench(axes), image_of(axes)
    found = bench.chosen(image, of="nodule").perturbed
    low, high = np.split(np.array(found.target.windows.box, int), 2)
    scores = []
    for at in product(*(range(start, stop, 4) for start, stop in zip(low, high, strict=True))):
        row = image.clone()
        row[:, *(slice(each, min(each + 4, stop)) for each, stop in zip(at, high, strict=True))] = 0
        scores.append(found.scalar(bench.run(Forward(Clean(row), outputs=True)).outputs))
    falls = found.target.score - torch.stack(scores)[:, 0]
    maps = bench.maps("occlusion", image, found.scalar, window=4, stride=4)
    grid = tuple(len(range(start, stop, 4)) for start, stop in zip(low, high, strict=True))
    mode = {2: "bilinear", 3: "trilinear"}[axes]
    cells = nn.functional.interpolate(falls.reshape(1, 1, *grid), [4 * n for n in grid], mode=mode)
    expected = torch.zeros_like(image)
    part = tuple(map(slice, low, high))
    expected[:, *part] = cells[0][:, *(slice(0, each) for each in high - low)]
    close(maps.values[0], expected)


def test_jobs_that_share_batches_get_what_each_gets_alone(axes):
    bench, images = Bench(axes), [image_of(axes), image_of(axes).flip(1)]
    targets = [bench.chosen(each, of="nodule") for each in images]
    plans, alone = [], []
    for image, target in zip(images, targets, strict=True):
        for name, seen in (("integrated_gradients", target), ("occlusion", target.perturbed)):
            method = settled(METHODS[name](), bench.runtime)
            plan = partial(bench.sliding.maps, method, image, (seen.scalar,), None)
            plans.append(plan())
            alone.append(run_alone(plan(), bench.runtime, 1))
    scheduler = Scheduler()
    for made, each in zip(through(scheduler, bench.runtime, *plans), alone, strict=True):
        torch.testing.assert_close(made.values, each.values, rtol=1e-9, atol=1e-11)


def boxes_apart(bench, image, name, **parameters):
    """The plan of boxes that are seen in different windows, and what is followed of each."""
    chosen = [bench.chosen(image, of="nodule", number=k) for k in range(3)]
    method = settled(METHODS[name](**parameters), bench.runtime)
    seen = chosen if method.differentiates() else [each.perturbed for each in chosen]
    targets = tuple(each.scalar for each in seen)
    assert len({each.windows for each in targets}) > 1
    rows = bench.sliding.rows(method, image.shape, targets)
    return Planned(bench.sliding.maps(method, image, targets, None), rows), targets


@pytest.mark.parametrize(("name", "slice_seconds"), [("smooth_grad", 1e-9), ("rise", 0.05)])
def test_each_box_has_a_map_when_time_is_up_before_the_last_could_be_done(name, slice_seconds):
    """Of a method that asks for all its rows at once, and of one that is led from row to row."""
    bench, image = Bench(2), image_of(2)
    planned, targets = boxes_apart(bench, image, name, samples=64)
    scheduler = Scheduler(slice_seconds=slice_seconds)
    job = scheduler.submit("job", bench.runtime, [planned], **short_of_time(0.7, 2.0))
    scheduler.run_until_idle()
    (found,) = job.result(0).outcomes
    assert found.partial
    for k, target in enumerate(targets):
        samples = int(found.extras[k]["samples"])
        assert 0 < samples < 64
        close(found.values[k], bench.maps(name, image, target, samples=samples).values[0])


def test_time_that_is_up_before_a_map_of_each_box_was_begun_leaves_none():
    bench, image = Bench(2), image_of(2)
    plan = boxes_apart(bench, image, "smooth_grad", samples=8)[0].plan
    ask, *_ = next(plan)
    step = run_alone(asking(Gradient(ask.rows, ask.targets)), bench.runtime)
    ask.fold(0, step)  # its own rows are done, the other boxes' are not
    with pytest.raises(TimeUp):
        plan.throw(TimeUp)


def test_a_box_keeps_what_its_network_can_do():
    bench = Bench(2)
    probe = bench.runtime.probed
    lost = probe.abilities - windowed(probe, bench.manifest.sliding_window).abilities
    assert sorted(lost) == ["ablation", "activations"]
