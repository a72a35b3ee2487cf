"""Superpixels, and what all methods that hide them promise."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from service.errors.models import MethodError
from service.manifests import read_manifest
from tests.support.coalitions import per_segment
from tests.support.engine import (
    Polynomial,
    attribute,
    image_for,
    logits,
    small_runtime,
    stopped,
    through,
)
from workers.methods.base import Maps, Method
from workers.methods.feature_ablation import FeatureAblation
from workers.methods.kernel_shap import KernelShap
from workers.methods.lime import Lime
from workers.methods.rise import Rise
from workers.methods.shapley_sampling import ShapleySampling
from workers.methods.superpixels import PIXELS, grid_of, segmented
from workers.passes import TimeUp
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.torch import TorchRuntime
from workers.runtimes.torch_opener import TorchOpener
from workers.scheduler import Scheduler

AXES = [1, 2, 3]
MODEL = Path(__file__).parents[3] / "models" / "chest-phantom"
METHODS_OF_SEGMENTS: list[Callable[..., Method]] = [
    FeatureAblation,
    KernelShap,
    Lime,
    ShapleySampling,
]
FEW: dict[Callable[..., Method], dict[str, int]] = {
    FeatureAblation: {"segments": 9},
    KernelShap: {"segments": 9, "samples": 40},
    Lime: {"segments": 9, "samples": 40},
    ShapleySampling: {"segments": 9, "orders": 4},
}


@pytest.mark.parametrize(
    ("sizes", "count", "grid"),
    [
        ((128, 128), 49, (7, 7)),
        ((20, 16), 50, (8, 6)),
        ((64, 64, 64), 64, (4, 4, 4)),
        ((4, 500, 500), 64, (1, 8, 8)),
        ((3, 2), 512, (3, 2)),
        ((32,), 9, (9,)),
    ],
)
def test_the_grid_has_about_as_many_cells_as_wanted(
    sizes: tuple[int, ...], count: int, grid: tuple[int, ...]
) -> None:
    assert grid_of(sizes, count) == grid


@pytest.mark.parametrize("axes", AXES)
def test_every_pixel_is_in_one_of_the_segments_and_none_is_empty(axes: int) -> None:
    labels = segmented(image_for(axes, 2), 9)
    numbers, sizes = labels.unique(return_counts=True)
    assert labels.shape == image_for(axes).shape[1:]
    assert numbers.tolist() == list(range(len(numbers)))
    assert 6 <= len(numbers) <= 9
    assert sizes.min() > 0


def test_an_image_without_contrast_is_cut_into_squares() -> None:
    labels = segmented(torch.full((1, 30, 30), 7.0), 9)
    squares = torch.arange(9).reshape(3, 3).repeat_interleave(10, 0).repeat_interleave(10, 1)
    assert torch.equal(labels, squares)


@pytest.mark.parametrize("axes", [2, 3])
def test_segments_end_where_a_bright_disk_ends(axes: int) -> None:
    """The disk lies across cells; k-means moves their borders to its edge."""
    places = torch.meshgrid(*[torch.arange(32.0)] * axes, indexing="ij")
    inside = sum((place - 14.3) ** 2 for place in places) < 81
    labels = segmented(inside[None] * 3.0, 4**axes)
    of_disk = torch.bincount(labels[inside], minlength=int(labels.max()) + 1)
    all_ = torch.bincount(labels.flatten())
    mixed = torch.minimum(of_disk, all_ - of_disk).sum() / inside.sum()
    home = _mixed_of_squares(inside, 4)
    assert mixed < 0.1 < home


def _mixed_of_squares(inside: Tensor, count: int) -> float:
    """Return the share of the disk that squares would mix with its surroundings."""
    squares = segmented(torch.zeros(1, *inside.shape), count ** inside.dim())
    of_disk = torch.bincount(squares[inside], minlength=count ** inside.dim())
    return float(torch.minimum(of_disk, torch.bincount(squares.flatten()) - of_disk).sum()) / float(
        inside.sum()
    )


def test_segments_do_not_depend_on_brightness_and_scale() -> None:
    image = image_for(2, dtype=torch.float32)
    assert torch.equal(segmented(image, 20), segmented(image * 8 - 2, 20))


def test_of_a_large_image_blocks_are_clustered() -> None:
    side = 2 * int(PIXELS**0.5)
    small = image_for(2).repeat(1, 16, 20)[:, : side // 2, : side // 2]
    large = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    wide = segmented(small, 49).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(segmented(large, 49), wide)


def test_an_image_of_one_pixel_is_refused() -> None:
    with pytest.raises(MethodError):
        segmented(torch.ones(1, 1, 1), 4)


@pytest.mark.parametrize("kind", METHODS_OF_SEGMENTS)
@pytest.mark.parametrize("axes", AXES)
def test_of_a_linear_model_each_segment_gets_its_own_part(
    kind: Callable[..., Method], axes: int
) -> None:
    image = image_for(axes, 2)
    model = Polynomial(image.shape)
    with torch.no_grad():
        model.w2.zero_()
    options = {"ridge": 1e-9} if kind is Lime else {}
    method = kind(**FEW[kind], baseline=0.25, **options)
    maps = attribute(method, TorchRuntime(model, image.shape), image, logits(0))
    labels = segmented(image, 9)
    by_hand = (model.w1 * (image - 0.25)).detach().sum(0).flatten()
    expected = torch.zeros(int(labels.max()) + 1, dtype=torch.float64)
    expected.index_add_(0, labels.flatten(), by_hand)
    torch.testing.assert_close(of_segments(method, maps, labels)[0], expected)


def of_segments(method: Method, maps: Maps, labels: Tensor) -> Tensor:
    """Return each segment's value ``(K, segments)``: shared by its pixels, or on all of them."""
    total = per_segment(maps, labels)
    shared = isinstance(method, KernelShap | ShapleySampling)
    return total if shared else total / torch.bincount(labels.flatten())


