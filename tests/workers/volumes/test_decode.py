"""A series' voxels on disk are those that its slices hold, each where its header puts it."""

import random

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from service.domain.inputs import VolumeRules
from service.domain.volume import Geometry
from service.errors.base import WhylightError
from service.errors.studies import (
    AbsurdDimensions,
    DuplicateSlices,
    IrregularSlices,
    MissingSlices,
    MixedSlices,
    NoSliceGeometry,
    NotAcceptedByModel,
    ShearedVolume,
    TooFewSlices,
    TruncatedDicom,
    UndecodablePixels,
    UnsupportedImage,
)
from tests.support import corpus
from tests.support.mutations import mutated
from tests.support.phantom_dicom import DEFLATED, JPEG_LS, compress, compressed, encoded
from tests.support.volumes import CORONAL, SAGITTAL, Series, enhanced
from workers.formats.derived import Source
from workers.volumes.decode import Survey, decode_portion, finish, survey

RULES = VolumeRules(least_slices=2, sheared=True)


@pytest.fixture
def read(tmp_path):
    """Decode objects of one series in any order; gives files, survey and voxels."""

    def of(objects, rules=RULES, **limits):
        files = []
        for number, data in enumerate(objects):
            files.append(tmp_path / f"{number}.dcm")
            files[-1].write_bytes(data)
        seen = survey(files, tmp_path, rules, **limits)
        half = len(seen.places) // 2
        halves = [(0, half), (half, len(seen.places))]
        portions = [decode_portion(files, tmp_path, seen, *each) for each in halves]
        made = finish(tmp_path, seen, portions)
        return made, seen, np.load(made.pixels)[0]

    return of


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), CORONAL, SAGITTAL])
@pytest.mark.parametrize("tilt", [0, -12.0])
def test_every_voxel_is_where_its_slice_puts_it(read, orientation, tilt):
    series = Series(orientation=orientation, tilt=tilt)
    objects = series.files()
    random.Random(3).shuffle(objects)  # noqa: S311 - no secret
    made, seen, voxels = read(objects)
    assert np.array_equal(voxels, series.values)
    assert np.allclose(seen.volume.matrix, series.affine, atol=1e-5)
    assert made.facts.shape == voxels.shape == (12, 24, 20)
    assert made.padding is None
    assert ("sheared_volume" in made.facts.warnings) == (tilt != 0)
    assert seen.volume.geometry is (Geometry.SHEARED if tilt else Geometry.REGULAR)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DEFLATED])
@pytest.mark.parametrize("room", [0, 1 << 20], ids=["small", "large"])
def test_an_enhanced_object_gives_the_volume_of_its_frames(read, syntax, room):
    series = Series(orientation=SAGITTAL)
    whole = enhanced(series)
    whole.PerFrameFunctionalGroupsSequence[0].add_new(0x00091001, "OB", bytes(room))
    made, seen, voxels = read([encoded(whole, syntax)])
    assert np.array_equal(voxels, series.values)
    assert [each.frame for each in seen.volume.slices] == list(range(1, 13))
    kept = Source.read(made.header)
    assert kept.numbers("ImagePositionPatient") == pytest.approx(series.position(0))


def test_a_volumes_patient_is_that_of_a_slice_that_names_one(read):
    slices = Series().datasets()
    for each in slices[:5]:
        each.PatientID = ""
    made, _, _ = read([encoded(each) for each in slices])
    assert Source.read(made.header).text("PatientID") == slices[5].PatientID != ""
    assert "missing_patient_id" not in made.facts.warnings
    for each in slices:
        each.PatientID = ""
    made, _, _ = read([encoded(each) for each in slices])
    assert "missing_patient_id" in made.facts.warnings


def test_each_slice_bears_the_name_and_number_of_its_object(read):
    slices = Series().datasets()
    for place, each in enumerate(slices):
        each.InstanceNumber = 40 - place
    _, seen, _ = read([encoded(each) for each in slices[::-1]])
    expected = [(str(11 - place), 40 - place) for place in range(12)]
    assert [(each.instance, each.instance_number) for each in seen.volume.slices] == expected


def test_bytes_of_a_name_that_are_no_text_stay_so_in_the_header_that_is_kept(read):
    multi = enhanced(Series())
    multi.SpecificCharacterSet, multi.PatientName = "ISO_IR 100", "Müller^Jörg"
    data = encoded(multi).replace(b"ISO_IR 100", b"ISO_IR 13 ")
    made, _, _ = read([data])
    assert Source.read(made.header).text("PatientName") == ""
    assert "left_out_patient_name" in made.facts.warnings


