"""What each method draws of the demo: ``python -m tests.support.method_pictures [method ...]``.

One small picture for each method that the demo model, or a small transformer,
can be asked for; by default of those that have none yet.
"""

import io
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from examples.phantom.samples import read
from examples.planted.inputs import prepared
from examples.planted.pictures import lit
from examples.planted.recipes import VIT
from service.domain.grid import Grid
from service.manifests import read_manifest
from tests.support.engine import through
from tests.support.method_pages import OF_ATTENTION, PICTURES, ours
from workers.drawing.overlay import Rgb, overlay, plain, scale_of
from workers.methods.base import Maps, ModelFacts
from workers.runtimes.torch import TorchRuntime
from workers.runtimes.torch_opener import TorchOpener
from workers.scheduler import Scheduler
from workers.targets.scalars import ClassLogit

ROOT: Final = Path(__file__).parents[2]
STUDY: Final = ROOT / "examples" / "studies" / "chest" / "nodule.dcm"
NODULE, STONE = ClassLogit(0), ClassLogit(1)
PLATE: Final = 8
"""Seed of the plate with a cyst and a stone."""

WIDTH: Final = 240
"""Pixels that are drawn along each axis; each is shown as four."""

GRAYS: Final = 48
COLORS: Final = 128
"""Beside the grays, of the 256 that a pixel of 8 bits can have."""

FAINT: Final = 16
"""Difference of channels up to which a pixel passes for gray."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is explained: a model, its input and one of its findings."""

    model: str
    image: NDArray[np.float32]
    """Shape ``(1, rows, columns)``, as the model takes it."""

    target: ClassLogit


class Demo:
    """A bundled model and what it may be asked for."""

    def __init__(self, shown: Shown) -> None:
        folder = ROOT / "models" / shown.model
        manifest = read_manifest((folder / "model.yaml").read_bytes())
        self.runtime: TorchRuntime = TorchOpener().open(
            manifest, folder, shown.image.shape, torch.device("cpu")
        )()
        self.shown, probed = shown, self.runtime.probed
        layers = tuple(layer.name for layer in probed.layers)
        self.facts = ModelFacts(
            layers=layers,
            linear_heads=tuple(name for name in layers if name in probed.linear_heads),
            baseline=manifest.explain.baseline,
            attentions=probed.attentions,
            tokens=probed.tokens,
        )

    def maps(self, name: str) -> Maps:
        """Explain the finding by one method with default parameters."""
        image = torch.from_numpy(self.shown.image).to(self.runtime.dtype)
        method = ours()[name]().settled(self.facts)
        (maps,) = through(Scheduler(), self.runtime, method.plan(image, (self.shown.target,)))
        if not isinstance(maps, Maps):
            raise maps
        return maps


@cache
def demo(*, of_attention: bool) -> Demo:
    """Return the demo model with a radiograph, or the transformer with a plate."""
    if of_attention:
        plate = prepared(lit(PLATE, {"cyst": 1, "stone": 1}))
        return Demo(Shown(VIT.id, plate, STONE))
    return Demo(Shown("chest-phantom", read(STUDY.read_bytes())[None], NODULE))


def display_of(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a model's input ``(1, rows, columns)`` as grays, enlarged to ``(WIDTH, WIDTH)``"""
    low, high = np.percentile(image, (0, 99.9))
    shown = np.clip((image[0] - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(shown).resize((WIDTH, WIDTH), Image.Resampling.BICUBIC))


def drawn(maps: Maps, image: NDArray[np.float32], *, signed: bool) -> bytes:
    """Return one map over the model's input as an 8-bit PNG file."""
    display = display_of(image)
    values = maps.values[0].sum(0).float().numpy()
    whole = Grid.partition(image.shape[1:], display.shape)
    grid = Grid(values.shape, maps.affine).within(whole)
    page = np.zeros((*display.shape, 3), np.uint8)
    scale = scale_of(values, signed=signed)
    if scale is None:
        plain(display, page)
    else:
        overlay(display, values, grid, scale, page)
    few = Image.fromarray(page).quantize(palette=_palette(page), dither=Image.Dither.NONE)
    file = io.BytesIO()
    few.resize((2 * WIDTH, 2 * WIDTH), Image.Resampling.NEAREST).save(file, "PNG", optimize=True)
    return file.getvalue()


def _palette(page: Rgb) -> Image.Image:
    """Return grays and the page's colors, which would drown among its many grays."""
    colored = page[np.ptp(page, axis=-1) > FAINT]
    chosen = Image.fromarray(colored[None]).quantize(COLORS).getpalette() if len(colored) else []
    grays = np.linspace(0, 255, GRAYS).astype(int).repeat(3)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*grays.tolist(), *(chosen or [])])
    return palette


def main() -> None:
    """Draw the methods named on the command line, or those without a picture."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    missing = [name for name in ours() if not (PICTURES / f"{name}.png").exists()]
    for name in sys.argv[1:] or missing:
        asked = demo(of_attention=name in OF_ATTENTION)
        picture = drawn(asked.maps(name), asked.shown.image, signed=ours()[name].signed)
        (PICTURES / f"{name}.png").write_bytes(picture)


if __name__ == "__main__":
    main()
