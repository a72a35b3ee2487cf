"""An outsider computes r and p again, from a map's JSON alone, with numpy alone."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.domain.grid import Grid
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.sheets import blob, sheet
from tests.workers.measures.test_bearing import falls
from workers.formats.base import FORMATS
from workers.measures.bearing import bearings, described


def recomputed(document: dict[str, Any]) -> tuple[float, float]:
    """Return r and p of the map that `document` holds on its native grid."""
    probes, square = document["trust"]["probes"], np.array(document["map"]["values"]).sum(axis=0)
    side, sizes, falls = probes["side"], probes["lattices"], np.clip(probes["drops"], 0, None)
    axes, points = square.ndim, np.arange(side)[:, None]
    for axis, length in enumerate(probes["extent"]):  # the map's mass on `side` points an axis
        scale, offset = np.array(probes["map_to_input"])[axis, [axis, -1]]
        edge = ((np.arange(square.shape[axis] + 1) - 0.5) * scale + offset + 0.5) / length * side
        shared = np.minimum(points + 1, edge[1:]) - np.maximum(points, edge[:-1])
        share = np.clip(shared, 0, None) / np.diff(edge)
        square = np.moveaxis(np.tensordot(share, square, (1, axis)), 0, axis)

    walls, soft = np.array(probes["cells"]), np.repeat(probes["softness"], sizes)[:, None, None]
    steps = [(points.T + 0.5) / side - walls[..., :1], walls[..., 1:] - (points.T + 0.5) / side]
    rise, fall = (np.clip(step / soft + 0.5, 0, 1) for step in steps)
    cells = np.array([math.prod(np.ix_(*lines)) for lines in rise * fall])  # weight of each point

    def z(values: Any) -> float:  # Fisher's z of every lattice, by its degrees of freedom
        masses, ends = np.tensordot(cells, values, axes), np.cumsum(sizes)[:-1]
        pairs = zip(np.split(masses, ends), np.split(falls, ends), strict=True)
        r = np.clip([np.corrcoef(*pair)[0, 1] for pair in pairs], -1 + 1e-6, 1 - 1e-6)
        return float((np.sqrt(np.array(sizes) - 3) * np.arctanh(r)).sum())

    flips = [tuple(np.flatnonzero(each)) for each in np.ndindex((2,) * axes)]
    shifts = side // probes["shifts"] * np.array(list(np.ndindex((probes["shifts"],) * axes)))
    turned = [np.flip(each, flip) for each in (square, square.T)[: 4 - axes] for flip in flips]
    moved = [np.roll(each, shift, range(axes)) for each in turned for shift in shifts]
    r = np.tanh(z(square) / np.sqrt(np.array(sizes) - 3).sum())
    return float(r), float(np.mean([z(each) >= z(square) - 1e-6 for each in moved]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(12, 10), (40, 40)])
def test_p_can_be_computed_from_the_json_alone(
    tmp_path: Path, shape: tuple[int, int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    values = (blob(shape) + 0.3 * random.normal(size=(1, *shape))).astype(np.float32)
    drops = falls(blob((64, 64))) + random.normal(size=25)
    grid = Grid.partition(shape, (64, 64))
    measured = bearings(values, grid, (64, 64), drops, 2.5)
    source = tmp_path / "source.dcm"
    source.write_bytes(encoded(of_pixels(np.zeros((80, 80), np.uint16), bits=12)))
    drawn = sheet(source, tmp_path / "work", values, probes=described((64, 64), grid, drops))
    FORMATS["json"]().write(drawn, tmp_path / "map.json")
    r, p = recomputed(json.loads((tmp_path / "map.json").read_bytes()))
    assert r == pytest.approx(measured.r, abs=1e-7)  # values stand in shortest decimals
    assert p == measured.p
