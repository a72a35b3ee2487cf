"""Decode, prepare and render in real slots, as a job takes them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose

from service.domain.explanation import Check
from service.domain.grid import Grid
from service.domain.parity import WORDS, Parity, ParityReport
from service.domain.trust import Flag
from service.errors.base import Failure, Kind, WhylightError
from service.errors.jobs import ResultDamaged
from service.errors.requests import UnknownFormat
from service.errors.studies import UndecodablePixels
from tests.support.pairs import pair
from tests.support.parcels import fetched
from tests.support.phantom_dicom import JPEG_2000, JPEG_LS, compress, compressed, encoded, of_pixels
from tests.support.sheets import MODEL, REPORT, TARGET, blob
from workers import tasks
from workers.binding import bound
from workers.drawing import picture
from workers.parcels import Attributed, Attribution, Judged, SourceFile, Verdict
from workers.slots import Slots
from workers.stages.decode import decode
from workers.stages.prepare import prepare
from workers.stages.render import digest_of, render

RAMP = (np.add.outer(np.arange(64), np.arange(64)) * 20).astype(np.uint16)
IMAGE = encoded(of_pixels(RAMP, bits=12))


@pytest.fixture(scope="module")
def slots():
    with Slots(1, address_space_bytes=4 << 30) as slots:
        yield slots


def attribution(**changes) -> Attribution:
    known = Attribution(
        method="saliency",
        version=1,
        parameters={},
        signed=False,
        target=TARGET,
        values=blob((8, 8)),
        grid=Grid.partition((8, 8), (64, 64)),
    )
    return replace(known, **changes)


def judged(slots, folder: Path, *attributions: Attribution, degenerate=False, **asked) -> Judged:
    prepared = prepare(decode(fetched(IMAGE, folder, **asked), slots), slots)
    verdicts = tuple(
        Verdict(checks=(), degenerate=degenerate, trust=None if each.values is None else REPORT)
        for each in attributions
    )
    maps = bound(prepared, MODEL, attributions)
    return Judged(Attributed(prepared, (), maps, ParityReport()), verdicts)


def test_an_image_goes_from_its_file_to_the_models_input(slots, tmp_path):
    decoded = decode(fetched(IMAGE, tmp_path), slots)
    assert np.array_equal(np.load(decoded.pixels)[0], RAMP)
    prepared = prepare(decoded, slots)
    low, high = np.percentile(RAMP, (1, 99))
    window = np.clip((RAMP - low) / (high - low), 0, 1)
    expected = (window.reshape(32, 2, 32, 2).mean((1, 3)) - 0.5) / 0.25
    assert_allclose(prepared.tensor[0], expected, atol=1e-5)
    assert_allclose(prepared.grid.to_source((0, 0)), (0.5, 0.5))


def test_damaged_pixels_fail_the_job_by_name(slots, tmp_path):
    code = compress(RAMP, JPEG_2000)
    broken = compressed(of_pixels(RAMP), JPEG_2000, code[: len(code) // 3])
    with pytest.raises(WhylightError) as failure:
        decode(fetched(broken, tmp_path), slots)
    assert failure.value.failure().code == "undecodable_pixels"
    assert failure.value.failure().kind is Kind.DATA


def test_a_decoder_that_is_too_slow_fails_the_job_and_the_next_one_runs(slots, tmp_path):
    with pytest.raises(UndecodablePixels):
        decode(fetched(IMAGE, tmp_path), slots, limit=1e-4)
    assert decode(fetched(IMAGE, tmp_path), slots).facts.rows == 64


def test_an_image_over_the_limit_is_refused_inside_the_slot(slots, tmp_path):
    with pytest.raises(WhylightError) as failure:
        decode(fetched(IMAGE, tmp_path), slots, max_samples=64)
    assert failure.value.failure().code == "absurd_dimensions"


def test_every_map_becomes_the_files_that_were_asked_for(slots, tmp_path):
    maps = (attribution(), attribution(method="grad_cam", signed=True))
    rendered = render(judged(slots, tmp_path, *maps, artifacts=("dicom_sc", "npy")), slots, MODEL)
    names = [[file.artifact.name for file in files] for files in rendered.files]
    assert names == [
        ["saliency.effusion.dcm", "saliency.effusion.npy"],
        ["grad_cam.effusion.dcm", "grad_cam.effusion.npy"],
    ]
    captures = [pydicom.dcmread(files[0].path) for files in rendered.files]
    assert captures[0].SeriesInstanceUID == captures[1].SeriesInstanceUID
    assert captures[0].SOPInstanceUID != captures[1].SOPInstanceUID
    assert [ds.InstanceNumber for ds in captures] == [1, 2]
    assert np.array_equal(np.load(rendered.files[0][1].path), blob((8, 8)))


def test_what_does_not_suit_a_map_is_left_out_and_the_rest_is_made(slots, tmp_path):
    asked = ("dicom_sr", "dicom_pm", "dicom_seg")
    rendered = render(judged(slots, tmp_path, attribution(), artifacts=asked), slots, MODEL)
    ((omitted,),) = rendered.omitted
    assert (omitted.format, omitted.reason.code) == ("dicom_pm", "format_not_applicable")
    (files,) = rendered.files
    assert [file.artifact.format for file in files] == ["dicom_sr", "dicom_seg"]


def test_captures_are_compressed_as_asked(slots, tmp_path):
    parcel = judged(
        slots,
        tmp_path,
        attribution(),
        artifacts=("dicom_sc",),
        dicom={"transfer_syntax": "jpeg_ls_lossless"},
    )
    ((capture,),) = render(parcel, slots, MODEL).files
    assert pydicom.dcmread(capture.path).file_meta.TransferSyntaxUID == JPEG_LS


def test_a_method_that_failed_has_no_files(slots, tmp_path):
    failure = Failure(kind=Kind.OURS, code="method_error", title="The method failed", detail="")
    lost = attribution(target=None, values=None, grid=None, failure=failure)
    rendered = render(judged(slots, tmp_path, lost, attribution()), slots, MODEL)
    assert [len(files) for files in rendered.files] == [0, 2]


def test_a_degenerate_map_is_rendered_without_color(slots, tmp_path):
    flat = attribution(values=np.ones((1, 8, 8), np.float32))
    parcel = judged(slots, tmp_path, flat, degenerate=True, artifacts=("dicom_sc",))
    ((capture,),) = render(parcel, slots, MODEL).files
    shown = pydicom.dcmread(capture.path).pixel_array[:64, :64]
    assert not np.ptp(shown, axis=-1).any()


def test_a_figure_that_is_not_finite_spoils_no_document(slots, tmp_path):
    check = Check(
        name="sum", version=1, outcome="fail", values={"residual": np.inf}, meaning="It is off."
    )
    parcel = judged(slots, tmp_path, attribution(extras={"residual": np.nan}), artifacts=("json",))
    parcel = replace(parcel, verdicts=(Verdict(checks=(check,), degenerate=False, trust=REPORT),))
    ((file,),) = render(parcel, slots, MODEL).files
    assert json.loads(file.path.read_bytes())["extras"] == {"residual": None}


def test_an_unknown_format_is_refused(slots, tmp_path):
    with pytest.raises(WhylightError) as refusal:
        render(judged(slots, tmp_path, attribution(), artifacts=("gif",)), slots, MODEL)
    assert refusal.value.failure().code == UnknownFormat.code


def test_the_question_names_the_series_and_not_how_the_answer_is_wanted(tmp_path):
    asked = digest_of(fetched(IMAGE, tmp_path))
    assert digest_of(fetched(IMAGE, tmp_path, priority="stat", artifacts=("npy",))) == asked
    assert digest_of(fetched(IMAGE, tmp_path, methods=["grad_cam"])) != asked
    assert digest_of(fetched(IMAGE, tmp_path, targets=["nodule"])) != asked
    other = encoded(of_pixels(RAMP + 1, bits=12))
    assert digest_of(fetched(other, tmp_path)) != asked
    image = fetched(IMAGE, tmp_path)
    marked = replace(image, segmentations={"in_0002": SourceFile(image.instance, image.file)})
    assert digest_of(marked) != asked


def test_frames_of_one_object_are_different_questions(tmp_path):
    ds = of_pixels(RAMP, bits=12)
    ds.NumberOfFrames, ds.PixelData = 2, np.stack([RAMP, RAMP]).tobytes()
    first, second = (digest_of(fetched(encoded(ds), tmp_path, frame=k)) for k in (1, 2))
    assert first != second


class Here:
    """Slots that do their tasks in this process."""

    def run(self, task, message, _):
        return tasks.TASKS[task](message)


@pytest.mark.parametrize(
    ("pairs", "outcome", "elsewhere", "figures"),
    [
        ([pair("nodule", Parity.MATCHED, 15.84)], Parity.NOT_GIVEN, [], []),
        ([pair("nodule", Parity.MISMATCHED)], Parity.NOT_GIVEN, ["nodule"], []),
        (
            [pair("effusion", Parity.MATCHED, 15.84), pair("nodule", Parity.MISMATCHED)],
            Parity.MATCHED,
            ["nodule"],
            ["Issuing system: logit 15.84; here: 15.84 (tolerance 0.02)."],
        ),
        (
            [pair("effusion", Parity.MISMATCHED, None, positive=False)],
            Parity.MISMATCHED,
            [],
            ["Issuing system: not reported; here: reported."],
        ),
    ],
)
def test_a_map_tells_what_was_observed_of_its_own_target(
    slots, tmp_path, monkeypatch, *, pairs, outcome, elsewhere, figures
):
    drawn, whole = [], picture.page_with

    def kept(legend, rows, columns):
        drawn.append(legend)
        return whole(legend, rows, columns)

    monkeypatch.setattr(picture, "page_with", kept)
    parcel = judged(slots, tmp_path, attribution(), artifacts=("png", "json", "dicom_sr"))
    known = replace(parcel.attributed, parity=ParityReport.of(pairs))
    flags = (Flag.PARITY_MISMATCH,) if outcome is Parity.MISMATCHED else ()
    report = REPORT.model_copy(update={"flags": flags})
    verdict = Verdict(checks=(), degenerate=False, trust=report)
    ((_, told, sr),) = render(
        replace(parcel, attributed=known, verdicts=(verdict,)), Here(), MODEL
    ).files
    (legend, *_) = drawn
    lines = (*legend.lines, *legend.grave)
    assert [each for each in lines if each.startswith("Issuing system")] == figures
    own = [] if outcome is Parity.MISMATCHED else [WORDS[outcome]]
    assert [each for each in lines if each in WORDS.values()] == own
    parity = json.loads(told.path.read_bytes())["parity"]
    assert (parity["outcome"], parity["elsewhere"]) == (outcome, elsewhere)
    assert words(pydicom.dcmread(sr.path))["parity"] == outcome


def words(ds: pydicom.Dataset) -> dict[str, str]:
    """The report's short codes, by what they are of."""
    return {
        item.ConceptNameCodeSequence[0].get("CodeValue"): item.ConceptCodeSequence[0].get(
            "CodeValue"
        )
        for sequence in (each for each in ds.iterall() if each.keyword == "ContentSequence")
        for item in sequence.value
        if item.ValueType == "CODE"
    }


