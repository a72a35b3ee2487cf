"""Where the cells of a layer lie: three ways to place them, held against what was planted.

A cell of a layer of stride `s` can be taken for a tile of the image; or be put where its
receptive field is centered, ``(s - 1) / 2`` pixels before that in networks whose steps have odd
kernels and half as much padding; or where the gradients of its output on noise are::

    python -m benchmarks.cells

Each is judged by where maps of what was planted lie: Grad-CAM's, of the bundled models; and what
a finding changes of the layer, of a small ResNet-18 of symmetric kernels, and of one that has
learned to tell two findings.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import conditions, publish
from benchmarks.shortcut import MODELS, PACKAGES
from examples.phantom.chest import Case
from examples.phantom.findings import FINDINGS
from examples.phantom.samples import drafts_of
from examples.planted.inputs import inputs
from examples.planted.pictures import tumor
from examples.radiographs import SMALL
from examples.spheres import train as spheres
from examples.spheres.phantom import SHAPE, SPACING
from examples.spheres.phantom import draw as volume
from examples.training import fit_labels
from service.manifests import read_manifest
from workers.architectures.resnet import ResNet
from workers.runtimes.torch import TorchRuntime
from workers.runtimes.torch_opener import TorchOpener

Array = NDArray[np.float64]
Planted = tuple[Tensor, Array]
"""A network's input ``(1, C, *spatial)``, and where on it the finding's middle lies."""

COUNT: Final = 40
SEED: Final = 70_000
WIDE: Final = 1.5
"""Cells about a finding within which a map counts: a Gaussian's standard deviation."""

ROUNDS: Final = 20
INNER, SIGNS = 12, 6
"""Inner cells whose gradients are taken, and as of how many mixes of the channels."""

SIDE: Final = 192
PICTURES, BATCH, EPOCHS, RATE = 1000, 16, 12, 3e-3
PERIOD: Final = 32
"""Stride of the ResNet's last layer: findings are planted all over two by two cells."""


def main() -> None:
    """Run the bench and publish its figures."""
    torch.set_num_threads(1)
    nodule = list(FINDINGS).index("nodule")
    bundled = {
        **{
            name: found(name, lambda outputs: outputs[0, nodule], nodules())
            for name in ("chest-phantom", "chest-phantom-control", "chest-phantom-marker")
        },
        "survival-phantom": found("survival-phantom", lambda outputs: outputs.sum(), tumors()),
        "sphere-phantom": found("sphere-phantom", lambda outputs: outputs[0, 0], dense()),
    }
    result = {"conditions": conditions(PACKAGES), "bundled": bundled, "resnet": resnet()}
    print(result, publish("cells", result))


# ------------------------------------------------------------------ what was planted


def nodules() -> Iterator[Planted]:
    """Draw radiographs with a nodule alone."""
    for number in range(COUNT):
        drawn = drafts_of([Case(SEED + number, frozenset(["nodule"]))])
        (mask,) = drawn.masks[0][drawn.labels[0]]
        yield torch.from_numpy(drawn.images), np.argwhere(mask).mean(0)


def tumors() -> Iterator[Planted]:
    """Draw plates with a tumor."""
    for number in range(COUNT):
        picture = tumor(SEED + number, 10.0)
        middle, step = np.argwhere(picture.masks["tumor"]).mean(0), len(picture.stored) / SMALL
        yield inputs([picture]), (middle + 0.5) / step - 0.5


def dense() -> Iterator[Planted]:
    """Draw volumes with a dense sphere; the network's grid is about their middle."""
    for number in range(COUNT):
        phantom = volume(SEED + number, ["dense"])
        given = spheres.prepared(phantom)
        cube = np.array(given.shape[1:])
        (sphere,) = phantom.spheres
        scale = cube / (np.array(SHAPE) * SPACING)
        yield torch.from_numpy(given[None]), (cube - 1) / 2 + np.array(sphere.center) * scale


# ------------------------------------------------------------------ where cells lie


def at(network: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return a network's outputs, and what a layer put out."""
    kept: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2]))
    outputs = network(images)
    hook.remove()
    return outputs, kept[0]