def test_each_slice_has_its_own_rescale_and_padding(read):
    series = Series()
    slices = series.datasets()
    slices[3].RescaleSlope, slices[3].RescaleIntercept = 2, -50
    slices[4].PixelPaddingValue = int(series.stored[4, 0, 0])
    made, _, voxels = read([encoded(each) for each in slices])
    expected = series.values.copy()
    expected[3] = (series.values[3] + 1024) * 2 - 50
    assert np.array_equal(voxels, expected)
    padded = np.load(made.padding)
    assert padded[4, 0, 0]
    assert not np.delete(padded, 4, axis=0).any()
    assert not np.load(made.display)[4, 0, 0]
    assert made.facts.value_maximum == 4095 * 2 - 50


def test_all_slices_are_shown_through_one_window(read):
    slices = Series().datasets()
    for number, each in enumerate(slices):
        each.WindowCenter, each.WindowWidth = (0, 401) if number == 6 else (300, 1000)
    made, _, voxels = read([encoded(each) for each in slices])
    by_hand = np.clip((voxels + 0.5) / 400 + 0.5, 0, 1) * 255  # PS3.3 C.11.2.1.2.1
    assert np.abs(np.load(made.display) - by_hand).max() <= 0.5 + 1e-3
    assert made.facts.window == (0, 401)


@pytest.mark.parametrize("beside", [{}, {"WindowCenter": 300, "WindowWidth": 1000}])
def test_all_slices_are_shown_through_the_voi_table_of_the_middle_one(read, beside):
    table = np.random.default_rng(4).integers(0, 1024, 2048)
    slices = Series().datasets()
    for number, each in enumerate(slices):
        item = Dataset()
        item.add_new("LUTDescriptor", "SS", [2048, -1024, 10])
        item.add_new("LUTData", "US", (table if number == 6 else table[::-1]).tolist())
        each.VOILUTSequence = [item]
        for keyword, value in beside.items():
            setattr(each, keyword, value)
    made, seen, voxels = read([encoded(each) for each in slices])
    shown = table[voxels.astype(int) + 1024] / 1023 * 255
    assert np.abs(np.load(made.display) - shown).max() <= 0.5 + 1e-3
    assert Survey.model_validate_json(seen.model_dump_json()) == seen
    assert made.facts.window is None


def test_slices_are_inverted_as_their_presentation_says(read):
    window = {"WindowCenter": 0, "WindowWidth": 2000}
    plain, inverse = (
        np.load(read(Series(elements={**window, **more}).files())[0].display)
        for more in ({}, {"PresentationLUTShape": "INVERSE"})
    )
    assert np.array_equal(inverse, 255 - plain)


def test_compressed_slices_give_the_same_volume(read):
    series = Series()
    objects = [
        compressed(each, JPEG_LS, compress(stored, JPEG_LS))
        for each, stored in zip(series.datasets(), series.stored, strict=True)
    ]
    assert np.array_equal(read(objects)[2], series.values)


def without(series, *numbers):
    return [each for k, each in enumerate(series.files()) if k not in numbers]


def changed(number, **changes):
    slices = Series().datasets()
    slices[number] = Series().dataset(number, **changes)
    return [encoded(each) for each in slices]


def twice():
    return [*Series().files(), encoded(Series().dataset(4, SOPInstanceUID="2.25.5"))]


def half_scaled(**changes):
    """A series of twelve, four slices of which say another rescale."""
    series = Series()
    return [encoded(series.dataset(k, **(changes if k < 4 else {}))) for k in range(12)]


def half_grouped():
    """An enhanced object, four frames of which have no Pixel Value Transformation."""
    whole = enhanced(Series())
    for frame in whole.PerFrameFunctionalGroupsSequence[:4]:
        del frame.PixelValueTransformationSequence
    return [encoded(whole)]


UNSCALED = {
    "none": lambda: half_scaled(RescaleSlope=None, RescaleIntercept=None),
    "empty": lambda: half_scaled(RescaleSlope="", RescaleIntercept=""),
    "slope 0": lambda: half_scaled(RescaleSlope="0"),
    "intercept alone": lambda: half_scaled(RescaleSlope=None),
    "frames": half_grouped,
}