class Meddled:
    """Slots whose map file somebody changes right before it is read."""

    def __init__(self, slots, change):
        self._slots, self._change = slots, change

    def run(self, task, message, timeout):
        self._change(Path(message["map"]))
        return self._slots.run(task, message, timeout)


def swap(file: Path) -> None:
    np.save(file, blob((8, 8))[:, ::-1])


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("change", [swap, flip_a_bit, truncate, Path.unlink])
def test_a_map_file_that_was_changed_is_never_drawn(slots, tmp_path, change):
    parcel = judged(slots, tmp_path, attribution(), artifacts=("png", "npy"))
    with pytest.raises(WhylightError) as refusal:
        render(parcel, Meddled(slots, change), MODEL)
    assert refusal.value.failure().code == ResultDamaged.code
    assert not list(tmp_path.glob("saliency.*"))


def test_a_map_that_was_exchanged_in_memory_is_never_drawn(slots, tmp_path):
    parcel = judged(slots, tmp_path, attribution(), artifacts=("png",))
    (mine,) = parcel.attributed.attributions
    other = replace(mine, values=blob((8, 8))[:, ::-1].copy())
    crossed = replace(parcel, attributed=replace(parcel.attributed, attributions=(other,)))
    with pytest.raises(WhylightError) as refusal:
        render(crossed, slots, MODEL)
    assert refusal.value.failure().code == ResultDamaged.code
    assert not list(tmp_path.glob("saliency.*"))


def test_a_map_of_another_job_is_never_drawn(slots, tmp_path):
    (tmp_path / "other").mkdir()
    parcel = judged(slots, tmp_path, attribution(), artifacts=("png",))
    other = judged(slots, tmp_path / "other", attribution(), methods=["grad_cam"])
    crossed = replace(
        parcel,
        attributed=replace(parcel.attributed, attributions=other.attributed.attributions),
    )
    with pytest.raises(ResultDamaged):
        render(crossed, slots, MODEL)
