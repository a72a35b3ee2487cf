"""Occlusion from coarse to fine: exact where tried, near elsewhere, and never without end."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.phantom.samples import read
from service.manifests import read_manifest
from tests.support.engine import (
    Polynomial,
    attribute,
    image_for,
    logits,
    small_runtime,
    stopped,
    through,
)
from workers.methods.occlusion import Occlusion
from workers.methods.windows import Search, Windows, asked_for
from workers.passes import TimeUp
from workers.runtimes.torch import TorchRuntime
from workers.runtimes.torch_opener import TorchOpener
from workers.scheduler import Scheduler

ROOT = Path(__file__).parents[3]
AXES = [1, 2, 3]


def searched(truth: Tensor, budget: int) -> Search:
    """Answer a search out of numbers that are known, shape ``(K, *lattice)``."""
    search = Search(truth.shape[1:], len(truth), budget)
    for places in search.rounds():
        search.learn(places, truth.flatten(1)[:, places].T)
    return search


def ranks(values: Tensor) -> NDArray[np.int64]:
    return values.flatten().numpy().argsort(kind="stable").argsort(kind="stable")


def spearman(first: Tensor, second: Tensor) -> float:
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def bumps(sizes: tuple[int, ...]) -> Tensor:
    """Return a smooth positive bump and a negative one elsewhere, as two targets."""
    places = torch.meshgrid(*(torch.linspace(0, 1, n).double() for n in sizes), indexing="ij")
    at = [sum((place - center) ** 2 for place in places) for center in (0.3, 0.7)]
    return torch.stack([torch.exp(-at[0] / 0.05), -torch.exp(-at[1] / 0.02)])


@pytest.mark.parametrize("sizes", [(40,), (29, 31), (12, 11, 10), (1, 30, 30)])
def test_the_budget_is_kept_and_no_place_is_tried_twice(sizes: tuple[int, ...]) -> None:
    for share in (0.05, 0.125, 0.5, 0.99):
        budget = math.ceil(share * math.prod(sizes))
        search = Search(sizes, 1, budget)
        seen: list[int] = []
        for places in search.rounds():
            seen += places.tolist()
            search.learn(places, torch.zeros(len(places), 1).double())
        assert len(seen) == len({*seen}) == search.tried <= asked_for(sizes, budget)


@pytest.mark.parametrize("sizes", [(40,), (29, 31), (12, 11, 10), (1, 30, 30)])
def test_what_is_tried_is_exact_and_planes_are_exact_everywhere(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(2, *sizes, generator=generator, dtype=torch.float64)
    search = Search(sizes, 2, math.prod(sizes) // 4)
    tried: list[int] = []
    for places in search.rounds():
        tried += places.tolist()
        search.learn(places, truth.flatten(1)[:, places].T)
    assert torch.equal(search.values().flatten(1)[:, tried], truth.flatten(1)[:, tried])
    plane = sum(
        (k + 2.0) * torch.arange(float(n)).reshape(-1, *(1,) * (len(sizes) - k - 1))
        for k, n in enumerate(sizes)
    )
    flat = torch.as_tensor(plane).double().expand(1, *sizes)
    torch.testing.assert_close(searched(flat, math.prod(sizes) // 8).values(), flat)


@pytest.mark.parametrize("sizes", [(64,), (29, 29), (15, 15, 15)])
def test_an_eighth_of_a_smooth_fall_gives_its_ranks(sizes: tuple[int, ...]) -> None:
    truth = bumps(sizes)
    search = searched(truth, math.prod(sizes) // 8)
    assert search.tried <= math.prod(sizes) // 8
    for ours, theirs in zip(search.values(), truth, strict=True):
        assert spearman(ours, theirs) > 0.95


def test_most_is_tried_where_numbers_change_most() -> None:
    truth = bumps((33, 33))[:1]
    search = searched(truth, 33 * 33 // 8)
    rows, columns = torch.where(search._known)
    near = ((rows / 32 - 0.3) ** 2 + (columns / 32 - 0.3) ** 2) < 0.09
    area = math.pi * 0.09
    assert near.double().mean() > 1.5 * area


@pytest.mark.parametrize("axes", AXES)
def test_windows_average_over_those_that_cover_a_cell(axes: int) -> None:
    windows = Windows(6, 4, (20, 13, 9)[:axes])
    falls = torch.randn(2, *windows.shape, dtype=torch.float64)
    grid = [math.ceil(n / 2) for n in windows.sizes]
    total, count = torch.zeros(2, *grid).double(), torch.zeros(*grid)
    for place, box in zip(product(*map(range, windows.shape)), windows.boxes(), strict=True):
        cells = tuple(slice(span.start // 2, math.ceil(span.stop / 2)) for span in box)
        total[(slice(None), *cells)] += falls[(slice(None), *place)].reshape(2, *(1,) * axes)
        count[cells] += 1
    torch.testing.assert_close(windows.averaged(falls, 2), total / count)


@pytest.mark.parametrize("axes", AXES)
def test_with_every_window_tried_the_map_is_the_full_one(axes: int) -> None:
    image, runtime = image_for(axes), small_runtime(axes)
    full = attribute(Occlusion(window=4), runtime, image, logits(1, 3))
    refined = attribute(Occlusion(window=4, refine=0.9999), runtime, image, logits(1, 3))
    torch.testing.assert_close(refined.values, full.values)
    (extras, _) = refined.extras
    assert (
        extras["tried"]
        == extras["windows"]
        == Occlusion(window=4).estimate(image.shape, 1).rows - 1
    )


def test_only_the_share_goes_through_the_model() -> None:
    image, runtime = image_for(), small_runtime()
    method = Occlusion(window=(4, 8), stride=1, refine=0.2)
    maps = attribute(method, runtime, image, logits(0, 2))
    assert sum(runtime.served.batches) == method.estimate(image.shape, 2).rows
    assert maps.extras[0] == {"windows": 17 * 13 + 13 * 9, "tried": 45 + 24}
    assert maps.values.shape == (2, 1, 20, 16)
    assert not maps.partial


def sloping() -> tuple[TorchRuntime, Tensor]:
    """Return a model and an image of which windows' falls lie on a plane."""
    image = torch.ones(1, 20, 16, dtype=torch.float64)
    model = Polynomial(image.shape)
    with torch.no_grad():
        model.w2.zero_()
        model.w1.copy_(torch.arange(20.0)[:, None] * 0.5 + torch.arange(16.0) * 0.25 - 3)
    return TorchRuntime(model, image.shape), image


