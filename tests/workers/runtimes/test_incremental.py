"""Patched rows computed in windows: the same numbers as from whole rows, or whole rows."""

import gc
import math
from collections.abc import Callable, Iterator
from itertools import cycle, product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.engine import CONV, FLAT, NORM, POOL, attribute, logits
from workers.architectures.residual_cnn import ResidualCnn
from workers.methods.occlusion import Occlusion
from workers.passes import Forward, Gradient, Tap
from workers.rows import INPUT, Blurred, Box, Boxed, Patched
from workers.running import Planned
from workers.runtimes.base import Segment
from workers.runtimes.incremental import rows as incremental_rows
from workers.runtimes.incremental.network import Network
from workers.runtimes.incremental.rows import PLACES, Incremental
from workers.runtimes.incremental.trace import UntraceableError
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.union import work_of

SIZES = {1: (67,), 2: (45, 38), 3: (21, 18, 23)}
MEAN = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Residual(nn.Module):
    """In-place rectification, in-place sums, a strided shortcut, dilation."""

    def __init__(self, axes: int, entry: int, width: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = CONV[axes](entry, width, 3, stride, dilation, dilation, bias=False)
        self.norm = NORM[axes](width)
        self.second = CONV[axes](width, width, 3, padding="same", dilation=dilation)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity() if stride == 1 else CONV[axes](entry, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        way = self.second(self.relu(self.norm(self.first(x))))
        way += self.shortcut(x)
        return functional.relu(way, inplace=True)


class Dense(nn.Module):
    """Norm and rectification first; the output is put beside the input."""

    def __init__(self, axes: int, entry: int) -> None:
        super().__init__()
        self.way = nn.Sequential(
            NORM[axes](entry), nn.ReLU(), CONV[axes](entry, 4, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.way(x)], 1)


def residual(axes: int) -> nn.Module:
    blocks = (Residual(axes, 6, 6, 1), Residual(axes, 6, 8, 2), Residual(axes, 8, 8, 1, 2))
    stem = (CONV[axes](2, 6, 7, 2, 3), NORM[axes](6), nn.ReLU(True), POOL[axes](3, 2, 1))
    return nn.Sequential(*stem, *blocks, FLAT[axes](1), nn.Flatten(), nn.Linear(8, 5))


def dense(axes: int) -> nn.Module:
    ways = (Dense(axes, 4), Dense(axes, 8), CONV[axes](12, 6, 1), MEAN[axes](2), Dense(axes, 6))
    head = (NORM[axes](10), nn.SiLU(), FLAT[axes](1), nn.Flatten(), nn.Linear(10, 5))
    return nn.Sequential(CONV[axes](2, 4, 3, 2, 1), *ways, *head)


def odd(axes: int) -> nn.Module:
    """Valid and uneven convolutions, pooling that rounds up, strides that leave cells out."""
    return nn.Sequential(
        CONV[axes](2, 4, 2, 3, padding="valid"),
        nn.LeakyReLU(),
        POOL[axes](2, 2, 1, ceil_mode=True),
        nn.Dropout(0.5),
        CONV[axes](4, 8, 3, 1, 2, groups=2),
        nn.Hardswish(),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


class Gated(nn.Module):
    """A gate over the whole grid, in the middle: windows end there."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.before = CONV[axes](2, 4, 3, padding=1)
        self.gate = nn.Sequential(FLAT[axes](1), CONV[axes](4, 4, 1), nn.Sigmoid())
        self.after = CONV[axes](4, 4, 3, 2, padding=1, padding_mode="reflect")
        self.scale = nn.Parameter(torch.full((1, 4, *(1,) * axes), 1.5))
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x).relu_().square()
        x = self.after(x * self.gate(x)).sigmoid() * self.scale - 0.25
        return self.head(x.flatten(2).mean(-1))


def demo(axes: int) -> nn.Module:
    assert axes == 2
    return ResidualCnn(
        channels=2, classes=5, widths=(8, 8), strides=(2, 1), dilations=(1, 2)
    ).build()


NETS = [*product((residual, dense, odd, Gated), (1, 2, 3)), (demo, 2)]


@pytest.fixture(params=NETS, ids=[f"{net.__name__}-{axes}" for net, axes in NETS])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, axes = request.param
    return prepared(make(axes), axes), image_of(axes)


def prepared(net: nn.Module, axes: int) -> nn.Module:
    """Return a network with initialized weights and statistics that are not trivial."""
    torch.manual_seed(5)
    net(torch.randn(2, 2, *SIZES[axes]))
    for module in net.modules():
        if isinstance(module, tuple(NORM.values())):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return net.double().eval().requires_grad_(requires_grad=False)


def image_of(axes: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *SIZES[axes], generator=generator, dtype=torch.float64)


def boxes_of(axes: int) -> tuple[Box, ...]:
    """Return boxes at the corners, across borders' reach, of one cell, of all, and of none."""
    sizes = SIZES[axes]
    near = tuple(slice(0, 5) for _ in sizes)
    far = tuple(slice(size - 4, size) for size in sizes)
    mixed = tuple(slice(0, 3) if k % 2 else slice(n - 6, n) for k, n in enumerate(sizes))
    middle = tuple(slice(size // 2, size // 2 + 3) for size in sizes)
    cell = tuple(slice(size // 3, size // 3 + 1) for size in sizes)
    return near, far, mixed, middle, cell, (slice(4, 4),) * axes, (slice(None),) * axes


def blurred(image: Tensor, boxes: tuple[Box, ...]) -> Blurred:
    """Return rows in each of which a box is mixed with another image, each cell otherwise."""
    share = torch.rand(1, *image.shape[1:], dtype=image.dtype)
    return Blurred(image, boxes, image.flip(1), lambda row: share[(..., *boxes[row])])


def whole(net: nn.Module, rows: Boxed) -> Tensor:
    """Return the outputs of rows written out and run as they are."""
    batch = torch.empty(rows.count, *rows.image.shape, dtype=rows.image.dtype)
    rows.fill({INPUT: batch}, 0, rows.count)
    return net(batch)


def segment(rows: Boxed, start: int = 0, stop: int | None = None) -> Segment:
    return Segment(work_of([Forward(rows, logits(0))]), start, stop or rows.count)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are always held to be cheaper, and found to be quicker."""
    monkeypatch.setattr(incremental_rows, "WORTH", math.inf)
    whole_then_windows = cycle((1.0, 0.0))
    monkeypatch.setattr(incremental_rows, "_seconds", lambda *_: next(whole_then_windows))


@pytest.fixture
def windows(eager: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Rows that were computed in windows."""
    assert eager is None
    counted: list[int] = []
    true = Network.outputs

    def count(self: Network, clean: list[Tensor], rows: Tensor, layouts: list[object]) -> Tensor:
        counted.append(len(rows))
        return true(self, clean, rows, layouts)

    monkeypatch.setattr(Network, "outputs", count)
    return counted


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_windows_give_what_whole_rows_give(
    case: tuple[nn.Module, Tensor], value: float, windows: list[int]
) -> None:
    net, image = case
    ability = Incremental.of(net, image_of(image.dim() - 1, seed=9))
    assert ability is not None
    windows.clear()
    boxes = boxes_of(image.dim() - 1)
    expected = whole(net, Patched(image, boxes, value))
    assert (expected[:3] - net(image[None])).abs().max() > 1e-6, "the boxes must matter"
    for chosen in (boxes[:1], boxes[1:2], boxes[:5], boxes[3:6]):
        rows = Patched(image, chosen, value)
        torch.testing.assert_close(
            ability.outputs([segment(rows)]), whole(net, rows), rtol=1e-12, atol=1e-12
        )
    assert windows == [1, 1, 5, 3]
    rows = Patched(image, boxes, value)
    torch.testing.assert_close(ability.outputs([segment(rows)]), expected, rtol=1e-12, atol=1e-12)
    assert len(windows) == 4, "a box of the whole image leaves nothing to spare"


def test_windows_give_what_whole_rows_give_where_boxes_are_blurred(
    case: tuple[nn.Module, Tensor], windows: list[int]
) -> None:
    net, image = case
    ability = Incremental.of(net, image_of(image.dim() - 1, seed=9))
    assert ability is not None
    windows.clear()
    rows = blurred(image, boxes_of(image.dim() - 1)[:5])
    expected = whole(net, rows)
    assert (expected[:3] - net(image[None])).abs().max() > 1e-6, "the boxes must matter"
    found = ability.outputs([segment(rows, 0, 2), segment(rows, 2)])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert windows == [2, 3]


def test_less_is_multiplied(case: tuple[nn.Module, Tensor]) -> None:
    net, image = case
    network = Network(net, image[None])
    middle = tuple((size // 2, size // 2 + 2) for size in image.shape[1:])
    share = network.share(network.layouts([middle]))
    assert share < 1 or image.dim() == 2, "in one axis the reach soon is the whole"


def test_windows_grow_by_each_layers_reach() -> None:
    """Two kernels of 3 see 2 more cells on each side; a stride of 2 halves the window."""
    net = nn.Sequential(
        nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 3, padding=1), nn.MaxPool1d(2)
    ).requires_grad_(requires_grad=False)
    found = Network(net, torch.zeros(1, 1, 40)).layouts([((10, 14),), ((0, 4),)])
    assert found == [
        ((4,), ((10,), (0,))),
        ((6,), ((9,), (0,))),
        ((8,), ((8,), (0,))),
        ((4,), ((4,), (0,))),
    ]


class Branching(nn.Module):
    """Goes another way for another image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] if x.sum() > 0 else x.flatten(1)[:, 1:4]


class Overwriting(nn.Module):
    """Uses a value after it was changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        rectified = self.relu(x)
        return (x - 2 * rectified).flatten(1)[:, 300:700]


class Clamping(nn.Module):
    """Changes a value in place by a statement, where noise does not show it."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.next = nn.Conv2d(4, 4, 3, padding=1)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.change(x)
        return self.next(x).flatten(1)[:, 300:700]


def rectified_then_clamped(x: Tensor) -> None:
    functional.relu(x.view(x.shape))
    x.clamp_(max=50)


CLAMPS: tuple[Callable[[Tensor], object], ...] = (
    lambda x: x.clamp_(-50, 50),
    lambda x: torch.clamp_(x, -50, 50),
    lambda x: functional.hardtanh_(x, -50, 50),
    lambda x: x.masked_fill_(x > 50, 50),
    lambda x: x.view(4, -1).clamp_(-50, 50),
    nn.Hardtanh(-50, 50, inplace=True),
    nn.Threshold(-50, 0, inplace=True),
    rectified_then_clamped,
)


class Drawing(nn.Module):
    """Adds noise: no two runs are alike."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + torch.randn_like(x)).flatten(1)[:, :3]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("net", [Branching(), Overwriting(), *map(Clamping, CLAMPS), Drawing()])
def test_what_cannot_be_followed_exactly_is_run_whole(net: nn.Module) -> None:
    assert Incremental.of(net.double().eval(), image_of(2)) is None


def test_what_has_nothing_to_spare_is_run_whole() -> None:
    with pytest.raises(UntraceableError):
        Incremental(nn.Flatten(), image_of(2))


def test_a_way_that_is_slower_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental_rows, "WORTH", math.inf)
    monkeypatch.setattr(incremental_rows, "_seconds", lambda *_: 1.0)
    assert Incremental.of(prepared(residual(2), 2), image_of(2)) is None


def runtime_of(dtype: torch.dtype = torch.float64, **options: int) -> TorchRuntime:
    net = prepared(residual(2), 2).to(dtype)
    runtime = TorchRuntime(net, (2, *SIZES[2]), (), **options)
    assert not runtime.probed.mixes_rows
    return runtime


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_occlusion_is_the_same_alone_batched_and_whole(
    dtype: torch.dtype, windows: list[int]
) -> None:
    runtime, image = runtime_of(dtype), image_of(2).to(dtype)
    method = Occlusion(window=(8, 5), stride=4, baseline=0.5)
    plain = runtime_of(dtype)
    plain.__dict__["_incremental"] = None
    expected = attribute(method, plain, image, logits(1, 3)).values
    assert not windows
    score = plain.model(image[None]).abs().max().item()
    for chunk in (1, 7, 1_000):
        windows.clear()
        found = attribute(method, runtime, image, logits(1, 3), chunk=chunk).values
        assert sum(windows) >= method.estimate(image.shape, 2).rows - 1
        allowed = 8 * torch.finfo(dtype).eps * score
        torch.testing.assert_close(found, expected, rtol=0, atol=allowed)
    runtime.check()


def test_jobs_on_several_images_share_batches_and_never_mix(windows: list[int]) -> None:
    runtime = runtime_of()
    images = [image_of(2, seed) for seed in range(PLACES + 2)]
    method = Occlusion(window=8, baseline=0.0)
    expected = [attribute(method, runtime, image, logits(2)).values for image in images]
    windows.clear()
    scheduler = Scheduler(slice_seconds=10)
    jobs = [
        scheduler.submit(f"{k}", runtime, [Planned(method.plan(image, logits(2)), 100)])
        for k, image in enumerate(images)
    ]
    scheduler.run_until_idle()
    assert windows
    for job, values in zip(jobs, expected, strict=True):
        (maps,) = job.result(0).outcomes
        torch.testing.assert_close(maps.values, values, rtol=1e-12, atol=1e-13)


def test_clean_values_go_with_their_image_and_have_few_places(windows: list[int]) -> None:
    net = prepared(residual(2), 2)
    ability = Incremental(net, image_of(2))
    windows.clear()
    boxes = boxes_of(2)[:2]
    held = [Patched(image_of(2, seed), boxes, 0.0) for seed in range(PLACES + 1)]
    for rows in held:
        torch.testing.assert_close(ability.outputs([segment(rows)]), whole(net, rows))
    assert len(windows) == PLACES
    last = held.pop()
    held.clear()
    del rows
    gc.collect()
    torch.testing.assert_close(ability.outputs([segment(last)]), whole(net, last))
    assert len(windows) == PLACES + 1


@pytest.mark.usefixtures("eager")
def test_the_deterministic_mode_computes_whole_rows() -> None:
    assert runtime_of(fixed_rows=4)._incremental is None
    assert runtime_of()._incremental is not None


@pytest.mark.usefixtures("eager")
def test_gradients_and_layer_outputs_of_patched_rows_take_the_usual_way() -> None:
    runtime = runtime_of()
    rows = Patched(image_of(2), boxes_of(2)[:2], 0.0)
    assert runtime.group(work_of([Forward(rows, logits(0))])).boxed
    assert runtime.group(work_of([Forward(rows, outputs=True)])).boxed
    assert not runtime.group(work_of([Gradient(rows, logits(0))])).boxed
    assert not runtime.group(work_of([Forward(rows, logits(0), taps=(Tap(INPUT),))])).boxed