@pytest.mark.parametrize("objects", UNSCALED.values(), ids=UNSCALED)
def test_slices_without_the_rescale_of_the_others_are_counted_and_refused(read, objects):
    with pytest.raises(MixedSlices, match="4 of 12") as refusal:
        read(objects())
    facts = refusal.value.facts
    assert (facts["slices_without_rescale"], facts["differing"]) == (4, ["rescale"])


@pytest.mark.parametrize("where", ["everywhere", "where it changes nothing"])
def test_a_rescale_may_lack_where_that_is_all_the_same(read, where):
    none = {"RescaleSlope": None, "RescaleIntercept": None}
    same = none if where == "everywhere" else {"RescaleSlope": "1", "RescaleIntercept": "0"}
    series = Series(elements={"Modality": "MR", **same})
    objects = [encoded(series.dataset(k, **(none if k % 2 else {}))) for k in range(12)]
    assert np.array_equal(read(objects)[2], series.stored)


@pytest.mark.parametrize(("first", "other"), [(None, "HU"), ("HU", None), ("US", "US")])
def test_slices_of_one_rescale_type_are_a_volume(read, first, other):
    objects = [encoded(Series().dataset(k, RescaleType=other if k else first)) for k in range(12)]
    assert np.array_equal(read(objects)[2], Series().values)


REFUSED = {
    "too few": (lambda: Series().files(), {"least_slices": 13}, TooFewSlices),
    "missing": (lambda: without(Series(), 5), {}, MissingSlices),
    "uneven": (
        lambda: Series(offsets=tuple(np.cumsum([0, *[4.2] * 6, *[7.4] * 5]))).files(),
        {},
        IrregularSlices,
    ),
    "duplicate": (twice, {}, DuplicateSlices),
    "mixed": (lambda: changed(2, PixelSpacing=["2", "2"]), {}, MixedSlices),
    "inverted": (lambda: changed(2, PhotometricInterpretation="MONOCHROME1"), {}, MixedSlices),
    "other unit": (lambda: changed(2, RescaleType="US"), {}, MixedSlices),
    "other units": (lambda: changed(2, Units="CNTS"), {}, MixedSlices),
    "no place": (lambda: changed(2, ImagePositionPatient=None), {}, NoSliceGeometry),
    "aslant": (lambda: Series(tilt=9).files(), {"sheared": False}, ShearedVolume),
    "coronal": (
        lambda: Series(orientation=CORONAL).files(),
        {"orientations": ("axial",)},
        NotAcceptedByModel,
    ),
    "thick": (lambda: Series().files(), {"slice_spacing": (0.5, 2.5)}, NotAcceptedByModel),
    "coarse": (lambda: Series().files(), {"pixel_spacing": (0.1, 0.75)}, NotAcceptedByModel),
}


@pytest.mark.parametrize(("objects", "rules", "error"), REFUSED.values(), ids=REFUSED)
def test_what_forms_no_fitting_volume_is_refused_by_name(read, objects, rules, error):
    with pytest.raises(error) as refusal:
        read(objects(), RULES.model_copy(update=rules))
    assert refusal.value.failure().kind == "data"


def test_the_refusal_of_a_series_with_holes_says_how_many(read):
    with pytest.raises(MissingSlices) as refusal:
        read(without(Series(), 5, 6, 9))
    assert refusal.value.facts["missing"] == 3
    assert refusal.value.facts["greatest_step"] == 9.0
    first, second = refusal.value.facts["gaps"]
    assert first == {
        "after": {"instance": "4", "instance_number": 5, "frame": None},
        "before": {"instance": "5", "instance_number": 8, "frame": None},
        "step": 9.0,
    }
    assert (second["after"]["instance_number"], second["step"]) == (9, 6.0)


def test_the_refusal_of_slices_without_a_place_names_them(read):
    with pytest.raises(NoSliceGeometry) as refusal:
        read(changed(2, ImagePositionPatient=None))
    place = {"instance": "2", "instance_number": 3, "frame": None}
    assert refusal.value.facts == {"slices": [place], "unplaced": 1}


MIXED = {
    "spacing": {"PixelSpacing": ["2", "2"]},
    "photometric_interpretation": {"PhotometricInterpretation": "MONOCHROME1"},
    "rescale_type": {"RescaleType": "US"},
    "rescale": {"RescaleSlope": None, "RescaleIntercept": None},
}


@pytest.mark.parametrize(("differing", "elements"), MIXED.items(), ids=MIXED)
def test_the_refusal_of_mixed_slices_names_those_that_are_unlike_most(read, differing, elements):
    with pytest.raises(MixedSlices) as refusal:
        read(changed(2, **elements))
    place = {"instance": "2", "instance_number": 3, "frame": None}
    facts = refusal.value.facts
    assert (facts["differing"], facts["slices"]) == ([differing], [place])
    assert "2.25." not in str(facts)