def tiles(grid: Iterable[int], spatial: Iterable[int]) -> list[Array]:
    """Return the centers of cells that share the image, along each axis, in pixels."""
    return [(np.arange(n) + 0.5) * size / n - 0.5 for n, size in zip(grid, spatial, strict=True)]


def middle(mass: Array, centers: list[Array]) -> Array:
    """Return the center of mass of a map."""
    found = []
    for axis, places in enumerate(centers):
        along = mass.sum(tuple(k for k in range(mass.ndim) if k != axis))
        found.append(float(along @ places / along.sum()))
    return np.array(found)


def by_gradients(network: nn.Module, layer: str, shape: tuple[int, ...]) -> Array:
    """Return how far from its tile a cell's squared gradients on noise are centered: a median."""
    generator, random = torch.Generator().manual_seed(1), np.random.default_rng(1)
    noise = torch.randn(1, *shape, generator=generator).requires_grad_()
    _, features = at(network, layer, noise)
    grid = features.shape[2:]
    centers, pixels = tiles(grid, shape[1:]), [np.arange(size, dtype=float) for size in shape[1:]]
    away = []
    for _ in range(INNER):
        cell = tuple(int(random.integers(n // 4, n - n // 4)) for n in grid)
        alone = torch.zeros(grid)
        alone[cell] = 1
        tile = np.array([line[k] for line, k in zip(centers, cell, strict=True)])
        for _ in range(SIGNS):
            signs = torch.randint(0, 2, (features.shape[1],), generator=generator) * 2.0 - 1
            mix = torch.tensordot(signs, alone, 0)[None]
            (gradient,) = torch.autograd.grad(features, noise, mix, retain_graph=True)
            away.append(middle(gradient[0].double().square().sum(0).numpy(), pixels) - tile)
    return np.asarray(np.median(away, axis=0))


def told(errors: list[Array], strides: Array, moved: Array) -> dict[str, Any]:
    """Return how far maps lie from what was planted, in pixels along each axis, by all three."""
    of_tiles = np.mean(errors, axis=0)
    ways = {
        "tiles": of_tiles,
        "standard_error": np.std(errors, axis=0) / len(errors) ** 0.5,
        "receptive_field": of_tiles - (strides - 1) / 2,
        "gradients": of_tiles + moved,
    }
    return {
        "stride": strides.tolist(),
        **{name: np.round(each, 2).tolist() for name, each in ways.items()},
    }


# ------------------------------------------------------------------ the bundled models


def found(
    name: str, score: Callable[[Tensor], Tensor], planted: Iterable[Planted]
) -> dict[str, Any]:
    """Return how far Grad-CAM's maps of a bundled model lie from what was planted."""
    cases = list(planted)
    shape = tuple(cases[0][0].shape[1:])
    network, layer = opened(name, shape)
    cams = [grad_cam(network, layer, image, score) for image, _ in cases]
    places = [place for _, place in cases]
    errors = [peak(cam, shape[1:], each) - each for cam, each in zip(cams, places, strict=True)]
    strides = np.divide(shape[1:], cams[0].shape)
    return told(errors, strides, by_gradients(network, layer, shape))


def opened(name: str, shape: tuple[int, ...]) -> tuple[nn.Module, str]:
    """Return a bundled network, and the layer that its package names first."""
    folder = MODELS / name
    manifest = read_manifest((folder / "model.yaml").read_bytes())
    runtime = TorchOpener().open(manifest, folder, shape, torch.device("cpu"))()
    assert isinstance(runtime, TorchRuntime)
    return runtime.model, manifest.explain.layers[0].name


def grad_cam(
    network: nn.Module, layer: str, image: Tensor, score: Callable[[Tensor], Tensor]
) -> Array:
    """Return what Grad-CAM finds for a score, on the layer's grid."""
    outputs, features = at(network, layer, image.requires_grad_())
    (gradient,) = torch.autograd.grad(score(outputs), features)
    weights = gradient.flatten(2).mean(2)[0]
    cam = torch.tensordot(weights, features.detach()[0], 1).clamp(min=0)
    return np.asarray(cam.double())


def peak(cam: Array, spatial: Iterable[int], place: Array) -> Array:
    """Return the middle of what a map marks about a place: a mean shift that begins there."""
    centers = tiles(cam.shape, spatial)
    lines = np.meshgrid(*centers, indexing="ij")
    spread = [2 * (WIDE * (line[1] - line[0])) ** 2 for line in centers]
    for _ in range(ROUNDS):
        away = sum((x - p) ** 2 / s for x, p, s in zip(lines, place, spread, strict=True))
        place = middle(cam * np.exp(-away), centers)
    return place


# ------------------------------------------------------------------ a ResNet-18


def resnet() -> dict[str, Any]:
    """Return the same of what findings change of a ResNet-18's last layer."""
    shape = ResNet(
        block="basic",
        layers=(2, 2, 2, 2),
        block_inplanes=(8, 16, 32, 64),
        spatial_dims=2,
        n_input_channels=1,
        conv1_t_stride=2,
        num_classes=2,
    )
    torch.manual_seed(0)
    symmetric = shape.build().eval()
    with torch.no_grad():
        for each in symmetric.modules():
            if isinstance(each, nn.Conv2d):
                each.weight.add_(each.weight.flip(2)).add_(each.weight.flip(3))
                each.weight.div_(4)
    random = np.random.default_rng(0)
    shown = random.random((PICTURES, 2)) < 0.5
    drawn = [picture(random, row) for row in shown]
    images, labels = torch.from_numpy(np.stack(drawn))[:, None], torch.from_numpy(shown).float()
    trained = fit_labels(shape, images, labels, seed=0, batch=BATCH, epochs=EPOCHS, rate=RATE)
    return {
        f"{state}, {kind}": changed(network, number)
        for state, network in (("symmetric kernels", symmetric), ("trained", trained))
        for number, kind in enumerate(("blob", "ring"))
    }


def picture(random: np.random.Generator, shown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Draw uneven tissue, and in it a bright blob, a dark ring, both or none."""
    coarse = torch.from_numpy(random.normal(0, 0.4, (1, 1, 8, 8)))
    made = functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[0, 0].numpy()
    made += random.uniform(-0.5, 0.5) + random.standard_normal((SIDE, SIDE)) * 0.25
    for number in np.flatnonzero(shown).tolist():
        made += finding(number, random.uniform(20, SIDE - 20, 2), random.uniform(5, 10))
    return np.asarray(made, np.float32)


def finding(number: int, place: Array, radius: float) -> Array:
    """Return what a finding adds to a picture: 0 is the blob, 1 the ring."""
    rows, columns = np.ogrid[:SIDE, :SIDE]
    away = np.hypot(rows - place[0], columns - place[1])
    blob = 1.1 * np.exp(-((away / (0.6 * radius)) ** 2) / 2)
    return np.asarray(-1.1 * ((away < radius) & (away > radius - 3)) if number else blob)


def changed(network: nn.Module, number: int) -> dict[str, Any]:
    """Return how far from a finding lies what it changes of the last layer, squared."""
    errors, layer = [], "layer4"
    lines = SIDE / 2 - PERIOD + np.arange(4, 2 * PERIOD, 8) - 0.5
    for seed in range(4):
        plain = picture(np.random.default_rng(SEED + seed), np.zeros(2, np.bool_))
        for place in product(lines, lines):
            added = finding(number, np.array(place), 8.0).astype(np.float32)
            pair = torch.from_numpy(np.stack([plain, plain + added]))[:, None]
            with torch.no_grad():
                _, (without, having) = at(network, layer, pair)
            mass = (having - without).double().square().sum(0).numpy()
            errors.append(middle(mass, tiles(mass.shape, (SIDE, SIDE))) - np.array(place))
    strides = np.full(2, float(PERIOD))
    return told(errors, strides, by_gradients(network, layer, (1, SIDE, SIDE)))


if __name__ == "__main__":
    main()
