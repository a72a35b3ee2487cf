"""What holds for every method that there is, in three axes of different lengths."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.engine import (
    CONV,
    SIZES,
    WITHOUT_TOKENS,
    attribute,
    image_for,
    logits,
    settled,
    small_runtime,
    through,
)
from workers.methods.base import METHODS
from workers.methods.saliency import Saliency
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

SIZE = SIZES[3]
START = (8, 2, 4)
"""First voxel of the lit box of edge 2; no axis can be swapped or flipped unnoticed."""

FINE = {"occlusion": {"window": 2, "stride": 2}}
"""Parameters of methods whose ordinary grid is too coarse for so small a volume."""

BOX = tuple(slice(start, start + 2) for start in START)


class Lamp(nn.Module):
    """Looks at one box alone, with a rectifier and a square: no head of the original CAM."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(CONV[3](1, 3, 2, stride=2), nn.ReLU())
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.abs_()
        self.cell = tuple(start // 2 for start in START)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.layer(x)[(slice(None), slice(None), *self.cell)]
        return seen.square().sum(1, keepdim=True)


@pytest.mark.parametrize("name", [n for n in WITHOUT_TOKENS if n != "class_activation_map"])
def test_what_is_lit_lies_where_the_map_is_largest(name: str) -> None:
    torch.manual_seed(4)
    runtime = TorchRuntime(Lamp().double(), (1, *SIZE), ("layer",))
    image = 0.02 * image_for(3)
    image[(0, *BOX)] += 1
    method = METHODS[name](**FINE.get(name, {}))
    maps = attribute(settled(method, runtime), runtime, image, logits(0))
    values = maps.values[0].abs().sum(0)
    cell = np.array(np.unravel_index(int(values.argmax()), values.shape))
    voxel = maps.affine[:-1, :-1] @ cell + maps.affine[:-1, -1]
    middle = np.array(START) + 0.5
    # half a cell, and half the box
    assert (np.abs(voxel - middle) <= maps.affine.diagonal()[:-1] / 2 + 0.5).all()


@pytest.mark.parametrize("name", WITHOUT_TOKENS)
def test_a_job_leaves_the_replica_as_it_was(name: str) -> None:
    runtime, image = small_runtime(), image_for()
    weights = {key: value.clone() for key, value in runtime.model.state_dict().items()}
    plain = attribute(Saliency(), runtime, image, logits(1)).values
    lost: list[object] = []
    plan = settled(METHODS[name](), runtime).plan(image, logits(0, 1))
    through(Scheduler(on_lost=lost.append), runtime, plan)
    assert not lost
    runtime.check()
    for key, value in runtime.model.state_dict().items():
        assert torch.equal(value, weights[key])
    assert all(not parameter.requires_grad for parameter in runtime.model.parameters())
    assert torch.equal(attribute(Saliency(), runtime, image, logits(1)).values, plain)


def receptive_field(place: int, size: int) -> range:
    """Return what one cell of the small network's last grid has seen, along one axis.

    A cell is a 3-wide convolution of maxima of pairs of a 3-wide convolution.
    """
    return range(max(0, 2 * (place - 1) - 1), min(size, 2 * (place + 1) + 1 + 2))


class OneCell(nn.Module):
    """The small network up to its last grid, of which one cell is the score."""

    def __init__(self, cell: tuple[int, ...]) -> None:
        super().__init__()
        # smooth, so that no gradient is zero by chance: averages for maxima, no rectifier
        self.features = nn.Sequential(
            CONV[3](1, 6, 3, padding=1), nn.AvgPool3d(2), CONV[3](6, 8, 3, padding=1), nn.Tanh()
        )
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[(slice(None), slice(None), *self.cell)].sum(1, keepdim=True)


@pytest.mark.parametrize("cell", [(0, 0, 0), (2, 3, 1), (5, 0, 3), (3, 2, 2)])
def test_a_cells_gradient_fills_its_receptive_field_and_nothing_else(
    cell: tuple[int, int, int],
) -> None:
    torch.manual_seed(1)
    runtime = TorchRuntime(OneCell(cell).double(), (1, *SIZE))
    values = attribute(Saliency(), runtime, image_for(3), logits(0)).values[0, 0]
    fields = [receptive_field(place, size) for place, size in zip(cell, SIZE, strict=True)]
    inside = torch.zeros(SIZE, dtype=torch.bool)
    for voxel in itertools.product(*fields):
        inside[voxel] = True
    assert torch.equal(values != 0, inside)
    assert 0 < inside.sum() < inside.numel()


@pytest.mark.parametrize("axes", [2, 3])
def test_two_tenants_jobs_taking_turns_get_their_own_maps(axes: int) -> None:
    """Batches hold rows of both, and neither's image or targets show in the other's maps."""
    runtime = small_runtime(axes)
    names = [name for name in WITHOUT_TOKENS if METHODS[name].needs <= runtime.probed.abilities]
    tenants = [(image_for(axes, seed=3), logits(0, 2)), (image_for(axes, seed=4), logits(4))]
    scheduler = Scheduler()
    for name in names:
        method = settled(METHODS[name](), runtime)
        jobs = [
            scheduler.submit(f"{name} of {tenant}", runtime, [Planned(method.plan(*asked), 1)])
            for tenant, asked in enumerate(tenants)
        ]
        scheduler.run_until_idle()
        merged = [job.result(0).outcomes[0] for job in jobs]
        for maps, (image, targets) in zip(merged, tenants, strict=True):
            alone = attribute(method, runtime, image, targets).values
            torch.testing.assert_close(maps.values, alone, rtol=0, atol=1e-11)
