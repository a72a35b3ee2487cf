"""Jobs on ultrasound images: evidence outside the declared regions is neither shown nor counted."""

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from service import paths
from service.domain.explanation import Result
from service.domain.job import Job
from service.packages import PackageRecord
from tests.support import corpus
from tests.support.hospital import register
from tests.support.small_model import MEAN, SIDE, STD, picture, write_package
from tests.workers.line.conftest import House, served_by
from tests.workers.line.test_judging import checks
from workers.binding import array_digest

TALL, WIDE = 120, 160
BOX = (30, 50, 101, 140)
"""Top, left, bottom, right of the planted region; cells of the map cross its edges."""

EVERY = ["npy", "npz", "json", "png", "dicom_sc", "dicom_sc_word", "dicom_pm", "dicom_seg"]
PLANE = {
    "FrameOfReferenceUID": "2.25.77",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.5],
    "SliceThickness": 1,
}


def region(box: tuple[int, int, int, int], form: int = 1) -> pydicom.Dataset:
    """Declare one region, whose last row and column count along."""
    top, left, bottom, right = box
    item = pydicom.Dataset()
    item.RegionSpatialFormat = form
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right - 1, bottom - 1
    return item


def scan() -> NDArray[np.uint16]:
    """A sector in noise, and text in a corner that is brighter than anything in it."""
    stored = picture(4, TALL, WIDE)
    stored[4:16, 4:60:3] = 4095
    return stored


