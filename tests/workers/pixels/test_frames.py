"""One frame out of several: its own pixels, its own groups, and no other frame's."""

import struct
from dataclasses import astuple

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from service.dicom.header import read_header
from service.errors.requests import InvalidRequest
from service.errors.studies import TruncatedDicom, UndecodablePixels, UnsupportedImage
from tests.support import corpus
from tests.support.phantom_dicom import (
    DEFLATED,
    EXPLICIT_BIG,
    JPEG_LS,
    LOSSLESS,
    RLE,
    compress,
    encoded,
    misnamed,
    of_pixels,
)
from workers.formats.derived import Source
from workers.formats.pixeldata import aspect_of
from workers.formats.plane import plane_of
from workers.pixels.decode import decode_file

IMPLICIT = "1.2.840.10008.1.2"
FRAMES = np.random.default_rng(5).integers(0, 4096, (3, 16, 12)).astype(np.uint16)


def several(frames, **changes):
    """An object of these frames, uncompressed."""
    ds = of_pixels(frames[0], **changes)
    ds.NumberOfFrames = len(frames)
    ds.PixelData = frames.tobytes()
    return ds


def encapsulated(syntax, *, table=True, pieces=1, extended=False):
    """The same frames compressed, with or without tables of where they begin."""
    ds = several(FRAMES)
    codes = [compress(frame, syntax) for frame in FRAMES]
    ds.PixelData = encapsulate(codes, fragments_per_frame=pieces, has_bot=table and not extended)
    if extended:
        sizes = [len(code) + len(code) % 2 + 8 for code in codes]
        starts = np.cumsum([0, *sizes[:-1]])
        ds.ExtendedOffsetTable = starts.astype("<u8").tobytes()
        ds.ExtendedOffsetTableLengths = np.array([len(code) for code in codes], "<u8").tobytes()
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return encoded(ds, syntax)


@pytest.fixture
def read(tmp_path):
    """Decode a frame of bytes; returns its values, display and the kept header."""

    def of(data, frame):
        path = tmp_path / "object.dcm"
        path.write_bytes(data)
        files = decode_file(path, tmp_path, frame=frame)
        assert files.facts.frame == frame
        return np.load(files.pixels)[0], np.load(files.display), Source.read(files.header)

    return of


@pytest.mark.parametrize("frame", [1, 2, 3])
def test_an_uncompressed_frame_is_found(read, frame):
    assert np.array_equal(read(encoded(several(FRAMES)), frame)[0], FRAMES[frame - 1])


def test_an_odd_frame_of_bytes_in_big_endian_words_is_found(read):
    frames = np.random.default_rng(6).integers(0, 256, (4, 3, 5)).astype(np.uint8)
    ds = several(frames)
    ds.PixelData = np.frombuffer(frames.tobytes(), "<u2").astype(">u2").tobytes()
    ds["PixelData"].VR = "OW"
    for frame in range(1, 5):
        assert np.array_equal(read(encoded(ds, EXPLICIT_BIG), frame)[0], frames[frame - 1])


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("table", [True, False])
def test_a_compressed_frame_is_found_with_and_without_a_table(read, syntax, table):
    for frame in (1, 3):
        values = read(encapsulated(syntax, table=table), frame)[0]
        assert np.array_equal(values, FRAMES[frame - 1])


@pytest.mark.parametrize("ways", [{}, {"table": False}], ids=["table", "markers"])
def test_frames_in_several_fragments_are_found(read, ways):
    data = encapsulated(JPEG_LS, pieces=2, **ways)
    for frame in (1, 2, 3):
        assert np.array_equal(read(data, frame)[0], FRAMES[frame - 1])


def test_an_extended_table_is_believed(read):
    data = encapsulated(RLE, extended=True)
    assert np.array_equal(read(data, 3)[0], FRAMES[2])


def test_a_table_that_points_nowhere_is_not_believed(read):
    data = encapsulated(RLE)
    table = data.index(b"\xfe\xff\x00\xe0" + struct.pack("<L", 12)) + 8
    hurt = data[: table + 4] + b"\x03\0\0\0" + data[table + 8 :]
    assert np.array_equal(read(hurt, 2)[0], FRAMES[1])


def test_fragments_that_cannot_be_told_apart_are_refused(read):
    with pytest.raises(UndecodablePixels, match="each frame begins"):
        read(encapsulated(RLE, table=False, pieces=2), 2)


def test_fewer_fragments_than_frames_are_an_object_cut_short(tmp_path):
    path = tmp_path / "object.dcm"
    path.write_bytes(encapsulated(RLE).replace(b"IS\x02\x003 ", b"IS\x02\x004 "))
    with pytest.raises(TruncatedDicom, match="fewer fragments"):
        read_header(path, max_samples=1 << 20)


def test_a_frame_that_is_not_there_is_refused(read):
    with pytest.raises(InvalidRequest):
        read(encoded(several(FRAMES)), 4)


def test_the_limit_is_on_one_frame_and_not_on_their_sum(tmp_path):
    path = tmp_path / "object.dcm"
    path.write_bytes(encoded(several(FRAMES)))
    assert read_header(path, max_samples=FRAMES[0].size).number_of_frames == 3


def group(**elements):
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])


def enhanced():
    """An object whose frames each have a rescale, a window and a place of their own."""
    ds = several(FRAMES, FrameOfReferenceUID="2.25.9")
    per_frame = [
        group(
            PixelValueTransformationSequence=group(
                RescaleSlope=str(k + 1), RescaleIntercept=str(-k), RescaleType="US"
            ),
            FrameVOILUTSequence=group(WindowCenter=str(100 * (k + 1)), WindowWidth="50"),
            PlanePositionSequence=group(ImagePositionPatient=[0, 0, 7 * k]),
        )[0]
        for k in range(3)
    ]
    ds.PerFrameFunctionalGroupsSequence = Sequence(per_frame)
    ds.SharedFunctionalGroupsSequence = group(
        PlaneOrientationSequence=group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=group(PixelSpacing=["0.5", "0.5"], SliceThickness="7"),
    )
    return ds


