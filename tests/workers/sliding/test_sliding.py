"""Windows against one graph over all of them: MONAI's inferer under autograd, in float64."""

from functools import partial

import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn

from service.domain.inputs import SlidingWindow
from service.errors.jobs import Cancelled
from service.errors.models import UnservablePass
from tests.support.engine import run_alone, settled
from workers.methods.base import METHODS
from workers.passes import Forward, Gradient, Rule, Tap
from workers.rows import INPUT, Ablated, Clean, Given, Masked, Noisy, Patched
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.sliding.passes import Sliding
from workers.targets.scalars import RegionLogits

SIZE = {2: (12, 10), 3: (8, 8, 6)}
SHAPE = {2: (31, 24), 3: (19, 8, 15)}
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
LAYER = "2"


def network(axes=3, channels=2, dtype=torch.float64):
    """Three classes at each cell, of a neighborhood that windows cut off."""
    torch.manual_seed(5)
    conv = CONV[axes]
    layers = (conv(channels, 4, 3, padding=1), nn.ReLU(), conv(4, 5, 3, padding=1), nn.ReLU())
    return nn.Sequential(*layers, conv(5, 3, 1)).to(dtype).eval()


def image_of(axes=3, channels=2, dtype=torch.float64, shape=None):
    generator = torch.Generator().manual_seed(1)
    shape = shape or SHAPE[axes]
    return torch.randn(channels, *shape, generator=generator, dtype=torch.float64).to(dtype)


