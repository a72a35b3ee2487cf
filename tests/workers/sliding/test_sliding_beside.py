"""Numbers beside an image that is given in windows: against one graph over all windows."""

from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation as CaptumFeatureAblation
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from service.domain.inputs import SlidingWindow
from tests.support.engine import run_alone, settled
from tests.workers.sliding.test_sliding import LAYER, SIZE, TARGETS, image_of
from workers.methods.base import METHODS, Maps, Method
from workers.methods.integrated_gradients import IntegratedGradients
from workers.methods.occlusion import Occlusion
from workers.passes import Ability, Forward, Gradient, Plan, Step, Targets
from workers.rows import INPUT, VALUES, Beside, Clean, Given, Patched
from workers.runtimes.torch import TorchRuntime
from workers.sliding.passes import SERVED, Sliding
from workers.tabular import Companions, Tabular, accompanied
from workers.targets.scalars import OfWindows, RegionLogits

RULES = SlidingWindow(size=SIZE[3], overlap=0.5)
IMAGE = image_of()
BESIDE = Tabular(
    torch.tensor([0.75, -1.25], dtype=torch.float64), torch.tensor([0.25, 0.5], dtype=torch.float64)
)
JOINT = {"integrated_gradients", "kernel_shap", "lime", "shapley_sampling"}
"""Methods that lead or hide the numbers together with the image: their maps are others."""

FEW = {"segments": 9, "samples": 8, "orders": 2, "window": 6, "grays": 4, "steps": 4}
"""Parameters with which methods cost little."""

SERVABLE = [
    name
    for name, method in METHODS.items()
    if method.needs <= SERVED and Ability.ATTENTION not in method.needs
]
close = partial(torch.testing.assert_close, rtol=1e-6, atol=2e-8)
# shares are float32, as MONAI's importance is


class Network(nn.Module):
    """Three classes at each cell; what is seen is scaled and shifted by the numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.see = nn.Sequential(
            nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 5, 3, padding=1)
        )
        self.scale, self.shift = nn.Linear(2, 5), nn.Linear(2, 5)
        self.rectify, self.head = nn.ReLU(), nn.Conv3d(5, 3, 1)

    def forward(self, image: Tensor, values: Tensor) -> Tensor:
        scale, shift = (each(values)[:, :, None, None, None] for each in (self.scale, self.shift))
        return self.head(self.rectify(self.see(image) * (1 + scale) + shift))


class Settled(Network):
    """The same with its numbers settled: a network of an image alone."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image, BESIDE.values.to(image).expand(len(image), -1))


NETWORK = Network().double().eval()


def runtime_of(network: nn.Module, variables: int = 2) -> TorchRuntime:
    if variables:
        Companions(BESIDE.baseline, (2,)).join(network)
    name = f"see.{LAYER}"
    runtime = TorchRuntime(network, (2, *SIZE[3]), (name,), variables=variables)
    assert runtime.probed.layers
    return runtime


class Bench:
    """The network under windows; `seen` are the rows of each of its runs."""

    def __init__(self) -> None:
        network = Network().double().eval()
        self.runtime, self.seen = runtime_of(network), list[int]()
        network.register_forward_pre_hook(lambda _, given: self.seen.append(len(given[0])))
        self.sliding = Sliding(RULES, torch.zeros(0, dtype=torch.float64))

    def run(self, ask: Forward | Gradient) -> Step:
        def plan() -> Plan[Step]:
            step: Step = yield ask
            return step

        found: Step = run_alone(accompanied(self.sliding.led(plan()), BESIDE), self.runtime)
        return found

    def maps(self, method: Method, targets: Targets = TARGETS[:1]) -> Maps:
        plan = self.sliding.maps(method, IMAGE, targets, BESIDE)
        made: Maps = run_alone(accompanied(plan, BESIDE), self.runtime)
        return made


def whole(image: Tensor, values: Tensor) -> Tensor:
    """Return MONAI's blend for one image ``(1, C, ...)``, differentiable in both."""
    return sliding_window_inference(
        image, RULES.size, 1, lambda window: NETWORK(window, values), RULES.overlap, RULES.blend
    )


def slow_scores(images: Tensor, values: Tensor) -> Tensor:
    """Return every target's score of each row beside its own values."""
    rows = [whole(i[None], v[None]) for i, v in zip(images, values, strict=True)]
    return torch.stack([torch.cat([target(row) for target in TARGETS]) for row in rows])


ROWS = torch.stack([IMAGE, IMAGE.flip(1), IMAGE * 0.5])
VALUED = torch.stack([BESIDE.values, BESIDE.baseline, -BESIDE.values])


def test_scores_and_gradients_are_those_of_one_graph_over_all_windows() -> None:
    images, values = ROWS.clone().requires_grad_(), VALUED.clone().requires_grad_()
    scores = slow_scores(images, values)
    rows = Beside(Given(ROWS), VALUED)
    step = Bench().run(Gradient(rows, TARGETS, at=(INPUT, VALUES)))
    close(step.scores, scores.detach())
    close(Bench().run(Forward(rows, TARGETS)).scores, scores.detach())
    for place, leaf in ((INPUT, images), (VALUES, values)):
        grads = [torch.autograd.grad(s.sum(), leaf, retain_graph=True)[0] for s in scores.T]
        close(step.gradients[place], torch.stack(grads, 1))
    assert (step.gradients[VALUES].abs() > 1e-4).all()


