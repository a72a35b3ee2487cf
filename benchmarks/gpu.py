"""A CUDA device at work: maps a second, memory, and how near to what the device could do.

Jobs arrive together and go through the scheduler, as they do in a worker, in float32
without TF32 and with products in bfloat16. The roof is what the device did in the same
run: a large product in each type, and a large copy, read and write counted. A task's
least time is the larger of its multiplications at that rate and its bytes at that speed;
bytes are those that layers which take products read and write, and each weight once, as
if all else were free. Maps are compared with float64 first::

    BENCH_DEVICE=cuda python -m benchmarks.gpu [seconds a task]

The other programs compare with other libraries, on a GPU likewise by ``BENCH_DEVICE``.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cams import CLASSES, VIT, VIT_LAYER, vit
from benchmarks.contest import ALONE, Own, bare, error, loaded
from benchmarks.grad_cam import oracle
from benchmarks.measure import DEVICE, conditions, publish
from benchmarks.networks import DenseNet121, ResNet18, noise, seeded
from benchmarks.resnet50 import TARGET_LAYER, resnet50
from benchmarks.rise import correlation
from workers.device import Stopwatch, synchronize
from workers.methods.base import Method
from workers.methods.grad_cam import GradCam
from workers.methods.input_x_gradient import InputXGradient
from workers.methods.integrated_gradients import IntegratedGradients
from workers.methods.occlusion import Occlusion
from workers.methods.rise import Rise
from workers.methods.saliency import Saliency
from workers.methods.smooth_grad import SmoothGrad
from workers.runtimes.narrow import PRODUCTS
from workers.targets.scalars import ClassLogit
from workers.tokens import Tokens

SECONDS: Final = 1.2
"""Longest for which one task is warmed up, and then timed."""

WARM, TIMES, LEAST = 12, 15, 3
EDGE: Final = 8192
"""Of the square matrices whose product is the roof."""

COPIED: Final = 1 << 31
"""Bytes of the copy."""

MANY: Final = 64
TYPES: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
PACKAGES: Final = ("torch", "numpy", "nvidia-cudnn-cu13", "nvidia-cublas")


@dataclass(frozen=True, slots=True)
class Network:
    """What is explained."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layer: str
    tokens: Tokens | None = None


NETWORKS: Final = (
    Network("ResNet-50", resnet50, (3, 224, 224), TARGET_LAYER),
    Network("DenseNet-121", lambda: seeded(DenseNet121), (3, 224, 224), "norm"),
    Network("ViT-S", vit, (3, 224, 224), VIT_LAYER, VIT.tokens()),
    Network("ResNet-18 in three axes", lambda: seeded(ResNet18, 3, 1), (1, 64, 64, 64), "layer4"),
)


@dataclass(frozen=True, slots=True)
class Roofs:
    """What the device did at best."""

    products: dict[torch.dtype, float]
    """Operations a second, a multiplication and an addition counted as two."""

    copy: float
    """Bytes a second, read and written."""

    def seconds(self, dtype: torch.dtype, flops: float, elements: float) -> float:
        """Return the least time for so many operations, and elements read or written."""
        return max(flops / self.products[dtype], elements * dtype.itemsize / self.copy)


@dataclass(frozen=True, slots=True)
class Row:
    """What one row costs at least."""

    flops: int
    elements: int
    """Read or written by layers that take products."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Jobs that arrive together."""

    name: str
    methods: tuple[Method, ...]
    jobs: int = 1
    targets: int = 1
    gradient: bool = True
    """Whether rows are differentiated down to the image."""

    @property
    def maps(self) -> int:
        """How many maps all jobs give."""
        return self.jobs * self.targets * len(self.methods)

    def rows(self, shape: Sequence[int]) -> int:
        """Return how many rows of the model all jobs need at least."""
        asked = [method.estimate(shape, 1).rows for method in self.methods]
        return self.jobs * max(asked)  # methods of one job share their rows


