import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import ExplicitVRLittleEndian

from service.dicom import bounds, dataset
from service.dicom.header import VIEWS, Header, read_header
from service.errors.base import WhylightError
from service.errors.studies import (
    AbsurdDimensions,
    NoPixelData,
    NotDicom,
    TruncatedDicom,
    UnsupportedImage,
    UnsupportedTransferSyntax,
)
from tests.support.phantom_dicom import encoded, image

LIMIT = 1 << 22
PIXELS = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.fixture
def read(tmp_path: Path):
    def of(data: bytes) -> Header:
        path = tmp_path / "object"
        path.write_bytes(data)
        return read_header(path, max_samples=LIMIT)

    return of


def test_an_image_is_told_by_its_numbers(read):
    header = read(encoded(image()))
    assert (header.rows, header.columns, header.number_of_frames) == (8, 6, 1)
    assert (header.bits_allocated, header.bits_stored, header.pixel_representation) == (16, 12, 0)
    assert (header.modality, header.body_part_examined, header.view_position) == (
        "CR",
        "CHEST",
        "PA",
    )
    assert header.study_instance_uid == "2.25.3"
    assert header.transfer_syntax_uid == ExplicitVRLittleEndian


def test_a_bare_data_set_without_meta_information_is_read(read):
    buffer = io.BytesIO()
    image().save_as(buffer, implicit_vr=True, little_endian=True)
    data = buffer.getvalue()
    assert data[128:132] != b"DICM"
    assert read(data).transfer_syntax_uid == "1.2.840.10008.1.2"


@pytest.mark.parametrize("data", [b"", b"\x00" * 4096, b"PK\x03\x04" * 100, b"\x89PNG" * 99])
def test_other_bytes_are_not_dicom(read, data):
    with pytest.raises(NotDicom):
        read(data)


@pytest.mark.parametrize(
    ("keyword", "told"),
    [
        ("StudyInstanceUID", "no valid Study Instance UID (0020,000D)"),
        ("SeriesInstanceUID", "no valid Series Instance UID (0020,000E)"),
        ("SOPInstanceUID", "no valid SOP Instance UID (0008,0018)"),
    ],
)
def test_an_object_without_an_identifier_is_not_taken_and_says_which(read, keyword, told):
    bare = io.BytesIO()  # file meta information would have the instance's UID as well
    image(**{keyword: None}).save_as(bare, implicit_vr=False, little_endian=True)
    with pytest.raises(NotDicom) as refusal:
        read(bare.getvalue())
    assert told in refusal.value.detail


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.11", "a Basic Text SR Storage"),
        ("1.2.840.10008.5.1.4.1.1.88.59", "a Key Object Selection Document Storage"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "an Encapsulated PDF Storage"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "a Grayscale Softcopy Presentation State Storage"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "an RT Structure Set Storage"),
        ("1.3.6.1.4.1.99999.1", "of a private or unknown kind"),
    ],
)
def test_what_holds_no_image_is_refused_by_what_it_is(read, kind, name):
    with pytest.raises(NoPixelData) as refusal:
        read(encoded(image(PixelData=None, SOPClassUID=kind)))
    assert refusal.value.detail == f"The object holds no image: it is {name}."


def test_side_and_localizer_are_told(read):
    plain = read(encoded(image()))
    assert (plain.laterality, plain.localizer) == ("", False)
    scout = read(encoded(image(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Laterality="R")))
    assert (scout.laterality, scout.localizer) == ("R", True)
    assert read(encoded(image(ImageLaterality="L", Laterality="R"))).laterality == "L"


def test_a_directory_is_named_by_its_meta_information(read):
    data = encoded(image(PixelData=None, SOPClassUID="1.2.840.10008.1.3.10"))
    ds = pydicom.dcmread(io.BytesIO(data))
    del ds.SOPClassUID
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds)
    with pytest.raises(NoPixelData, match="a Media Storage Directory Storage"):
        read(buffer.getvalue())


def view(scheme: str, value: str) -> Sequence:
    item = Dataset()
    item.CodingSchemeDesignator, item.CodeValue, item.CodeMeaning = scheme, value, "a view"
    return Sequence([item])


@pytest.mark.parametrize(
    ("scheme", "value", "told"),
    [
        ("SCT", "399162004", "CC"),
        ("SCT", "399368009", "MLO"),
        ("SRT", "R-10226", "MLO"),
        ("SNM3", "R-10242", "CC"),
        ("99HOSPITAL", "R-10242", ""),
        ("SCT", "127457009", ""),  # tissue specimen
    ],
)
def test_a_mammograms_view_is_told_by_its_code(read, scheme, value, told):
    ds = image(Modality="MG", ViewPosition=None, ViewCodeSequence=view(scheme, value))
    assert read(encoded(ds)).view_position == told