@pytest.mark.parametrize("kind", METHODS_OF_SEGMENTS)
def test_targets_share_the_rows_and_chunks_do_not_matter(kind: Callable[..., Method]) -> None:
    image, runtime = image_for(), small_runtime()
    method = kind(**FEW[kind])
    together = attribute(method, runtime, image, logits(0, 4))
    assert sum(runtime.served.batches) <= method.estimate(image.shape, 2).rows
    alone = attribute(method, runtime, image, logits(4), chunk=7)
    torch.testing.assert_close(together.values[1:], alone.values)
    assert together.values.std() > 1e-3


@pytest.mark.parametrize("kind", METHODS_OF_SEGMENTS[1:])
def test_the_seed_alone_decides(kind: Callable[..., Method]) -> None:
    image, runtime = image_for(), small_runtime()
    first, same, other = (
        attribute(kind(**FEW[kind], seed=seed), runtime, image, logits(1)).values
        for seed in (5, 5, 6)
    )
    assert torch.equal(first, same)
    assert not torch.allclose(first, other, atol=1e-6)


@pytest.mark.parametrize("kind", METHODS_OF_SEGMENTS[1:])
def test_when_time_is_up_what_is_known_is_returned(kind: Callable[..., Method]) -> None:
    image = image_for()
    method = kind(**FEW[kind], baseline=0.25)
    maps = stopped(method.plan(image, logits(1)), small_runtime(), 32)
    assert maps.partial
    if "score_change" in maps.extras[0]:
        total = maps.values.sum().item()
        assert total == pytest.approx(maps.extras[0]["score_change"], rel=1e-9)
    whole = attribute(method, small_runtime(), image, logits(1))
    assert torch.corrcoef(torch.stack([maps.values, whole.values]).flatten(1))[0, 1] > 0.7


@pytest.mark.parametrize("kind", METHODS_OF_SEGMENTS)
def test_with_nothing_known_there_is_no_map(kind: Callable[..., Method]) -> None:
    with pytest.raises(TimeUp):
        stopped(kind(**FEW[kind]).plan(image_for(), logits(1)), small_runtime(), 1)


@pytest.fixture(scope="module")
def engines() -> tuple[TorchRuntime, OnnxRuntime]:
    """Return the demo model on both engines."""
    manifest = read_manifest((MODEL / "model.yaml").read_bytes())
    shape = (1, 128, 128)
    opened = TorchOpener().open(manifest, MODEL, shape, torch.device("cpu"))
    return opened(), OnnxRuntime(read_model((MODEL / "model.onnx").read_bytes()), shape)


@pytest.mark.parametrize("kind", [Rise, *METHODS_OF_SEGMENTS])
def test_onnxruntime_gives_what_torch_gives(
    kind: Callable[..., Method], engines: tuple[TorchRuntime, OnnxRuntime]
) -> None:
    image = functional.interpolate(image_for(dtype=torch.float32)[None], (128, 128))[0]
    options = {"samples": 24} if kind is Rise else FEW[kind]
    method = kind(**options, baseline=-1.666667)
    (theirs,), (ours,) = (
        through(Scheduler(), engine, method.plan(image, logits(0, 2))) for engine in engines
    )
    span = (theirs.values.max() - theirs.values.min()).item()
    assert span > 0
    assert (ours.values - theirs.values).abs().max().item() <= 1e-4 * span
