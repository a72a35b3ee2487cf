"""What each method draws of the demo: ``python -m tests.support.method_pictures [method ...]``.

One small picture for each method that the demo model can be asked for, by
default of those that have none yet.
"""

import io
import sys
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from examples.phantom.preparation import MEAN, SIDE, STD
from examples.phantom.samples import read
from service.domain.grid import Grid
from service.manifests import read_manifest
from tests.support.engine import through
from tests.support.method_pages import PICTURES, ours
from workers.drawing.overlay import Rgb, overlay, plain, scale_of
from workers.methods.base import Maps, ModelFacts
from workers.runtimes.torch import TorchOpener, TorchRuntime
from workers.scheduler import Scheduler
from workers.targets.scalars import ClassLogit

ROOT: Final = Path(__file__).parents[2]
STUDY: Final = ROOT / "examples" / "studies" / "chest" / "nodule.dcm"
MODEL: Final = ROOT / "models" / "chest-phantom"
NODULE: Final = ClassLogit(0)
WIDTH: Final = 240
"""Pixels that are drawn along each axis; each is shown as four."""

GRAYS: Final = 48
COLORS: Final = 128
"""Beside the grays, of the 256 that a pixel of 8 bits can have."""

FAINT: Final = 16
"""Difference of channels up to which a pixel passes for gray."""


class Demo:
    """The demo model and what it may be asked for."""

    def __init__(self) -> None:
        manifest = read_manifest((MODEL / "model.yaml").read_bytes())
        shape = (1, SIDE, SIDE)
        self.runtime: TorchRuntime = TorchOpener().open(
            manifest, MODEL, shape, torch.device("cpu")
        )()
        layers = tuple(layer.name for layer in self.runtime.probed.layers)
        heads = tuple(name for name in layers if name in self.runtime.probed.linear_heads)
        self.facts = ModelFacts(layers, heads, manifest.explain.baseline)

    def maps(self, name: str) -> Maps:
        """Explain the nodule by one method with default parameters."""
        image = torch.from_numpy(read(STUDY.read_bytes()))[None].to(self.runtime.dtype)
        method = ours()[name]().settled(self.facts)
        (maps,) = through(Scheduler(), self.runtime, method.plan(image, (NODULE,)))
        if not isinstance(maps, Maps):
            raise maps
        return maps

    @property
    def served(self) -> list[str]:
        """Names of the methods that the model can be asked for."""
        abilities = self.runtime.probed.abilities
        return [name for name, method in ours().items() if method.needs <= abilities]


def radiograph() -> NDArray[np.uint8]:
    """Return the study as the model sees it, enlarged to ``(WIDTH, WIDTH)``"""
    shown = np.clip((read(STUDY.read_bytes()) * STD + MEAN) * 255, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(shown).resize((WIDTH, WIDTH), Image.Resampling.BICUBIC))


def drawn(maps: Maps, *, signed: bool) -> bytes:
    """Return one map over the radiograph as an 8-bit PNG file."""
    display = radiograph()
    values = maps.values[0].sum(0).float().numpy()
    grid = Grid(values.shape, maps.affine).within(Grid.partition((SIDE, SIDE), display.shape))
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
    demo = Demo()
    PICTURES.mkdir(parents=True, exist_ok=True)
    missing = [name for name in demo.served if not (PICTURES / f"{name}.png").exists()]
    for name in sys.argv[1:] or missing:
        picture = drawn(demo.maps(name), signed=ours()[name].signed)
        (PICTURES / f"{name}.png").write_bytes(picture)


if __name__ == "__main__":
    main()
