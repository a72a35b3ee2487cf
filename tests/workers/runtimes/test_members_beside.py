"""Folds that are given numbers beside the image, against the same answer as one graph."""

from functools import partial

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor, nn

from tests.support.engine import LAYER, SIZES, folds_of, logits, run_alone
from tests.support.fused import WIDTHS, companions, fused_net, parts, picture, tabular
from workers.methods.integrated_gradients import IntegratedGradients
from workers.passes import Gradient, Plan, Step
from workers.rows import INPUT, VALUES, Beside, Given
from workers.runtimes.members import Combine, Members, mean, mean_sigmoid, mean_softmax
from workers.runtimes.torch import TorchRuntime
from workers.tabular import accompanied
from workers.targets.scalars import LogOdds

TARGETS = (*logits(0, 3), LogOdds(2))
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)


def together(combine: Combine) -> Members:
    runtimes = []
    for net in folds_of(fused_net):
        companions().join(net)
        runtimes.append(TorchRuntime(net, (1, *SIZES[2]), (LAYER,), variables=sum(WIDTHS)))
    return Members(runtimes, combine)


class Graph(nn.Module):
    """What the folds say together, as one network."""

    def __init__(self, combine: Combine) -> None:
        super().__init__()
        self.folds = nn.ModuleList(folds_of(fused_net))
        self.combine = combine

    def forward(self, image: Tensor, *numbers: Tensor) -> Tensor:
        return self.combine([each(image, *numbers) for each in self.folds])


@pytest.mark.parametrize("combine", [mean, mean_softmax, mean_sigmoid])
def test_gradients_of_image_and_numbers_are_those_of_one_graph(combine: Combine) -> None:
    images = torch.stack([picture(), -picture()]).requires_grad_()
    values = torch.stack([tabular().values, tabular().baseline]).requires_grad_()
    scores = [each(Graph(combine)(images, *parts(values))) for each in TARGETS]
    leaves = {INPUT: images, VALUES: values}
    expected = {
        place: torch.stack(
            [torch.autograd.grad(s.sum(), leaf, retain_graph=True)[0] for s in scores], 1
        )
        for place, leaf in leaves.items()
    }

    def plan() -> Plan[Step]:
        rows = Beside(Given(images.detach()), values.detach())
        step: Step = yield Gradient(rows, TARGETS, at=(INPUT, VALUES))
        return step

    step = run_alone(plan(), together(combine))
    close(step.scores, torch.stack(scores, 1).detach())
    for place, gradients in expected.items():
        close(step.gradients[place], gradients)


def test_map_and_shares_are_captums_of_the_mean() -> None:
    method = IntegratedGradients(steps=12, baseline=0.25)
    plan = accompanied(method.joint(picture(), logits(1), tabular()), tabular())
    maps = run_alone(plan, together(mean))
    image, *numbers = CaptumIntegratedGradients(Graph(mean)).attribute(
        (picture()[None], *parts(tabular().values[None])),
        baselines=(torch.full_like(picture(), 0.25)[None], *parts(tabular().baseline[None])),
        target=1,
        n_steps=12,
        method="riemann_middle",
    )
    torch.testing.assert_close(maps.values[0], image[0].detach())
    torch.testing.assert_close(maps.shares[0], torch.cat(numbers, 1)[0].detach())
