"""RISE: the paper's sum, a linear model on paper, fewer masks for the same error."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.engine import (
    SIZES,
    Polynomial,
    SmallNet,
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    stopped,
    through,
)
from workers.methods.base import Maps, Method, cells
from workers.methods.rise import Lattice, Rise
from workers.passes import TimeUp
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

AXES = [1, 2, 3]
BASELINE = 0.25


def masked_scores(net: SmallNet, image: Tensor, masks: Tensor) -> Tensor:
    with torch.no_grad():
        return net(BASELINE + masks * (image - BASELINE))


@pytest.mark.parametrize("axes", AXES)
def test_the_map_is_the_papers_sum_over_its_own_masks(axes: int) -> None:
    """With a map as fine as the image, eq. 6 can be written down for every pixel."""
    image = image_for(axes, 2)
    method = Rise(samples=48, cells=9, baseline=BASELINE, seed=4)
    maps = attribute(method, small_runtime(axes, 2), image, logits(1, 3))
    masks = Lattice(image, 9, 4).masks(0, 48)
    scores = masked_scores(small_net(axes, 2), image, masks)[:, [1, 3]]
    paper = torch.einsum("nk,n...->k...", scores, masks[:, 0]) / (48 * 0.5)
    mean = scores.mean(0).reshape(2, *(1,) * axes)
    torch.testing.assert_close(maps.values[:, 0], 2 * (paper - mean))


@pytest.mark.parametrize("axes", AXES)
def test_a_linear_model_is_exact_after_whole_matrices(axes: int) -> None:
    """Each node then gets just what the model makes of the pixels under it."""
    image = image_for(axes)
    model = Polynomial(image.shape)
    with torch.no_grad():
        model.w2.zero_()
    lattice = Lattice(image, 3, 11)
    samples = 2 * lattice.block
    method = Rise(samples=samples, cells=3, baseline=BASELINE, seed=11)
    maps = attribute(method, TorchRuntime(model, image.shape), image, logits(0))
    share = model.w1.detach()[0] * (image[0] - BASELINE)
    by_hand = torch.zeros(maps.values.shape[2:], dtype=torch.float64)
    for block in range(2):
        fine, coarse = (bumps(lattice, block, of) for of in (share.shape, by_hand.shape))
        nodes = torch.einsum("j...,...->j", fine, share)
        by_hand += torch.einsum("j,j...->...", nodes, coarse) / 2
    torch.testing.assert_close(maps.values[0, 0], by_hand)
    assert maps.affine.tolist() == cells(image.shape[1:], by_hand.shape).tolist()


def bumps(lattice: Lattice, block: int, shape: tuple[int, ...]) -> Tensor:
    """Return each node's hat on a grid of `shape`, ``(nodes, *shape)``."""
    hats = np.ones((1, 1))
    for size, shift in zip(shape, lattice._shift(block * lattice.block), strict=True):
        place = (np.arange(size) + 0.5) / size * lattice.count - float(shift)
        nodes = np.arange(lattice.count + 1)
        # outside of the lattice the outermost node goes on, as `np.interp` has it
        axis = np.stack([np.interp(place, nodes, nodes == node) for node in nodes])
        hats = np.kron(hats, axis)
    return torch.from_numpy(hats).reshape(-1, *shape)


@pytest.mark.parametrize("axes", AXES)
def test_masks_show_each_place_in_half_of_their_sum(axes: int) -> None:
    lattice = Lattice(image_for(axes), 5, 2)
    masks = lattice.masks(0, 10)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert masks.shape == (10, 1, *SIZES[axes])
    torch.testing.assert_close(masks[::2] + masks[1::2], torch.ones_like(masks[::2]))


def test_signs_of_a_whole_matrix_are_orthogonal_and_cancel_pairs() -> None:
    lattice = Lattice(image_for(), 4, 0)
    signs = lattice.signs(0, lattice.block)
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    eye = torch.eye(lattice.nodes, dtype=signs.dtype)
    torch.testing.assert_close(signs.T @ signs / lattice.block, eye)
    aliased = torch.einsum("ij,ik,il->jkl", signs, signs, signs)[:, 0, 1:]
    assert aliased.abs().max() == 0


def test_a_seed_orders_sylvesters_matrix_as_it_always_did() -> None:
    """Maps that were made before can be made again: the choices, and their order, stay."""
    lattice = Lattice(image_for(), 4, 9)
    generator = torch.Generator().manual_seed((9 << 20) + 1)
    rows = torch.randperm(32, generator=generator).tolist()
    columns = torch.randperm(32, generator=generator)[:25].tolist()
    flips = torch.randint(2, (25,), generator=generator).tolist()
    by_hand = [
        [
            (-1.0) ** ((row & column).bit_count() + flip + complement)
            for column, flip in zip(columns, flips, strict=True)
        ]
        for row in rows
        for complement in (0, 1)
    ]
    assert lattice.signs(64, 128).tolist() == by_hand