@pytest.mark.parametrize("frame", [1, 2, 3])
def test_an_enhanced_objects_frame_has_its_own_groups(read, frame):
    values, display, source = read(encoded(enhanced()), frame)
    assert np.array_equal(values, FRAMES[frame - 1] * float(frame) - (frame - 1))
    window = np.clip(((values - (100 * frame - 0.5)) / 49 + 0.5) * 255, 0, 255)
    assert np.abs(display - window).max() <= 0.51
    plane = plane_of(source)
    assert plane.position == (0, 0, 7 * (frame - 1))
    assert (plane.spacing, plane.thickness) == ((0.5, 0.5), 7)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DEFLATED])
@pytest.mark.parametrize("room", [0, 1 << 20], ids=["small", "large"])
def test_groups_of_any_size_are_read(read, syntax, room):
    ds = enhanced()
    for item in ds.PerFrameFunctionalGroupsSequence:
        item.add_new(0x00091001, "OB", bytes(room))
    values, _, source = read(encoded(ds, syntax), 3)
    assert np.array_equal(values, FRAMES[2] * 3.0 - 2)
    assert plane_of(source).position == (0, 0, 14)


@pytest.mark.parametrize(
    ("real", "said"),
    [
        (IMPLICIT, ExplicitVRLittleEndian),
        (ExplicitVRLittleEndian, IMPLICIT),
        (IMPLICIT, DEFLATED),
    ],
)
def test_groups_and_header_of_a_misnamed_encoding_are_read_as_they_are(read, real, said):
    ds = enhanced()
    ds.ProcedureCodeSequence = group(CodeValue="1", CodingSchemeDesignator="99A", CodeMeaning="b")
    values, _, source = read(misnamed(encoded(ds, real), said), 3)
    assert np.array_equal(values, FRAMES[2] * 3.0 - 2)
    assert plane_of(source).position == (0, 0, 14)
    assert source.dataset.ProcedureCodeSequence[0].CodeMeaning == "b"


def test_a_frame_without_the_rescale_that_others_have_is_refused(read):
    ds = enhanced()
    del ds.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence
    with pytest.raises(UnsupportedImage, match="rescale"):
        read(encoded(ds), 2)
    assert np.array_equal(read(encoded(ds), 3)[0], FRAMES[2] * 3.0 - 2)
    shared = group(RescaleSlope="2", RescaleIntercept="5", RescaleType="US")
    ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = shared
    assert np.array_equal(read(encoded(ds), 2)[0], FRAMES[1] * 2.0 + 5)


def test_a_position_said_once_is_no_frames_position(read):
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    ds = several(FRAMES, FrameOfReferenceUID="2.25.9", ImagePositionPatient=[0, 0, 0], **place)
    assert plane_of(read(encoded(ds), 2)[2]) is None


OWN = {
    "RescaleSlope": "2",
    "RescaleIntercept": "0",
    "PixelSpacing": [1, 1],
    "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
    "ModalityLUTSequence": group(
        LUTDescriptor=[2, 0, 16], LUTData=struct.pack("<2H", 7, 9), ModalityLUTType="US"
    ),
}
"""What an enhanced image may not say itself, beside its functional groups."""


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
@pytest.mark.parametrize("keyword", OWN)
def test_functional_groups_overrule_what_an_object_says_itself(tmp_path, keyword):
    ds = pydicom.dcmread(corpus.find("eCT_Supplemental.dcm"))
    outcomes = []
    for overruled in (False, True):
        if overruled:
            setattr(ds, keyword, OWN[keyword])
        path = tmp_path / "object.dcm"
        ds.save_as(path)
        files = decode_file(path, tmp_path, frame=2)
        assert ("overruled_by_functional_groups" in files.facts.warnings) == overruled
        outcomes.append((np.load(files.pixels), plane_of(Source.read(files.header))))
    (pixels, plane), (again, same) = outcomes
    assert pixels.min() == -1024
    assert np.array_equal(again, pixels)
    assert astuple(same) == astuple(plane)


def test_an_object_that_says_the_same_as_its_groups_is_not_doubted(tmp_path):
    ds = enhanced()
    ds.PixelSpacing = ["0.50", "0.5"]
    ds.SliceThickness = None
    path = tmp_path / "object.dcm"
    path.write_bytes(encoded(ds))
    files = decode_file(path, tmp_path)
    assert "overruled_by_functional_groups" not in files.facts.warnings
    assert plane_of(Source.read(files.header)).thickness == 7


def test_a_group_without_a_value_leaves_it_to_the_object(read):
    ds = enhanced()
    ds.PixelSpacing = ["2", "2"]
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = None
    plane = plane_of(read(encoded(ds), 1)[2])
    assert (plane.spacing, plane.thickness) == ((2, 2), 7)


@pytest.mark.parametrize("frame", [1, 2, 3])
def test_a_frame_of_a_detector_has_its_own_proportions(read, frame):
    ds = several(FRAMES, Modality="XA")
    spacings = [["0.2", "0.2"], ["0.2", "0.1"], ["0.1", "0.4"]]
    ds.PerFrameFunctionalGroupsSequence = Sequence(
        group(FramePixelDataPropertiesSequence=group(ImagerPixelSpacing=each))[0]
        for each in spacings
    )
    expected = [(1, 1), (2, 1), (1, 4)]
    assert aspect_of(read(encoded(ds), frame)[2]) == expected[frame - 1]