@pytest.fixture(scope="module")
def echo(house: House) -> PackageRecord:
    """A model of color ultrasound, which shrinks what it is given."""
    steps = [
        {"name": "invert_monochrome1"},
        {"name": "resize", "parameters": {"size": [SIDE, SIDE]}},
        {"name": "normalize", "parameters": {"mean": [MEAN] * 3, "std": [STD] * 3}},
    ]
    colors = ["MONOCHROME2", "MONOCHROME1", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422"]
    accept = {"modalities": ["US"], "photometric_interpretations": colors}
    package = write_package(
        house.folder / "echo",
        name="echo",
        shape={"channels": 3},
        image_tags={"Modality": "US"},
        changes={"inputs": [{"accept": accept, "steps": steps}]},
    )
    made = register(house.backends.store, package)
    served_by(house, {made.package})
    return made


def explained(house: House, name: str, package: PackageRecord, **asked: Any) -> tuple[Job, Result]:
    tags = {"Modality": "US", **PLANE, **asked.pop("tags", {})}
    file = house.image(name, stored=scan(), tags=tags)
    record, found = house.explain(file, package, targets=["top1"], **asked)
    (result,) = found.results
    assert result.status == "succeeded", result.reason
    return record, result


def files(house: House, record: Job, result: Result) -> dict[str, bytes]:
    return {
        each.format: house.backends.store.get(paths.artifact(str(record.result), each.name))
        for each in result.artifacts
    }


def outside_of(shape: tuple[int, ...], boxes: Any) -> NDArray[np.bool_]:
    mask = np.ones(shape, np.bool_)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = False
    return mask


def colored(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(np.ptp(image.astype(int), axis=-1) > 0)


@pytest.mark.parametrize("style", ["overlay", "contour"])
@pytest.mark.parametrize("method", ["saliency", "grad_cam"])
def test_nothing_outside_the_region_is_shown_or_counted(
    house: House, echo: PackageRecord, method: str, style: str
) -> None:
    asked: dict[str, Any] = {"methods": [method], "artifacts": [*EVERY, "dicom_sr"], "style": style}
    _, free = explained(house, f"free.{method}.{style}", echo, **asked)
    tags = {"SequenceOfUltrasoundRegions": [region(BOX), region((0, 0, 20, 80), form=5)]}
    record, kept = explained(house, f"kept.{method}.{style}", echo, tags=tags, **asked)
    made = files(house, record, kept)
    outside = outside_of((TALL, WIDE), [BOX])

    assert free.map is not None
    assert free.map.restriction is None
    assert kept.map is not None
    assert kept.map.restriction is not None
    assert kept.map.restriction.regions == (BOX,)
    assert 0.05 < kept.map.restriction.outside_share < 1
    assert kept.map.sum + kept.map.restriction.outside_sum == pytest.approx(free.map.sum, rel=1e-4)

    image = np.asarray(Image.open(io.BytesIO(made["png"])))[:TALL, :WIDE]
    assert not colored(image)[outside].any()
    assert colored(image)[~outside].any()
    capture = pydicom.dcmread(io.BytesIO(made["dicom_sc"]))
    assert_array_equal(capture.pixel_array[:TALL, :WIDE], image)
    assert "ultrasound regions" in capture.DerivationDescription
    word = pydicom.dcmread(io.BytesIO(made["dicom_sc_word"]))
    relevance = word.pixel_array * float(word.RescaleSlope) + float(word.RescaleIntercept)
    assert_allclose(relevance[outside], 0, atol=float(word.RescaleSlope) / 2)
    floats = pydicom.dcmread(io.BytesIO(made["dicom_pm"]))
    values = np.frombuffer(floats.FloatPixelData, "<f4").reshape(TALL, WIDE)
    assert not values[outside].any()
    assert_allclose(values, relevance, atol=float(word.RescaleSlope))
    segment = pydicom.dcmread(io.BytesIO(made["dicom_seg"]))
    mask = np.squeeze(segment.pixel_array).astype(bool)
    assert mask.any()
    assert not mask[outside].any()
    assert "ultrasound regions" in segment.SegmentSequence[0].SegmentDescription

    said = numbers(pydicom.dcmread(io.BytesIO(made["dicom_sr"])))
    assert said["region_pixels"] == mask.sum()
    assert said["region_mass"] == pytest.approx(values[mask].sum() / values[values > 0].sum())
    assert said["outside_share"] == pytest.approx(kept.map.restriction.outside_share)
    place = (said["peak_row"], said["peak_column"])
    assert kept.map.peak == pytest.approx(place)
    assert not outside[round(place[0]), round(place[1])]


def numbers(report: pydicom.Dataset) -> dict[str, float]:
    """Return the numbers of a report by their codes."""
    found = {}
    waiting = list(report.ContentSequence)
    for item in waiting:
        waiting.extend(item.get("ContentSequence", ()))
        if item.ValueType == "NUM":
            name = item.ConceptNameCodeSequence[0].CodeValue
            found[name] = float(item.MeasuredValueSequence[0].NumericValue)
    return found


def test_arrays_and_their_digest_are_of_the_map_that_was_kept(
    house: House, echo: PackageRecord
) -> None:
    tags = {"SequenceOfUltrasoundRegions": [region(BOX)]}
    asked: dict[str, Any] = {"artifacts": ["npy", "npz", "json"], "methods": ["grad_cam"]}
    record, kept = explained(house, "arrays", echo, tags=tags, **asked)
    made = files(house, record, kept)
    values = np.load(io.BytesIO(made["npy"]))
    assert kept.trust is not None
    assert kept.trust.binding is not None
    assert kept.trust.binding.map == array_digest(values)
    with np.load(io.BytesIO(made["npz"])) as archive:
        assert_array_equal(archive["values"], values)
        assert_array_equal(archive["regions"], [BOX])
    rows, columns = values.shape[1:]
    tall, wide = TALL / rows, WIDE / columns
    assert not values[:, : int(BOX[0] / tall)].any()
    assert not values[:, :, : int(BOX[1] / wide)].any()
    source = files(
        house, *explained(house, "arrays.source", echo, tags=tags, grid="source", **asked)
    )
    fine = np.load(io.BytesIO(source["npy"]))[0]
    assert not fine[outside_of(fine.shape, [BOX])].any()
    assert fine.any()


def test_a_map_whose_sum_is_promised_still_adds_up(house: House, echo: PackageRecord) -> None:
    tags = {"SequenceOfUltrasoundRegions": [region(BOX)]}
    _, kept = explained(
        house, "sum", echo, tags=tags, methods=["integrated_gradients"], checks="full"
    )
    assert checks(kept)["completeness"].outcome == "pass"
    assert checks(kept)["repeat"].outcome == "pass"


REAL = {
    "/JPGLosslessP14SV1_1s_1f_8b.dcm": 1,
    "/OBXXXX1A_rle_2frame.dcm": 2,
    "/DIRW0007": 65,
    "/gdcm-US-ALOKA-16.dcm": 1,
    "/YBR_FULL-RLE.dcm": 1,
    "/dcm4che-test-data_src_main_resources/YBR_422.dcm": 1,
}
"""Files that declare regions of echoes, and the frame that is explained."""


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
@pytest.mark.parametrize("ending", REAL)
def test_a_real_scan_has_evidence_in_its_echoes_alone(
    house: House, echo: PackageRecord, ending: str
) -> None:
    file, frame = corpus.find(ending), REAL[ending]
    record, found = house.explain(
        file,
        echo,
        targets=["top1"],
        methods=["grad_cam"],
        artifacts=["png", "npy"],
        checks="none",
        grid="source",
        **({"frame": frame} if frame > 1 else {}),
    )
    assert found.failure is None, found.failure
    (result,) = found.results
    assert result.status == "succeeded", result.reason
    made = files(house, record, result)
    values = np.load(io.BytesIO(made["npy"]))[0]
    declared = pydicom.dcmread(file, stop_before_pixels=True).SequenceOfUltrasoundRegions
    boxes = [
        (
            each.RegionLocationMinY0,
            each.RegionLocationMinX0,
            each.RegionLocationMaxY1 + 1,
            each.RegionLocationMaxX1 + 1,
        )
        for each in declared
        if each.RegionSpatialFormat in (1, 2, 3)
    ]
    outside = outside_of(values.shape, boxes)
    assert not values[outside].any()
    assert values[~outside].any()
    image = np.asarray(Image.open(io.BytesIO(made["png"])))[: values.shape[0], : values.shape[1]]
    assert not colored(image)[outside].any()
    assert colored(image)[~outside].any()