def tasks(network: Network) -> Iterator[Task]:
    cam = GradCam(layer=network.layer)
    window = 32 if len(network.shape) == 3 else 16
    occlusion = Occlusion(window=window, stride=window // 2, baseline=0.0)
    yield Task("Grad-CAM, 1 image", (cam,), gradient=False)
    yield Task("Grad-CAM, 14 targets", (cam,), targets=CLASSES, gradient=False)
    yield Task("Grad-CAM, 8 jobs", (cam,), 8, gradient=False)
    yield Task(f"Grad-CAM, {MANY} jobs", (cam,), MANY, gradient=False)
    yield Task("Grad-CAM and two gradients, 8 jobs", (cam, Saliency(), InputXGradient()), 8)
    yield Task("integrated gradients, 32 points, 4 jobs", (IntegratedGradients(baseline=0.0),), 4)
    yield Task("SmoothGrad, 32 samples, 4 jobs", (SmoothGrad(),), 4)
    yield Task(f"occlusion, windows of {window}", (occlusion,), gradient=False)
    yield Task("RISE, 512 masks", (Rise(baseline=0.0),), gradient=False)


def roofs() -> Roofs:
    """Measure what the device can do."""
    rates = {}
    for dtype in TYPES:
        left, right = (torch.randn(EDGE, EDGE, device=DEVICE, dtype=dtype) for _ in range(2))
        rates[dtype] = 2 * EDGE**3 / usual(partial(torch.matmul, left, right))
    source = torch.ones(COPIED // 4, device=DEVICE)
    target = torch.empty_like(source)
    return Roofs(rates, 2 * COPIED / usual(lambda: target.copy_(source)))


def usual(run: Callable[[], object]) -> float:
    """Return the seconds of a run by the device's own clock, after some to warm up."""
    seconds = []
    for number in range(3 + 10):
        watch = Stopwatch(DEVICE)
        run()
        watch.stop()
        if number >= 3:
            seconds.append(watch.seconds)
    return median(seconds)


def counted(net: nn.Module, shape: Sequence[int], *, gradient: bool) -> Row:
    """Count what one row costs; a gradient reads and writes as much again as the pass did."""
    elements = 0

    def count(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal elements
        elements += inputs[0].numel() + output.numel()

    layers = [each for each in net.modules() if isinstance(each, PRODUCTS)]
    hooks = [each.register_forward_hook(count) for each in layers]
    batch = torch.zeros(1, *shape, device=DEVICE).requires_grad_(gradient)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(gradient):
        outputs = net(batch)
        if gradient:
            outputs[:, 0].sum().backward()
    for hook in hooks:
        hook.remove()
    return Row(counter.get_total_flops(), elements * (2 if gradient else 1))


def spent(run: Callable[[], object], limit: float) -> list[float]:
    """Return seconds of runs by the clock, once the scheduler knows its sizes."""
    began = time.perf_counter()
    for number in range(WARM):
        run()
        synchronize(DEVICE)
        if number >= LEAST and time.perf_counter() - began > limit:
            break
    seconds: list[float] = []
    while len(seconds) < LEAST or (len(seconds) < TIMES and sum(seconds) < limit):
        start = time.perf_counter()
        run()
        synchronize(DEVICE)
        seconds.append(time.perf_counter() - start)
    return seconds


def fidelity(own: Own, network: Network) -> dict[str, float]:
    """Return how maps compare with float64: the largest error of the range, and correlations."""
    net, image, target = network.make().double(), noise(network.shape), 3
    on_grid = network.tokens.on_grid if network.tokens else lambda output: output
    cam = oracle(net, network.layer, image, [target], on_grid)[0]
    precise = image.double()[None].requires_grad_()
    (slope,) = torch.autograd.grad(net(precise)[0, target], [precise])
    wanted = {"Grad-CAM": (GradCam(layer=network.layer), cam), "gradient": (Saliency(), slope[0])}
    found = {}
    for name, (method, expected) in wanted.items():
        values = own.one(method.plan(image, (ClassLogit(target),))).values[0]
        values = values.reshape(expected.shape)
        found[f"{name}, error"] = error(values, expected)
        found[f"{name}, correlation"] = correlation(values.double(), expected)
    return found


def measured(own: Own, network: Network, task: Task, limit: float) -> tuple[list[float], int]:
    """Return seconds of a task, and bytes of memory that it took beside what lay there."""
    images = [noise(network.shape, seed) for seed in range(task.jobs)]
    targets = tuple(ClassLogit((3 + k) % CLASSES) for k in range(task.targets))

    def run() -> None:
        # another tensor each time, as each job has: nothing is left from the run before
        fresh = [image.clone() for image in images]
        own.ask(*([each.plan(image, targets) for each in task.methods] for image in fresh))

    before = torch.cuda.memory_allocated(DEVICE) if DEVICE.type == "cuda" else 0
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats(DEVICE)
    seconds = spent(run, limit)
    peak = torch.cuda.max_memory_allocated(DEVICE) if DEVICE.type == "cuda" else 0
    return seconds, peak - before


def floors(network: Network, dtype: torch.dtype, limit: float) -> dict[str, float]:
    """Return seconds a row of the bare model, wholly of one type and channels last."""
    net = network.make().to(dtype)
    layout = torch.channels_last if len(network.shape) == 3 else torch.channels_last_3d
    if network.tokens is None:
        net = net.to(memory_format=layout)  # type: ignore[call-overload]  # torch names layouts of 2-D only
    batch = noise((MANY, *network.shape)).to(dtype)
    batch = batch.contiguous(memory_format=layout)
    return {
        f"{rows} rows": median(spent(bare(net, batch[:rows]), limit)) / rows for rows in (1, MANY)
    }


def explained(network: Network, roof: Roofs, limit: float) -> dict[str, Any]:
    """Measure all tasks on one network, in both types."""
    net = network.make().requires_grad_(requires_grad=False)
    weights = sum(each.numel() for each in net.parameters())
    rows = {kind: counted(net, network.shape, gradient=kind) for kind in (False, True)}
    runtime = loaded(net, network.shape, (network.layer,), tokens=network.tokens)
    own = Own(runtime, slice_seconds=ALONE)
    told: dict[str, Any] = {"flops a row": {str(k): row.flops for k, row in rows.items()}}
    for dtype, name in TYPES.items():
        if dtype is torch.bfloat16:
            own.runtime = own.runtime.recast(dtype)
        told[name] = {"fidelity": fidelity(own, network), "floors": floors(network, dtype, limit)}
        print(f"-- {network.name}, {name}: {told[name]}")
        for task in tasks(network):
            try:
                seconds, memory = measured(own, network, task, limit)
            except Exception as fault:  # noqa: BLE001 - the other tasks are worth having
                print(f"{task.name:40} failed: {fault!r}")
                told[name][task.name] = {"failed": repr(fault)}
                continue
            count, row = task.rows(network.shape), rows[task.gradient]
            least = roof.seconds(dtype, count * row.flops, count * row.elements + weights)
            usual_ = median(seconds)
            told[name][task.name] = {
                "seconds": seconds,
                "maps a second": task.maps / usual_,
                "rows a second": count / usual_,
                "share of the roof": least / usual_,
                "mebibytes": memory / 2**20,
            }
            print(
                f"{task.name:40} {usual_ * 1e3:9.2f} ms {task.maps / usual_:9.1f} maps/s "
                f"{count / usual_:9.1f} rows/s {memory / 2**20:8.0f} MiB "
                f"{100 * least / usual_:6.1f} % of the roof",
                flush=True,
            )
    return told


def main() -> int:
    torch.set_num_threads(1)
    limit = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    if DEVICE.type != "cuda":
        print("BENCH_DEVICE=cuda is needed, and a GPU")
        return 1
    roof = roofs()
    roof_told = {TYPES[dtype]: rate for dtype, rate in roof.products.items()}
    print(f"roof: {roof_told} operations/s, {roof.copy:.3g} bytes/s")
    found: dict[str, Any] = {}
    for network in NETWORKS:
        began = time.perf_counter()
        found[network.name] = explained(network, roof, limit)
        print(f"{network.name} took {time.perf_counter() - began:.0f} s", flush=True)
        told = {"conditions": conditions(PACKAGES), "roof": {**roof_told, "copy": roof.copy}}
        print(f"written to {publish('gpu', {**told, 'networks': found})}")
    return 0 if all(map(math.isfinite, roof_told.values())) else 1


if __name__ == "__main__":
    raise SystemExit(main())