def region(axes=3, shape=None, **options):
    mask = np.zeros(shape or SHAPE[axes], np.bool_)
    mask[tuple(slice(1, length // 2) for length in mask.shape)] = True
    return RegionLogits(1, mask, "0" * 64, **options)


class Bench:
    """A network under windows, and the same as one graph."""

    def __init__(self, axes=3, blend="gaussian", convention="monai", overlap=0.5):
        self.rules = SlidingWindow(
            size=SIZE[axes], overlap=overlap, blend=blend, convention=convention
        )
        self.net = network(axes)
        self.runtime = TorchRuntime(self.net, (2, *SIZE[axes]), (LAYER,))
        assert self.runtime.probed
        self.seen = []
        self.net.register_forward_pre_hook(lambda _, args: self.seen.append(len(args[0])))
        self.runtime.check = lambda: None  # the hook above is no change of the model
        self.sliding = Sliding(self.rules, torch.zeros(0, dtype=torch.float64))

    def whole(self, batch):
        """MONAI's answer, differentiable."""
        return sliding_window_inference(
            batch, self.rules.size, 1, self.net, self.rules.overlap, self.rules.blend
        )

    def run(self, ask):
        def plan():
            return (yield ask)

        return run_alone(self.sliding.led(plan()), self.runtime)

    def maps(self, method, image, *targets):
        return run_alone(
            self.sliding.maps(settled(method, self.runtime), image, targets, None), self.runtime
        )


def slow_scores(bench, batch, *targets):
    return torch.stack([target(bench.whole(batch)) for target in targets], 1)


def slow_gradients(bench, batch, *targets):
    batch = batch.clone().requires_grad_()
    scores = slow_scores(bench, batch, *targets)
    grads = [torch.autograd.grad(s.sum(), batch, retain_graph=True)[0] for s in scores.T]
    return torch.stack(grads, 1)


TARGETS = (
    region(),
    region(mean=False),
    region(against="others"),
    region(against=0.4),
)
close = partial(torch.testing.assert_close, rtol=1e-6, atol=2e-8)
# shares are float32, as MONAI's importance is


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("overlap", [0.25, 0.6])
def test_the_answer_is_that_of_monais_inferer(axes, blend, overlap):
    bench, image = Bench(axes, blend, overlap=overlap), image_of(axes)
    step = bench.run(Forward(Clean(image), outputs=True))
    close(step.outputs, bench.whole(image[None]))


def test_an_image_smaller_than_a_window_is_padded_as_monai_pads_it():
    bench, image = Bench(), image_of(shape=(5, 11, 6))
    target = region(shape=(5, 11, 6))
    close(bench.run(Forward(Clean(image), outputs=True)).outputs, bench.whole(image[None]))
    step = bench.run(Gradient(Clean(image), (target,)))
    close(step.gradients[INPUT], slow_gradients(bench, image[None], target))


@pytest.mark.parametrize("axes", [2, 3])
def test_scores_and_gradients_are_those_of_one_graph_over_all_windows(axes):
    bench, image = Bench(axes), image_of(axes)
    rows = torch.stack([image, image.flip(1), image * 0.5])
    options = ({}, {"mean": False}, {"against": "others"}, {"against": 0.4})
    targets = tuple(region(axes, **each) for each in options)
    step = bench.run(Gradient(Given(rows), targets))
    close(step.scores, slow_scores(bench, rows, *targets).detach())
    close(step.gradients[INPUT], slow_gradients(bench, rows, *targets))
    scores = bench.run(Forward(Given(rows), targets)).scores
    close(scores, slow_scores(bench, rows, *targets).detach())


def test_noise_is_that_of_the_whole_image():
    bench, image = Bench(), image_of()
    rows = Noisy(image, 0.3, seed=7, samples=2)
    batch = torch.empty(2, *image.shape, dtype=image.dtype)
    rows.fill({INPUT: batch}, 0, 2)
    step = bench.run(Gradient(rows, TARGETS[:1]))
    close(step.gradients[INPUT], slow_gradients(bench, batch, TARGETS[0]))


def test_windows_without_the_region_are_never_run():
    bench, image = Bench(), image_of()
    step = bench.run(Gradient(Clean(image), TARGETS[:1]))
    tiling = bench.sliding.tiling(image.shape)
    assert 0 < sum(bench.seen) == bench.sliding.windows(image.shape, TARGETS[:1]) < tiling.count
    assert step.gradients[INPUT][..., -1].eq(0).all()  # far from the region there is nothing


@pytest.mark.parametrize("target", [TARGETS[0], TARGETS[2]])
def test_a_covered_box_gives_the_score_of_the_covered_image(target):
    bench, image = Bench(), image_of()
    boxes = (
        tuple(slice(k, k + 3) for k in (0, 0, 0)),
        tuple(slice(k, k + 3) for k in (17, 6, 13)),
        tuple(slice(k, k + 4) for k in (6, 2, 5)),
    )
    rows = Patched(image, boxes, 1.5)
    batch = torch.empty(3, *image.shape, dtype=image.dtype)
    rows.fill({INPUT: batch}, 0, 3)
    close(bench.run(Forward(rows, (target,))).scores, slow_scores(bench, batch, target).detach())


def test_only_windows_that_a_box_touches_are_run_again():
    bench, image = Bench(), image_of()
    far, near = (tuple(slice(k, k + 1) for k in at) for at in ((18, 0, 14), (0, 0, 0)))
    known = bench.sliding.windows(image.shape, TARGETS[:1])
    scores = bench.run(Forward(Patched(image, (far, near), 9.0), TARGETS[:1])).scores
    assert sum(bench.seen) == known + 1  # the corner lies in one window, the far one in none
    clean = bench.run(Forward(Clean(image), TARGETS[:1])).scores
    assert scores[0] == clean[0]
    assert scores[1] != clean[0]


def test_masked_rows_are_led_through_windows():
    bench, image = Bench(), image_of()
    mask = (torch.arange(15) < 8).double().expand(1, *image.shape[1:])
    rows = Masked(image, 0.2, lambda start, stop: mask[None].expand(stop - start, *mask.shape), 1)
    batch = torch.empty(1, *image.shape, dtype=image.dtype)
    rows.fill({INPUT: batch}, 0, 1)
    close(bench.run(Forward(rows, TARGETS)).scores, slow_scores(bench, batch, *TARGETS).detach())


def test_what_lies_in_layers_is_refused():
    bench, image = Bench(), image_of()
    for ask in (
        Gradient(Clean(image), TARGETS[:1], at=(LAYER,)),
        Forward(Clean(image), TARGETS[:1], taps=(Tap(LAYER),)),
        Forward(Ablated(image, LAYER, (0,)), TARGETS[:1]),
    ):
        with pytest.raises(UnservablePass):
            bench.run(ask)


# -------------------------------------------------------------------------- methods


def test_integrated_gradients_add_up_to_the_change_in_score():
    bench, image = Bench(), image_of()
    method = METHODS["integrated_gradients"](steps=24, baseline=0.0)
    total = bench.maps(method, image, TARGETS[0]).values.sum()
    both = torch.stack([image, torch.zeros_like(image)])
    scores = slow_scores(bench, both, TARGETS[0]).detach()
    assert total.item() == pytest.approx((scores[0] - scores[1]).item(), rel=0.02)


def test_guided_gradients_are_summed_over_windows():
    bench, image = Bench(), image_of()
    plain = bench.run(Gradient(Clean(image), TARGETS[:1])).gradients[INPUT]
    guided = bench.run(Gradient(Clean(image), TARGETS[:1], rule=Rule.GUIDED)).gradients[INPUT]
    assert not torch.equal(plain, guided)
    assert guided.ne(0).any()


@pytest.mark.parametrize("name", ["hires_cam", "grad_cam"])
def test_a_cam_is_the_blend_of_the_windows_own(name):
    """Reference: each window alone, its map enlarged, and MONAI's inferer blends them."""
    bench, image = Bench(), image_of()
    target = TARGETS[0]
    mask = torch.from_numpy(target.mask).double()[None]

    def one(batch):
        window, inside = batch[:, :2], batch[:, 2]
        features = bench.net[:3](window).detach().requires_grad_()
        score = (bench.net[3:](features)[:, 1] * inside).sum() / target.mask.sum()
        (grad,) = torch.autograd.grad(score, features)
        if name == "grad_cam":
            grad = grad.mean((2, 3, 4), keepdim=True)
        return (grad * features).sum(1, keepdim=True).detach()

    both = torch.cat([image, mask])[None]
    expected = sliding_window_inference(
        both, bench.rules.size, 1, one, bench.rules.overlap, bench.rules.blend
    )
    made = bench.maps(METHODS[name](), image, target)
    close(made.values, expected)
    assert made.affine.tolist() == np.eye(4).tolist()


# --------------------------------------------------------------- nnU-Net's convention


def nnunet_starts(length, edge, overlap):
    """As its predictor spreads windows: as few as have the overlap, the first and last at ends."""
    if length == edge:
        return [0]
    steps = int(np.ceil((length - edge) / (edge * (1 - overlap)))) + 1
    return [int(np.round((length - edge) / (steps - 1) * k)) for k in range(steps)]


def blurred_point(edge):
    """A one at its middle cell under a Gaussian of an eighth of the edge, cut at 4 deviations."""
    sigma = edge / 8
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    point = np.zeros(edge + 2 * reach)
    point[edge // 2 + reach] = 1
    return np.convolve(point, kernel / kernel.sum(), "valid")


def test_nnunets_windows_are_spread_evenly_and_weighed_by_its_gaussian():
    bench, image = Bench(convention="nnunet"), image_of()
    first, second, third = (blurred_point(edge) for edge in SIZE[3])
    weight = first[:, None, None] * second[:, None] * third
    weight[weight == 0] = weight[weight > 0].min()
    total, norm = torch.zeros(3, *SHAPE[3], dtype=torch.float64), np.zeros(SHAPE[3])
    axes = [nnunet_starts(*each, 0.5) for each in zip(SHAPE[3], SIZE[3], strict=True)]
    assert axes[0] == [0, 4, 7, 11]
    for a in axes[0]:
        for b in axes[1]:
            for c in axes[2]:
                at = (slice(a, a + 8), slice(b, b + 8), slice(c, c + 6))
                logits = bench.net(image[:, *at][None])[0].detach()
                total[:, *at] += logits * torch.from_numpy(weight)
                norm[at] += weight
    step = bench.run(Forward(Clean(image), outputs=True))
    close(step.outputs[0], total / torch.from_numpy(norm))


# ------------------------------------------------------------------------ by window


def planned(bench, image):
    def plan():
        return (yield Gradient(Clean(image), TARGETS[:1]))

    rows = bench.sliding.windows(image.shape, TARGETS[:1])
    return Planned(bench.sliding.led(plan()), rows), rows


def test_progress_is_told_by_window():
    bench, told = Bench(), []
    job, rows = planned(bench, image_of())
    scheduler = Scheduler(slice_seconds=1e-6)  # one window a batch
    report = scheduler.submit("job", bench.runtime, [job], on_progress=told.append)
    scheduler.run_until_idle()
    assert report.result(0).rows == rows == len(told)
    assert told == sorted(told)
    assert told[0] == pytest.approx(1 / rows)
    assert told[-1] == 1


def test_a_job_is_stopped_between_two_windows():
    bench = Bench()
    job, rows = planned(bench, image_of())
    scheduler = Scheduler(slice_seconds=1e-6)
    ticket = scheduler.submit(
        "job", bench.runtime, [job], on_progress=lambda _: scheduler.cancel("job")
    )
    scheduler.run_until_idle()
    (outcome,) = ticket.result(0).outcomes
    assert isinstance(outcome, Cancelled)
    assert sum(bench.seen) == 1 < rows