def test_the_answer_is_that_of_monais_inferer_beside_the_patients_values() -> None:
    step = Bench().run(Forward(Clean(IMAGE), outputs=True))
    close(step.outputs, whole(IMAGE[None], BESIDE.values[None]).detach())


@pytest.mark.parametrize("target", [TARGETS[0], TARGETS[2]])
def test_a_covered_box_beside_other_values_gives_the_score_of_both(target) -> None:
    boxes = tuple(tuple(slice(k, k + 3) for k in at) for at in ((0, 0, 0), (6, 2, 5), (0, 0, 0)))
    patched = Patched(IMAGE, boxes, 1.5)
    batch = torch.empty_like(ROWS)
    patched.fill({INPUT: batch}, 0, 3)
    expected = slow_scores(batch, VALUED)[:, [TARGETS.index(target)]].detach()
    close(Bench().run(Forward(Beside(patched, VALUED), (target,))).scores, expected)


def test_windows_that_nothing_changes_are_run_once_for_each_set_of_values() -> None:
    bench, targets = Bench(), TARGETS[:1]
    known = bench.sliding.windows(IMAGE.shape, targets)
    corner = tuple(slice(0, 1) for _ in range(3))  # of one window alone
    patched = Patched(IMAGE, (corner, corner, corner), 9.0)
    two = torch.stack([BESIDE.values, BESIDE.baseline, BESIDE.values])
    bench.run(Forward(Beside(patched, two), targets))
    assert sum(bench.seen) == 2 * known + 1


# ---------------------------------------------------------------------------- methods


def captums(captum, **options) -> tuple[Tensor, Tensor]:
    """Return captum's attributions of image and numbers, of the blend as one function."""

    def score(images: Tensor, values: Tensor) -> Tensor:
        return slow_scores(images, values)[:, 0]

    given = (IMAGE[None], BESIDE.values[None])
    image, numbers = captum(score).attribute(given, **options)
    return image[0].detach(), numbers[0].detach()


def test_one_path_leads_image_and_numbers_as_captum_leads_a_tuple() -> None:
    made = Bench().maps(IntegratedGradients(steps=6, baseline=0.2))
    baselines = (torch.full_like(IMAGE, 0.2)[None], BESIDE.baseline[None])
    image, numbers = captums(
        CaptumIntegratedGradients, baselines=baselines, n_steps=6, method="riemann_middle"
    )
    close(made.values[0], image)
    close(made.shares[0], numbers)


def test_a_number_without_which_the_score_falls_adds_that() -> None:
    made = Bench().maps(Occlusion(window=6, baseline=0.0))
    mask = (torch.zeros(1, *IMAGE.shape, dtype=torch.int64), torch.tensor([[1, 2]]))
    baselines = (torch.zeros_like(IMAGE)[None], BESIDE.baseline[None])
    _, numbers = captums(CaptumFeatureAblation, baselines=baselines, feature_mask=mask)
    close(made.shares[0], numbers)


@pytest.mark.parametrize("name", SERVABLE)
def test_every_map_is_of_the_image_beside_the_patients_values(name: str) -> None:
    """Of a network with the numbers settled, every map is the same."""
    small = {key: few for key, few in FEW.items() if key in METHODS[name].model_fields}
    plain, bench = runtime_of(Settled().double().eval(), variables=0), Bench()
    method = settled(METHODS[name](**small), plain)
    made = bench.maps(method)
    assert torch.isfinite(made.values).all()
    if name not in JOINT:
        plan = bench.sliding.maps(method, IMAGE, TARGETS[:1], None)
        expected = run_alone(plan, plain).values
        span = float(expected.max() - expected.min())
        torch.testing.assert_close(made.values, expected, rtol=1e-6, atol=1e-6 * span)


@pytest.mark.parametrize("name", ["integrated_gradients", "kernel_shap"])
def test_of_a_box_map_and_shares_are_those_of_its_window_beside_the_values(name: str) -> None:
    bench, window = Bench(), 3
    bench.sliding = Sliding(RULES.model_copy(update={"blend": "none"}), bench.sliding.like)
    scalar = RegionLogits(1, np.ones(SIZE[3], np.bool_), "0" * 64)
    fields = {key: few for key, few in FEW.items() if key in METHODS[name].model_fields}
    method = settled(METHODS[name](**fields), bench.runtime)
    made = bench.maps(method, (OfWindows(((window, scalar),)),))
    box = bench.sliding.tiling(IMAGE.shape).boxes[window]
    alone = method.joint(IMAGE[:, *box].contiguous(), (scalar,), BESIDE)
    expected = run_alone(accompanied(alone, BESIDE), bench.runtime)
    close(made.shares, expected.shares)
    assert expected.shares.ne(0).all()
    placed = torch.zeros_like(made.values)
    placed[0][:, *box] = expected.values[0]
    close(made.values, placed)