@pytest.mark.parametrize("nested", [True, False])
def test_a_view_with_a_modifier_is_told_from_a_plain_one(read, nested):
    plain = view("SCT", "399162004")
    plain[0].ViewModifierCodeSequence = []
    assert not read(encoded(image(Modality="MG", ViewCodeSequence=plain))).view_modified
    modified = view("SCT", "399162004")
    spot = view("SCT", "399055006")
    if nested:
        modified[0].ViewModifierCodeSequence = spot
        ds = image(Modality="MG", ViewCodeSequence=modified)
    else:
        ds = image(Modality="MG", ViewCodeSequence=modified, ViewModifierCodeSequence=spot)
    assert read(encoded(ds)).view_modified


def test_the_view_of_every_code_of_the_standard_is_known():
    named = (concepts["SCT"][name].items() for name in cid_concepts[4014]["SCT"])
    values = {value for each in named for value, (_, groups) in each if 4014 in groups}
    assert values - set(VIEWS) == {"127457009"}  # a specimen, of which there is no view


@pytest.mark.parametrize("group", ["SharedFunctionalGroups", "PerFrameFunctionalGroups"])
def test_the_side_of_a_tomosynthesis_is_that_of_its_frames(read, group):
    anatomy, groups = Dataset(), Dataset()
    anatomy.FrameLaterality = "R"
    groups.FrameAnatomySequence = [anatomy]
    assert read(encoded(image(**{f"{group}Sequence": [groups]}))).laterality == "R"


def test_a_bug_of_ours_is_not_told_as_a_truncated_object(read, monkeypatch):
    monkeypatch.setattr("service.dicom.header._strings", lambda _: None)
    with pytest.raises(TypeError):
        read(encoded(image()))


@pytest.mark.parametrize("cut", [1, 40, 97, 110])
def test_a_cut_object_is_truncated(read, cut):
    with pytest.raises(TruncatedDicom):
        read(encoded(image())[:-cut])


def test_a_cut_within_the_header_is_truncated_and_not_an_object_without_image(read):
    data = encoded(image())
    with pytest.raises(TruncatedDicom):
        read(data[: data.index(b"Canary") + 3])


@pytest.mark.parametrize(
    "changes",
    [
        {"Rows": [32768, 0]},
        {"Rows": 0},
        {"Rows": None},
        {"Columns": None},
        {"NumberOfFrames": 2**31 - 1},
        {"BitsAllocated": 12},
        {"BitsStored": 17},
        {"SamplesPerPixel": 2},
        {"Rows": 65535, "Columns": 65535},
    ],
    ids=str,
)
def test_impossible_numbers_are_refused_before_any_allocation(read, changes):
    with pytest.raises(AbsurdDimensions):
        read(encoded(image(**changes)))


def test_a_number_that_is_no_number_is_refused(read):
    data = encoded(image(NumberOfFrames=1)).replace(b"IS\x02\x001 ", b"IS\x02\x001A")
    with pytest.raises(AbsurdDimensions, match="NumberOfFrames"):
        read(data)


def real_pixels(**changes):
    ds = image(PixelData=None, BitsAllocated=32, BitsStored=None, HighBit=None, **changes)
    ds.FloatPixelData = np.zeros(48, "<f4").tobytes()
    return encoded(ds)


def test_floating_point_pixels_are_an_image(read):
    assert read(real_pixels()).bits_allocated == 32


@pytest.mark.parametrize("label", ["MONOCHROME1", "RGB"])
def test_floating_point_pixels_of_another_form_are_refused_by_name(read, label):
    with pytest.raises(UnsupportedImage, match="Floating-point"):
        read(real_pixels(PhotometricInterpretation=label))