@pytest.mark.parametrize("rows", [0, 5, 14])
def test_when_time_is_up_between_rounds_the_map_so_far_is_returned(rows: int) -> None:
    runtime, image = sloping()
    method = Occlusion(window=(4, 6), stride=2, refine=0.5)
    lattices = method.lattices((20, 16))
    first = sum(asked_first(each.shape, math.ceil(0.5 * each.count)) for each in lattices)
    maps = stopped(method.plan(image, logits(0)), runtime, 1 + first + rows)
    assert maps.partial
    assert maps.extras[0]["tried"] == first + rows
    full = attribute(Occlusion(window=(4, 6), stride=2), runtime, image, logits(0))
    torch.testing.assert_close(maps.values, full.values)  # on a plane, nothing is lost


def asked_first(shape: tuple[int, ...], budget: int | None = None) -> int:
    return len(next(Search(shape, 1, budget).rounds()))


@pytest.mark.parametrize("windows", [4, (4, 6)])
def test_all_windows_come_from_coarse_to_fine_and_the_missing_are_interpolated(
    windows: int | tuple[int, ...],
) -> None:
    runtime, image = sloping()
    method = Occlusion(window=windows, stride=2)
    lattices = method.lattices((20, 16))
    first = sum(asked_first(each.shape) for each in lattices)
    every = sum(each.count for each in lattices)
    assert first < every / 4
    full = attribute(method, runtime, image, logits(0))
    for tried in (first, first + 7, every - 1):
        maps = stopped(method.plan(image, logits(0)), runtime, 1 + tried)
        assert maps.partial
        assert maps.extras[0] == {"windows": every, "tried": tried}
        torch.testing.assert_close(maps.values, full.values)


@pytest.mark.parametrize("refine", [0.5, None])
def test_in_the_first_round_there_is_nothing_to_return(refine: float | None) -> None:
    runtime, image = sloping()
    with pytest.raises(TimeUp):
        stopped(Occlusion(window=4, refine=refine).plan(image, logits(0)), runtime, 1 + 3)


def test_on_the_demo_model_an_eighth_of_the_windows_gives_the_picture() -> None:
    folder = ROOT / "models" / "chest-phantom"
    manifest = read_manifest((folder / "model.yaml").read_bytes())
    runtime = TorchOpener().open(manifest, folder, (1, 128, 128), torch.device("cpu"))()
    study = (ROOT / "examples" / "studies" / "chest" / "nodule.dcm").read_bytes()
    image = torch.from_numpy(read(study))[None]
    maps = [
        through(Scheduler(), runtime, method.plan(image, logits(0)))[0].values
        for method in (
            Occlusion(window=16, stride=4, baseline=-1.666667),
            Occlusion(window=16, stride=4, baseline=-1.666667, refine=0.125),
        )
    ]
    assert spearman(*maps) > 0.9
    (row, column), (near_row, near_column) = (divmod(int(each.argmax()), 32) for each in maps)
    assert max(abs(row - near_row), abs(column - near_column)) <= 1
