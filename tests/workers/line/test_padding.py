"""Jobs whose model sees more than the image: what is told of the image is of the image."""

import io

import numpy as np
import pytest

from service import paths
from service.domain.trust import Flag
from tests.support.hospital import register
from tests.support.small_model import MEAN, SIDE, STD, picture, write_package
from tests.workers.line.conftest import House, served_by

TALL, WIDE = 144, 36
STEPS = [
    {"name": "invert_monochrome1"},
    {"name": "resize", "parameters": {"size": [SIDE, SIDE], "aspect": "letterbox", "fill": 4095}},
    {"name": "normalize", "parameters": {"mean": [MEAN], "std": [STD]}},
]


def test_a_letterboxed_image_has_its_peak_in_itself_and_tells_the_rest(house: House) -> None:
    inputs = [{"accept": {"modalities": ["CR"]}, "steps": STEPS}]
    folder = house.folder / "letterbox"
    package = write_package(folder, name="letterbox", changes={"inputs": inputs})
    made = register(house.backends.store, package)
    served_by(house, {made.package})
    record, found = house.explain(
        house.image("tall", stored=picture(4, TALL, WIDE)),
        made,
        methods=["occlusion", "grad_cam"],
        artifacts=["npy"],
        targets=["top1"],
        checks="none",
    )
    assert len(found.results) == 2
    for result in found.results:
        (artifact,) = result.artifacts
        stored = house.backends.store.get(paths.artifact(str(record.result), artifact.name))
        values = np.load(io.BytesIO(stored))[0]
        assert result.map is not None
        assert result.trust is not None
        scale = TALL / len(values)
        columns = scale * np.arange(values.shape[1]) + result.map.affine[1][2]
        start, end = columns - scale / 2, columns + scale / 2
        shares = np.clip(np.minimum(end, WIDE - 0.5) - np.maximum(start, -0.5), 0, None) / scale
        beside = 1 - (np.abs(values) @ shares).sum() / np.abs(values).sum()
        assert beside > 0.25
        assert result.map.padding_share == pytest.approx(beside, abs=1e-6)
        assert Flag.EVIDENCE_IN_PADDING in result.trust.flags
        inside = np.where(shares > 1e-6, values, -np.inf)
        row, column = np.unravel_index(inside.argmax(), inside.shape)
        place = scale * row + result.map.affine[0][2], np.clip(columns[column], 0, WIDE - 1)
        assert result.map.peak == pytest.approx(place)
