"""The bank's passes: what the model says of each hidden place, once for everybody."""

import numpy as np
import pytest
import torch
from torch import nn

from service.domain.grid import Grid
from service.errors.jobs import Cancelled
from service.errors.models import NonFiniteScore
from tests.support.cells import weights
from tests.support.engine import run_alone, small_net, small_runtime, through
from workers.measures.bank import bank, blurred, rows_of
from workers.measures.bearing import bearings
from workers.measures.cells import lattices
from workers.passes import Forward
from workers.rows import Clean
from workers.running import Planned
from workers.runtimes.incremental import rows
from workers.runtimes.incremental.network import Network
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

PROBES = {2: 25, 3: 27}
SIZES = {2: (40, 32), 3: (33, 36, 32)}


def network(axes: int, **options: object) -> TorchRuntime:
    return small_runtime(axes, **options)


def picture(axes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, *SIZES[axes], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("axes", [2, 3])
def test_cells_side_by_side_cover_every_pixel_once(axes: int) -> None:
    cells, start = weights((37,) * axes), 0
    assert len(cells) == PROBES[axes]
    for each in lattices(axes):
        np.testing.assert_allclose(cells[start : start + len(each.walls)].sum(0), 1)
        start += len(each.walls)


@pytest.mark.parametrize("axes", [2, 3])
def test_the_bank_is_what_the_model_says_of_each_blurred_place(axes: int) -> None:
    runtime = network(axes)
    image = picture(axes)
    known = run_alone(bank(image), runtime)
    soft = blurred(image)
    shape = image.shape[1:]
    for drop, cell in zip(known.drops, torch.from_numpy(weights(shape)), strict=True):
        hidden = (1 - cell) * image + cell * soft
        fall = runtime.model(image[None])[0] - runtime.model(hidden[None])[0]
        np.testing.assert_allclose(drop, fall.detach().numpy(), atol=1e-9)


@pytest.mark.parametrize("axes", [2, 3])
def test_all_targets_and_methods_share_one_bank_of_rows(axes: int) -> None:
    runtime, image = network(axes), picture(axes)
    asked = []

    def watched():
        step = yield Forward(Clean(image), outputs=True)
        asked.append(step.count)

    known, _ = through(Scheduler(), runtime, bank(image), watched())
    assert known.drops.shape == (PROBES[axes], 5)
    assert sum(runtime.served.batches) == PROBES[axes] + 1 == rows_of(image.shape)


@pytest.mark.parametrize("axes", [2, 3])
def test_places_computed_alone_give_the_falls_of_whole_rows(axes, monkeypatch):
    monkeypatch.setattr(rows, "WORTH", 2.0)  # so small a network gains nothing
    monkeypatch.setattr(rows.Incremental, "_require_gain", lambda *_: None)
    windowed, outputs = [], Network.outputs
    monkeypatch.setattr(
        Network, "outputs", lambda *given: windowed.append(len(given[2])) or outputs(*given)
    )
    small = small_net(axes)
    net = nn.Sequential(small.features, small.pool, nn.Flatten(), small.head)
    shape, image = (1, *SIZES[axes]), picture(axes)
    alone, whole = TorchRuntime(net, shape), TorchRuntime(net, shape, fixed_rows=3)
    found, expected = (through(Scheduler(), each, bank(image))[0] for each in (alone, whole))
    assert sum(windowed) == PROBES[axes]
    assert np.ptp(expected.drops, axis=0).min() > 1e-4
    np.testing.assert_allclose(found.drops, expected.drops, rtol=0, atol=1e-12)


def test_a_job_that_is_cancelled_in_mid_bank_ends_there() -> None:
    runtime = network(2, fixed_rows=2)
    scheduler = Scheduler()
    ticket = scheduler.submit(
        "job",
        runtime,
        [Planned(bank(picture(2)), 26)],
        on_progress=lambda share: share > 0.2 and scheduler.cancel("job"),
    )
    scheduler.run_until_idle()
    (outcome,) = ticket.result(0).outcomes
    assert isinstance(outcome, Cancelled)
    assert 0 < sum(runtime.served.batches) < 26


@pytest.mark.parametrize("axes", [2, 3])
def test_a_blur_is_the_mean_under_a_gaussian_with_borders_continued(axes: int) -> None:
    image = np.random.default_rng(0).normal(size=(2, 9, 7, 5)[: axes + 1])
    expected = image
    for axis in range(1, axes + 1):
        size = image.shape[axis]
        sigma, reach = 0.25 * size, round(0.75 * size)
        heights = {k: np.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)}
        lines = [
            sum(
                height * expected.take(min(max(at + k, 0), size - 1), axis)
                for k, height in heights.items()
            )
            / sum(heights.values())
            for at in range(size)
        ]
        expected = np.stack(lines, axis)
    np.testing.assert_allclose(blurred(torch.from_numpy(image), 0.25).numpy(), expected)


def test_a_blur_leaves_a_constant_image_as_it_is() -> None:
    image = torch.full((2, 33, 40), 3.25, dtype=torch.float64)
    torch.testing.assert_close(blurred(image), image)


class Blind(nn.Module):
    """Says the same of every image."""

    def __init__(self, *says: float) -> None:
        super().__init__()
        self.says = nn.Parameter(torch.tensor(says, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.says + 0 * x.flatten(1).sum(1, keepdim=True)


def test_a_model_of_one_constant_class_has_a_bank_that_says_nothing() -> None:
    known = run_alone(bank(picture(2)), TorchRuntime(Blind(2.5), (1, *SIZES[2])))
    assert known.drops.shape == (25, 1)
    values = picture(2).numpy().astype(np.float32)
    said = bearings(values, Grid.identity(SIZES[2]), SIZES[2], known.drops[:, 0], 2.5)
    assert said.outcome == "uninformative"


def test_a_score_that_is_no_number_leaves_no_bank() -> None:
    runtime = TorchRuntime(Blind(float("nan")), (1, *SIZES[2]))
    (outcome,) = through(Scheduler(), runtime, bank(picture(2)))
    assert isinstance(outcome, NonFiniteScore)