@pytest.mark.parametrize(
    "changes",
    [
        {"PhotometricInterpretation": "RGB"},
        {"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 3, "Columns": 2},
        {"PhotometricInterpretation": "XYZ"},
        {"BitsAllocated": 1, "BitsStored": 1},
        {"BitsAllocated": 64, "Rows": 2},
    ],
    ids=str,
)
def test_forms_that_are_not_read_are_refused_when_they_come_in(read, changes):
    with pytest.raises(UnsupportedImage):
        read(encoded(image(**changes)))


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (b"1.2.840.10008.1.2.4.110\0", "JPEG XL Lossless"),
        (b"1.2.840.10008.1.2.8.1\0\0\0", "Deflated Image Frame Compression"),
        (b"1.2.840.10008.1.2.4.999\0", "1.2.840.10008.1.2.4.999"),
        (b"1.3.6.1.4.1.99999.12345\0", "a private one"),
    ],
)
def test_an_unread_transfer_syntax_is_refused_by_the_standards_name(read, syntax, name):
    known = b"1.2.840.10008.1.2.4.203\0"
    data = encoded(image(PixelData=None), known[:-1].decode()) + PIXELS
    with pytest.raises(UnsupportedTransferSyntax) as refusal:
        read(data.replace(known, syntax))
    assert refusal.value.facts == {"transfer_syntax": name}
    assert name in refusal.value.detail
    uid = syntax.rstrip(b"\0").decode()
    assert (uid in refusal.value.detail) == (uid == name)  # no UID that the standard did not give


def encapsulated(*items: bytes, end: bytes = b"\xfe\xff\xdd\xe0\0\0\0\0") -> bytes:
    """An RLE image whose pixel data holds `items` after an empty offset table."""
    ds = image(PixelData=None)
    data = encoded(ds, "1.2.840.10008.1.2.5")
    table = b"\xfe\xff\x00\xe0\0\0\0\0"
    body = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in items)
    return data + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + table + body + end


def test_whole_encapsulated_pixel_data_is_taken(read):
    assert read(encapsulated(b"\x00" * 64)).rows == 8


@pytest.mark.parametrize(
    "data",
    [
        encapsulated(b"\x00" * 64, end=b""),
        encapsulated(b"\x00" * 64)[:-30],
        encapsulated(),
        encapsulated(b"\x00" * 64, end=b"\xfe\xff\x00\xe0\xff\xff\xff\xff"),
    ],
    ids=["no end mark", "cut fragment", "no fragment", "endless fragment"],
)
def test_encapsulated_pixel_data_that_ends_oddly_is_truncated(read, data):
    with pytest.raises(TruncatedDicom):
        read(data)


def deflated(body: bytes) -> bytes:
    """A deflated object around the data set bytes `body`."""
    head = encoded(image(), "1.2.840.10008.1.2.1.99")
    length = struct.unpack("<L", head[140:144])[0]
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return head[: 144 + length] + squeezer.compress(body) + squeezer.flush()


def test_a_deflated_object_is_read(read):
    plain = encoded(image())
    body = plain[144 + struct.unpack("<L", plain[140:144])[0] :]
    assert read(deflated(body)).rows == 8


def test_a_deflated_object_cannot_swell_without_bound(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(deflated(b"\x00" * (80 << 20)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(AbsurdDimensions, match="swells"):
        read_header(path, max_samples=1)


def test_elements_and_fragments_are_counted_before_they_take_room(read, monkeypatch):
    monkeypatch.setattr(bounds, "WORK", 5000)
    monkeypatch.setattr(dataset, "FRAGMENTS", 1000)
    data = encoded(image())
    at = data.index(b"\x18\x00\x15\x00CS")
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 1000
    bomb = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    with pytest.raises(AbsurdDimensions, match="elements"):
        read(data[:at] + bomb + data[at:])
    with pytest.raises(AbsurdDimensions, match="elements"):
        read(data[:144] + b"\x02\0\x02\x01" + bomb[4:] + data[144:])
    groups = b"\0\x52\x30\x92SQ\0\0" + struct.pack("<L", len(items)) + items
    end = data.index(b"\xe0\x7f\x10\0OW")
    with pytest.raises(AbsurdDimensions, match="items"):  # parsed when they are asked for
        read(data[:end] + groups + data[end:])
    flat = b"".join(struct.pack("<HH2sH", 0x41, 0x1000 + each, b"LO", 0) for each in range(100))
    with pytest.raises(AbsurdDimensions, match="elements"):
        read(data[:end] + flat + data[end:])
    with pytest.raises(AbsurdDimensions, match="fragments"):
        read(encapsulated(*[b""] * 1001))
    assert read(data).rows == 8


SEED = encoded(image())


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.binary(min_size=1, max_size=6))),
    end=st.integers(0, len(SEED)),
)
def test_damaged_bytes_never_raise_anything_unforeseen(read, edits, end):
    data = bytearray(SEED)
    for at, piece in edits:
        data[at : at + len(piece)] = piece
    try:
        said = read(bytes(data[:end])).model_dump_json()
    except WhylightError as refusal:
        said = refusal.failure().model_dump_json()
    assert "Canary" not in said


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=400))
def test_random_bytes_behind_the_magic_never_raise_anything_unforeseen(read, tail):
    with pytest.raises(WhylightError):
        read(bytes(128) + b"DICM" + tail)