def test_a_volume_over_the_limit_is_refused_before_anything_is_allocated(read, tmp_path):
    with pytest.raises(AbsurdDimensions):
        read(Series().files(), max_voxels=12 * 24 * 20 - 1)
    assert not (tmp_path / "pixels.npy").exists()
    huge = Series().dataset(0, NumberOfFrames=90_000)
    huge.PixelData = b""
    with pytest.raises((AbsurdDimensions, TruncatedDicom)):
        read([encoded(huge)])


def test_color_and_damaged_slices_are_refused(read):
    color = Series().dataset(3, PhotometricInterpretation="RGB", SamplesPerPixel=3)
    color.PixelData = color.PixelData * 3
    with pytest.raises(UnsupportedImage):
        read([*Series().files(), encoded(color)])
    slices = [compressed(each, JPEG_LS, b"\xff\xd8broken") for each in Series().datasets()]
    with pytest.raises(UndecodablePixels):
        read(slices)


def test_a_survey_survives_its_way_through_json(read):
    _, seen, _ = read(Series().files())
    assert Survey.model_validate_json(seen.model_dump_json()) == seen
    tall = seen.volume.model_copy(update={"rows": 2048, "columns": 2048})
    assert replace_volume(seen, tall).portions == tuple((at, at + 2) for at in range(0, 12, 2))


def replace_volume(seen, volume):
    return seen.model_copy(update={"volume": volume})


@pytest.mark.skipif(not corpus.FILES, reason=corpus.REASON)
@pytest.mark.parametrize(
    "folder",
    [
        "dcm_qa_ct/In_Philips_S21570_S2010",
        "dicom2nifti/tests_data_generic_compressed_jpegls_001",
        "dicom2nifti/s_data_siemens_multiframe_anatomical_001",
    ],
)
def test_a_real_series_has_the_voxels_that_simpleitk_reads(read, folder):
    sitk = pytest.importorskip("SimpleITK")
    files = [each for each in corpus.FILES if folder in str(each)]
    _, seen, voxels = read([each.read_bytes() for each in files])
    names = [str(files[each.file]) for each in seen.places]
    image = sitk.ReadImage(names if len(files) > 1 else names[0])
    assert np.array_equal(voxels, sitk.GetArrayFromImage(image).astype(np.float32))


@pytest.mark.parametrize("form", ["series", "enhanced"])
def test_damaged_slices_are_a_volume_or_a_known_refusal(read, form):
    series = Series(shape=(6, 8, 9))
    whole = series.files() if form == "series" else [encoded(enhanced(series))]
    kinds = set()
    for number in range(40):
        objects = list(whole)
        objects[number % len(objects)] = mutated(objects[number % len(objects)], 7, number)
        try:
            _, seen, voxels = read(objects, max_voxels=1 << 20, max_samples=1 << 18)
        except WhylightError as error:
            kinds.add(error.failure().kind)
        else:
            assert voxels.shape == seen.volume.shape
    assert kinds == {"data"}


@pytest.mark.skipif(not corpus.FILES, reason=corpus.REASON)
def test_functional_groups_overrule_what_an_object_says_itself(read):
    ds = pydicom.dcmread(corpus.find("eCT_Supplemental.dcm"))
    made, seen, voxels = read([encoded(ds)])
    assert "overruled_by_functional_groups" not in made.facts.warnings
    ds.update({"RescaleSlope": "1", "RescaleIntercept": "0", "PixelSpacing": [1, 1]})
    overruled, same, again = read([encoded(ds)])
    assert "overruled_by_functional_groups" in overruled.facts.warnings
    assert same.volume == seen.volume
    assert np.array_equal(again, voxels)
    assert voxels.min() == -1024


@pytest.mark.skipif(not corpus.FILES, reason=corpus.REASON)
def test_every_real_object_is_a_volume_or_a_known_refusal(tmp_path):
    volumes, kinds = 0, set()
    for file in corpus.FILES:
        try:
            seen = survey([file], tmp_path, RULES, max_voxels=1 << 22)
        except WhylightError as error:
            kinds.add(error.failure().kind)
        else:
            volumes += 1
            assert len(seen.volume.slices) >= 2
    assert (volumes >= 2, kinds) == (True, {"data"})
