"""Headers that hold anything: what files may say of patient, study and place, valid or not.

Set ``WHYLIGHT_HEADERS`` to try so many of them, others each time; a failure tells by what
it comes again.
"""

import io
import os
import struct

import pydicom
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

from tests.support.phantom_dicom import encoded, image

COUNT = int(os.environ.get("WHYLIGHT_HEADERS", "0"))

COPIED = {
    "PatientName": "PN",
    "PatientID": "LO",
    "IssuerOfPatientID": "LO",
    "PatientBirthDate": "DA",
    "PatientSex": "CS",
    "PatientAge": "AS",
    "PatientSize": "DS",
    "PatientWeight": "DS",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "StudyID": "SH",
    "StudyDescription": "LO",
    "AccessionNumber": "SH",
    "ReferringPhysicianName": "PN",
    "BodyPartExamined": "CS",
    "Laterality": "CS",
    "ImageLaterality": "CS",
    "PatientOrientation": "CS",
    "AnatomicalOrientationType": "CS",
    "PatientIdentityRemoved": "CS",
    "DeidentificationMethod": "LO",
    "TimezoneOffsetFromUTC": "SH",
    "Manufacturer": "LO",
    "InstitutionName": "LO",
    "StationName": "SH",
    "SoftwareVersions": "LO",
    "LossyImageCompression": "CS",
    "LossyImageCompressionRatio": "DS",
    "LossyImageCompressionMethod": "CS",
    "FrameOfReferenceUID": "UI",
    "PositionReferenceIndicator": "LO",
    "ImagePositionPatient": "DS",
    "ImageOrientationPatient": "DS",
    "PixelSpacing": "DS",
    "ImagerPixelSpacing": "DS",
    "PixelAspectRatio": "IS",
    "SliceThickness": "DS",
}
PLAUSIBLE = {
    "DA": ["20240229", "17000101", "11111111", "2024.02.29", "20241301", "00000000", "today"],
    "TM": ["1230", "12:30:00", "246060", "12"],
    "AS": ["062Y", "62", "62Y", "-1Y"],
    "CS": ["M", "YES", "01", "00", "CHEST", "left", "L", "A\\B", "LR\\F", "X" * 17],
    "DS": [
        "1",
        "0",
        "-1",
        "nan",
        "inf",
        "1e400",
        "1,5",
        "0.12345678901234567",
        "0.5\\0.5",
        "1\\0\\0\\0\\1\\0",
        "0\\0\\0",
    ],
    "IS": ["4\\3", "0\\1", "2", "wide", "1.5\\1", "99999999999\\1"],
    "UI": ["1.2.3", "1.2.03", "2.25.", "1." * 33 + "1", "abc", "0.1.2"],
    "PN": ["Doe^Jane", "A=B=C=D", "Yamada^Tarou=山田^太郎", "^" * 9],
    "SH": ["+0530", "+9999", "X" * 17, "A\\B"],
    "LO": ["X", "X" * 65, "A\\B", "line\nbreak", "\x1b$B;3ED"],
}
CHARSETS = [
    "",
    "ISO_IR 100",
    "ISO_IR 192",
    "ISO_IR 9999",
    "ISO 2022 IR 87",
    "\\ISO 2022 IR 149",
    "GBK",
]
ANY = st.binary(max_size=70) | st.text(max_size=24).map(lambda text: text.encode())


def tried(few: int) -> settings:
    """Return how a test tries headers: the same `few` each time, or as many as are asked for."""
    return settings(
        max_examples=COUNT or few,
        derandomize=not COUNT,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # shrinking takes minutes
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def raw(keyword: str) -> st.SearchStrategy[bytes]:
    """Bytes that a file may hold in this element, valid or not."""
    texts = CHARSETS if keyword == "SpecificCharacterSet" else PLAUSIBLE[COPIED[keyword]]
    return st.just(b"") | st.sampled_from([text.encode() for text in texts]) | ANY


HEADERS = st.lists(
    st.sampled_from(["SpecificCharacterSet", *COPIED]), unique=True, max_size=12
).flatmap(lambda keywords: st.fixed_dictionaries({each: raw(each) for each in keywords}))
PLANE = {
    "FrameOfReferenceUID": b"1.2.3",
    "ImagePositionPatient": b"-1.5\\2\\1e2",
    "ImageOrientationPatient": b"1\\0\\0\\0\\1\\0",
    "PixelSpacing": b"0.5\\0.25",
    "SliceThickness": b"3",
}
SECRET = b"PRIVATE-CANARY"


def hostile(header: dict[str, bytes]) -> bytes:
    """A small image whose elements hold exactly these bytes, and a private one."""
    ordinary = image()
    ordinary.private_block(0x0011, "MAKER", create=True).add_new(0x01, "LO", SECRET.decode())
    whole = encoded(ordinary)
    ds = pydicom.dcmread(io.BytesIO(whole))
    raw_elements = {int(tag): (each.VR, each.value) for tag, each in ds.items()}
    for keyword, value in header.items():
        raw_elements[tag_for_keyword(keyword)] = (COPIED.get(keyword, "CS"), value)
    first = whole.index(struct.pack("<HH", 0x0008, 0x0016))
    return whole[:first] + b"".join(
        explicit(tag, *raw_elements[tag]) for tag in sorted(raw_elements)
    )


def explicit(tag: int, vr: str, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian."""
    padded = value + b" " * (len(value) % 2)
    long = vr in ("OB", "OW", "SQ", "UN")
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + struct.pack("<HL" if long else "<H", *([0] if long else []), len(padded)) + padded
