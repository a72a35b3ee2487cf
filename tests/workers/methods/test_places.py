"""Maps of layers lie where the model looked: at the centers of the cells' receptive fields."""

import numpy as np
import pytest
import torch
from monai.networks.nets.resnet import resnet18
from torch import Tensor, nn

from service.domain.grid import Grid, scaling
from service.domain.network import LayerCells
from tests.support.engine import attribute, logits, settled
from workers.architectures.base import ARCHITECTURES
from workers.drawing.resample import to_source
from workers.measures.bearing import brought
from workers.methods.base import METHODS
from workers.methods.cam import enlarged
from workers.restriction import parts, restrict
from workers.runtimes.places import Places
from workers.runtimes.torch import TorchRuntime
from workers.views import piece

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
EXTENT = {2: (97, 110), 3: (65, 70, 72)}


def places(network: nn.Module, *spatial: int) -> tuple[list[float], list[float]]:
    """Return what is told of a network's last cells: the first ones' centers, and the steps."""
    image = torch.randn(1, 1, *spatial)
    with Places(image) as found, torch.no_grad():
        lines = [each for each in found.of(network.eval()(image))[2:] if each is not None]
    assert [each.axis for each in lines] == list(range(len(spatial)))
    return [each.first for each in lines], [each.step for each in lines]


def fields(network: nn.Module, *spatial: int) -> tuple[list[float], list[float]]:
    """Return the same by the pixels that move two inner cells: the middle of these."""
    for each in network.double().eval().parameters():
        each.data = each.data.abs() + 0.1
    image = torch.rand(1, 1, *spatial, dtype=torch.float64, requires_grad=True)
    outputs = network(image)
    middle = [cells // 2 for cells in outputs.shape[2:]]
    firsts, steps = [], []
    for axis, at in enumerate(middle):
        pair = []
        for cell in (at, at + 1):
            index = [*middle[:axis], cell, *middle[axis + 1 :]]
            score = outputs[(0, slice(None), *index)].sum()
            (moves,) = torch.autograd.grad(score, image, retain_graph=True)
            others = [k for k in range(len(spatial)) if k != axis]
            (seen,) = np.nonzero(moves[0, 0].abs().sum(others).numpy())
            pair.append((seen[0] + seen[-1]) / 2)
        steps.append(pair[1] - pair[0])
        firsts.append(pair[0] - at * steps[-1])
    return firsts, steps


class Shortcut(nn.Module):
    """Two ways of one spacing, beside each other and added; then a gate of the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.long = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 3, 1, 1))
        self.short = nn.Conv2d(1, 2, 1, 2)

    def forward(self, image: Tensor) -> Tensor:
        made = torch.cat([self.long(image) + self.short(image), self.short(image)], dim=1)
        return made * made.mean((2, 3), keepdim=True).detach().sigmoid()


NETWORKS = [
    nn.Conv2d(1, 2, 3, 2, 1),
    nn.Sequential(
        nn.Conv2d(1, 2, 7, 2, 3), nn.BatchNorm2d(2), nn.ReLU(True), nn.AvgPool2d(3, 2, 1)
    ),
    nn.Sequential(nn.Conv2d(1, 2, 4, 2, 1), nn.Conv2d(2, 2, 2, 2), nn.GELU(), nn.AvgPool2d(2)),
    nn.Sequential(nn.Conv2d(1, 2, (3, 5), (2, 1), (0, 3), dilation=(2, 1)), nn.PReLU()),
    nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(1, 2, 3, 2)),
    nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ConvTranspose2d(2, 2, 3, 2, 1, 1)),
    Shortcut(),
    nn.Sequential(nn.Conv3d(1, 2, 3, (1, 2, 2), 1), nn.AvgPool3d(2), nn.Conv3d(2, 2, 3, 2, 1)),
]


@pytest.mark.parametrize("network", NETWORKS, ids=range(len(NETWORKS)))
def test_a_cell_is_where_the_pixels_that_move_it_are(network: nn.Module) -> None:
    spatial = (49, 64)
    if any(isinstance(each, nn.Conv3d) for each in network.modules()):
        spatial = (32, 48, 40)
    told, found = places(network, *spatial), fields(network, *spatial)
    assert told == tuple([pytest.approx(each, abs=1e-9) for each in pair] for pair in found)


@pytest.mark.parametrize("axes", [2, 3])
def test_cells_of_a_resnet_start_at_the_first_pixel(axes: int) -> None:
    """By hand: kernels of 7, 3 and 1 padded by 3, 1 and 0 are all centered on what they stride."""
    network = resnet18(
        spatial_dims=axes, n_input_channels=1, num_classes=2, feed_forward=False, conv1_t_stride=2
    )
    features = nn.Sequential(*list(network.children())[:-1])
    assert places(features, *(64,) * axes) == ([0.0] * axes, [32.0] * axes)


# ------------------------------------------------------------- maps, on the source's pixels


def averaging(axes: int, kernel: int, padding: int) -> TorchRuntime:
    """Return three convolutions of even weights and a stride of 2, and their mean as a score."""
    layers = [CONV[axes](1, 1, kernel, 2, padding, bias=False) for _ in range(3)]
    features = nn.Sequential(*(part for each in layers for part in (each, nn.ReLU())))
    head = nn.Linear(1, 1)
    with torch.no_grad():
        for each in (*layers, head):
            each.weight.fill_(1 / each.weight.numel())
    pool = nn.AdaptiveAvgPool2d(1) if axes == 2 else nn.AdaptiveAvgPool3d(1)
    network = nn.Sequential(features, pool, nn.Flatten(), head).double()
    return TorchRuntime(network, (1, *EXTENT[axes]), ("0",))


@pytest.mark.parametrize("name", ["grad_cam", "hires_cam", "layer_cam", "eigen_cam", "score_cam"])
@pytest.mark.parametrize(
    ("axes", "kernel", "padding"), [(2, 3, 1), (2, 4, 2), (2, 4, 0), (3, 3, 1)]
)
def test_a_map_is_centered_where_the_finding_is(
    name: str, axes: int, kernel: int, padding: int
) -> None:
    runtime = averaging(axes, kernel, padding)
    whole = Grid.identity(EXTENT[axes])
    lines = np.ogrid[tuple(slice(length) for length in whole.shape)]
    for place in [(31.0, 36.0, 33.0)[:axes], (36.0, 35.0, 38.0)[:axes]]:
        away = sum((line - at) ** 2 for line, at in zip(lines, place, strict=True))
        image = torch.from_numpy(np.exp(-away / (2 * 6.0**2)))[None]
        made = attribute(settled(METHODS[name](), runtime), runtime, image, logits(0))
        own = piece(made, 0, None)
        mass = own.values[0] / own.values[0].sum()
        centers = own.cells.over(whole).to_source(np.argwhere(mass > -1).reshape(*mass.shape, axes))
        np.testing.assert_allclose(
            (centers * mass[..., None]).reshape(-1, axes).sum(0), place, atol=0.5
        )


def test_guided_grad_cam_and_masks_are_enlarged_about_the_same_centers() -> None:
    """A map whose values are its cells' places gives each pixel its own."""
    affine = scaling((8.0, 4.0), (0.0, 3.5))
    rows = torch.arange(5.0)[:, None].mul(8).expand(5, 6)
    columns = torch.arange(6.0).mul(4).add(3.5).expand(5, 6)
    wide = enlarged(torch.stack([rows, columns])[None], (37, 30), affine)[0]
    expected = np.clip(np.arange(37), 0, 32)
    np.testing.assert_allclose(wide[0, :, 7], expected, atol=1e-5)
    np.testing.assert_allclose(wide[1, 9], np.clip(np.arange(30), 3.5, 23.5), atol=1e-5)


def test_cells_of_several_views_are_placed_in_each() -> None:
    """A kernel of 3 and a stride of 2 in each view: on every second pixel, from the first."""
    shape = ARCHITECTURES["multi_view_cnn"](views=2, classes=2, widths=[4, 4])
    (layer,) = TorchRuntime(shape.build(), (1, 2, 32, 32), ("peaks",)).probed.layers
    assert layer.cells == LayerCells(
        first=(0.0, 0.0, 0.0), spacing=(1.0, 2.0, 2.0), by="receptive_field"
    )


# ---------------------------------------------------------------- what is made of the grid


def strided() -> tuple[np.ndarray, Grid]:
    """Return a map of 4 x 4 cells on every eighth pixel of an image of 32 x 32."""
    values = np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4)
    return values, Grid((4, 4), scaling((8.0, 8.0), (0.0, 0.0))).over(Grid.identity((32, 32)))