def test_half_as_many_masks_have_the_error_of_independent_ones() -> None:
    """Mean squared error over seeds, against the mean of a great many masks."""
    image, net, runtime = image_for(seed=1), small_net(), small_runtime()
    truth = independent(net, image, 8192, 99)
    methods = [Rise(samples=64, cells=3, baseline=BASELINE, seed=seed) for seed in range(16)]
    ours = [attribute(each, runtime, image, logits(2)).values[0, 0] for each in methods]
    plain = [independent(net, image, 128, seed) for seed in range(16)]
    assert error(ours, truth) < error(plain, truth)


def error(maps: list[Tensor], truth: Tensor) -> float:
    return float(torch.stack([(each - truth).square().mean() for each in maps]).mean())


def independent(net: SmallNet, image: Tensor, samples: int, seed: int) -> Tensor:
    """Return the map by the paper's recipe: bits and shift of each mask drawn alone."""
    generator = torch.Generator().manual_seed(seed)
    bits = (torch.rand(samples, 4, 4, generator=generator) < 0.5).double()
    shift = torch.rand(samples, 2, generator=generator, dtype=torch.float64) - 0.5
    masks, fine = (drawn(bits, shift, shape) for shape in (image.shape[1:], (12, 12)))
    scores = masked_scores(net, image, masks[:, None])[:, 2]
    return torch.einsum("n,nab->ab", scores - scores.mean(), fine) * 4 / samples


def drawn(bits: Tensor, shift: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate each mask's bits on its own shifted lattice."""
    hats = []
    for axis, size in enumerate(shape):
        place = (torch.arange(size, dtype=torch.float64) + 0.5) * 3 / size
        at = (place - shift[:, axis, None]).clamp(0, 3)
        hats.append((1 - (at[..., None] - torch.arange(4)).abs()).clamp(min=0))
    return torch.einsum("nij,nai,nbj->nab", bits, *hats)


def test_the_seed_alone_decides_the_masks() -> None:
    image, runtime = image_for(), small_runtime()

    def run(method: Method, **options: int) -> Maps:
        return attribute(method, runtime, image, logits(0, 4), **options)

    first = run(Rise(samples=40, seed=5))
    assert torch.equal(first.values, run(Rise(samples=40, seed=5)).values)
    assert not torch.allclose(first.values, run(Rise(samples=40, seed=6)).values, atol=1e-3)
    in_chunks = run(Rise(samples=40, seed=5), chunk=7)
    torch.testing.assert_close(in_chunks.values, first.values)


def test_targets_share_the_rows_and_do_not_change_each_other() -> None:
    image, runtime = image_for(), small_runtime()
    method = Rise(samples=32)
    together = attribute(method, runtime, image, logits(0, 4))
    assert sum(runtime.served.batches) == 32
    alone = attribute(method, runtime, image, logits(4))
    torch.testing.assert_close(together.values[1:], alone.values)


def test_when_time_is_up_the_map_of_whole_pairs_is_returned() -> None:
    image, runtime = image_for(), small_runtime()
    maps = stopped(Rise(samples=64, seed=3).plan(image, logits(1)), runtime, 41)
    assert maps.partial
    assert maps.extras == ({"samples": 40.0},)
    whole = attribute(Rise(samples=40, seed=3), runtime, image, logits(1))
    torch.testing.assert_close(maps.values, whole.values)


@pytest.mark.parametrize(("samples", "rows"), [(64, 31), (8192, 255)])
def test_of_less_than_half_of_the_masks_or_two_matrices_there_is_no_map(
    samples: int, rows: int
) -> None:
    image, runtime = image_for(), small_runtime()
    with pytest.raises(TimeUp):
        stopped(Rise(samples=samples).plan(image, logits(1)), runtime, rows)
    assert stopped(Rise(samples=samples).plan(image, logits(1)), runtime, rows + 1).partial


@pytest.mark.parametrize("axes", [2, 3])
def test_float32_through_the_scheduler_equals_float64(axes: int) -> None:
    image = image_for(axes, dtype=torch.float32)
    method = Rise(samples=64, cells=3)
    runtime = small_runtime(axes, dtype=torch.float32)
    (maps,) = through(Scheduler(), runtime, method.plan(image, logits(0)))
    exact = attribute(method, small_runtime(axes), image.double(), logits(0))
    assert maps.values.dtype == torch.float32
    span = (exact.values.max() - exact.values.min()).item()
    assert (maps.values.double() - exact.values).abs().max().item() <= 1e-5 * span


def test_an_odd_number_of_masks_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2"):
        Rise(samples=33)