def test_border_cells_reach_to_the_image_and_no_farther() -> None:
    values, grid = strided()
    drawn = to_source(values, grid, (32, 32))[0]
    assert drawn[0, 0] == 1
    np.testing.assert_allclose(drawn[24:, 24:], 16)
    assert drawn[8, 16] == values[0, 1, 2]
    cropped = Grid((4, 4), grid.affine).over(Grid((32, 32), scaling((1.0, 1.0), (10.0, 10.0))))
    outside = to_source(values, cropped, (50, 50))[0]
    assert not outside[:10].any()
    assert not outside[:, 42:].any()
    assert outside[10:42, 10:42].all()


def test_no_mass_is_lost_at_the_borders() -> None:
    values, grid = strided()
    square = brought(values, grid, (32, 32), 8)
    np.testing.assert_allclose(square.sum(), values.sum())
    np.testing.assert_allclose(square[0, 0], 1 / 1.125**2)  # a cell of 4.5 x 4.5 pixels, all of it
    padded = brought(values, Grid((4, 4), scaling((8.0, 8.0), (-16.0, 0.0))), (32, 32), 8)
    assert np.isfinite(padded).all()


def test_a_region_keeps_the_cells_that_reach_into_it() -> None:
    values, grid = strided()
    box = (0, 0, 32, 12)
    kept, said = restrict(values, grid, [box])
    assert said is not None
    assert (kept[0] != 0).tolist() == [[True, True, False, False]] * 4  # columns to 4, 12, 20, 32
    (part,) = parts(grid, [box])
    drawn = to_source(kept[:, *part.cells], part.grid, (32, 12))[0]
    assert drawn.all()
    assert drawn[31, 0] == values[0, 3, 0]
