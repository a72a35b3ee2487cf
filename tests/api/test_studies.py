"""Studies come in by five ways; what cannot be kept says why and leaves nothing."""

import gzip
import io
import os
import socket
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from urllib.parse import urlsplit

import numpy as np
import pytest

from service.dicom import bounds
from service.errors.jobs import StoreUnavailable
from service.studies import Studies
from tests.support import corpus
from tests.support.phantom_dicom import compressed, encoded, image, of_pixels
from tests.support.problems import problem

DICOM = {"Content-Type": "application/dicom"}
ZIP = {"Content-Type": "application/zip"}
FILE_NAME = "DOE^JOHN"


def zipped(*entries, method=zipfile.ZIP_DEFLATED):
    """Return a zip archive of (name, bytes) entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def numbered(number):
    """Return an image that differs from the others."""
    return encoded(image(SOPInstanceUID=f"2.25.1{number}"))


@pytest.fixture
def nothing_stays(served):
    """Assert that a refused upload left neither files nor objects nor keys."""
    yield
    assert served.stored() == []
    assert served.uploads() == []
    with served.backends.server.client() as redis:
        assert [key for key in redis.keys("*") if "job" in key or "once" in key] == []


def test_one_object_is_a_study(served, client, dicom):
    answer = client.post("/v1/studies", content=dicom, headers=DICOM)
    body = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/studies/{body['id']}"
    assert body["skipped"] == []
    assert body["instances"] == [
        {
            "id": "in_0001",
            "series": "se_0001",
            "part": 1,
            "series_number": None,
            "instance_number": None,
            "modality": "CR",
            "body_part_examined": "CHEST",
            "image_type": [],
            "plane": None,
            "view_position": "PA",
            "laterality": "",
            "presentation_intent": "",
            "rows": 8,
            "columns": 6,
            "number_of_frames": 1,
            "photometric_interpretation": "MONOCHROME2",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "bytes": len(dicom),
        }
    ]
    stored = served.backends.store.get(f"clinic/studies/{body['id']}/in_0001.dcm")
    assert stored == dicom
    assert client.get(answer.headers["location"]).json() == body
    assert served.uploads() == []


def test_a_study_tells_which_image_of_the_upload_each_is(client):
    said = {"SeriesNumber": 3, "InstanceNumber": 41, "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}
    named = encoded(image(SOPInstanceUID="2.25.77", InstanceNumber=12345))
    files = [
        ("file", ("readme", b"no image")),
        ("file", ("1", encoded(image(**said)))),
        ("file", ("2", named.replace(b"12345 ", b"Doe 7 "))),
    ]
    first, second = client.post("/v1/studies", files=files).json()["instances"]
    assert (first["id"], first["part"]) == ("in_0001", 2)
    assert (first["series_number"], first["instance_number"]) == (3, 41)
    assert first["image_type"] == said["ImageType"]
    assert (second["part"], second["instance_number"]) == (3, None)


def test_a_form_with_files_is_a_study(client):
    files = [("file", (FILE_NAME, numbered(n), "application/dicom")) for n in (1, 2)]
    body = client.post("/v1/studies", files=files).json()
    assert [each["id"] for each in body["instances"]] == ["in_0001", "in_0002"]


def test_an_archive_is_a_study(client):
    data = zipped(("a/1.dcm", numbered(1)), ("a/2.dcm", numbered(2)))
    body = client.post("/v1/studies", content=data, headers=ZIP).json()
    assert len(body["instances"]) == 2


def test_an_object_may_compress_as_well_as_it_likes(client):
    mask = encoded(of_pixels(np.zeros((900, 900), np.uint8)))
    data = zipped(("mask.dcm", mask), method=zipfile.ZIP_DEFLATED)
    assert len(mask) > 200 * len(data)
    body = client.post("/v1/studies", content=data, headers=ZIP).json()
    assert [each["bytes"] for each in body["instances"]] == [len(mask)]


def test_an_archive_in_a_form_is_a_study(client):
    files = [
        ("file", ("x.zip", zipped(("1", numbered(1)), ("2", numbered(2))))),
        ("file", ("3.dcm", numbered(3))),
    ]
    body = client.post("/v1/studies", files=files).json()
    assert len(body["instances"]) == 3


def test_a_body_may_come_in_chunks_of_any_size(client, dicom):
    def chunks():
        for start in range(0, len(dicom), 37):
            yield dicom[start : start + 37]

    answer = client.post("/v1/studies", content=chunks(), headers=DICOM)
    assert answer.status_code == 201
    assert answer.json()["instances"][0]["bytes"] == len(dicom)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 61])
def test_a_forms_boundary_may_be_split_anywhere(client, dicom, size):
    boundary = "----x--y"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    body = head.encode() + dicom + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    answer = client.post("/v1/studies", content=chunks, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["instances"][0]["bytes"] == len(dicom)


RELATED = 'multipart/related; type="application/dicom"; boundary=b'


def related(*objects, kind="application/dicom"):
    """Return objects as the parts of one body, the way STOW-RS has them."""
    parts = (b"--b\r\nContent-Type: %s\r\n\r\n%s\r\n" % (kind.encode(), each) for each in objects)
    return b"".join(parts) + b"--b--\r\n"


def test_objects_as_a_pacs_sends_them_are_a_study(client):
    data = related(numbered(1), numbered(2))
    answer = client.post("/v1/studies", content=data, headers={"Content-Type": RELATED})
    assert answer.status_code == 201, answer.text
    assert [each["id"] for each in answer.json()["instances"]] == ["in_0001", "in_0002"]


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("content_type", "data", "status", "code"),
    [
        (RELATED, related(b"no DICOM"), 400, "not_dicom"),
        (RELATED, related(b"{}", kind="application/dicom+json"), 422, "invalid_request"),
        (RELATED, related(b"half")[:-6], 400, "malformed_body"),
        (RELATED.replace("; boundary=b", ""), related(), 400, "malformed_body"),
        (RELATED.replace("/dicom", "/dicom+xml"), related(), 415, "unsupported_media_type"),
        ("multipart/related; boundary=b", related(), 415, "unsupported_media_type"),
    ],
)
def test_related_parts_that_are_no_objects_are_refused(client, content_type, data, status, code):
    answer = client.post("/v1/studies", content=data, headers={"Content-Type": content_type})
    problem(answer, status, code)


def test_what_is_no_image_is_skipped_with_its_place_and_reason(client, dicom):
    data = zipped(("README", b"hello"), ("1.dcm", dicom), ("again.dcm", dicom))
    body = client.post("/v1/studies", content=data, headers=ZIP).json()
    assert len(body["instances"]) == 1
    skipped = [(each["part"], each["code"]) for each in body["skipped"]]
    assert skipped == [(1, "not_dicom"), (3, "duplicate")]


def test_a_mixed_study_keeps_its_images_and_says_what_the_rest_is(client, dicom):
    paper = image(PixelData=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", Modality="DOC")
    segments = image(BitsAllocated=1, BitsStored=1, HighBit=0, Modality="SEG", Columns=8)
    scout = image(SOPInstanceUID="2.25.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    objects = [encoded(each) for each in (paper, segments, scout)]
    data = zipped(("DICOMDIR", b"x"), *((str(n), each) for n, each in enumerate(objects)))
    body = client.post("/v1/studies", files=[("file", ("a", data)), ("file", ("b", dicom))]).json()
    assert len(body["instances"]) == 2
    assert [each["code"] for each in body["skipped"]] == [
        "not_dicom",
        "no_pixel_data",
        "unsupported_image",
    ]
    assert "Encapsulated PDF" in body["skipped"][1]["detail"]


REAL = {
    "data_pydicom/CT_small.dcm": None,
    "/DICOMDIR": "no_pixel_data: Media Storage Directory Storage",
    "/rtplan.dcm": "no_pixel_data: RT Plan Storage",
    "/sr_document.dcm": "no_pixel_data: Comprehensive 3D SR Storage",
    "/MR_truncated.dcm": "truncated: pixel data is shorter",
}
"""Real files as they lie about in one folder, and what is said of each that is not kept."""


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
def test_of_real_files_the_image_is_kept_and_the_others_are_named(client):
    data = zipped(*((f"{n}", corpus.find(each).read_bytes()) for n, each in enumerate(REAL)))
    body = client.post("/v1/studies", content=data, headers=ZIP).json()
    assert [each["modality"] for each in body["instances"]] == ["CT"]
    assert [each["part"] for each in body["skipped"]] == [2, 3, 4, 5]
    expected = [each.split(": ") for each in REAL.values() if each is not None]
    for said, (code, about) in zip(body["skipped"], expected, strict=True):
        assert said["code"] == code
        assert about in said["detail"]


REFUSED = [
    ({}, b"", 400, "not_dicom"),
    ({}, b"hello, I am no DICOM object", 400, "not_dicom"),
    ({}, b"\x89PNG\r\n\x1a\n" + bytes(500), 400, "not_dicom"),
    ({"PixelData": None}, None, 422, "no_pixel_data"),
    ({"Rows": 0}, None, 422, "absurd_dimensions"),
    ({"Rows": [8, 9]}, None, 422, "absurd_dimensions"),
    ({"Rows": 60000, "Columns": 60000}, None, 413, "absurd_dimensions"),
    ({"NumberOfFrames": "2000000000"}, None, 422, "absurd_dimensions"),
    ({"Rows": 9}, None, 400, "truncated"),
]


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(("changes", "data", "status", "code"), REFUSED)
def test_an_object_that_cannot_be_kept_says_why(client, changes, data, status, code):
    content = encoded(image(**changes)) if data is None else data
    problem(client.post("/v1/studies", content=content, headers=DICOM), status, code)


@pytest.mark.usefixtures("nothing_stays")
def test_a_truncated_object_says_so(client, dicom):
    answer = client.post("/v1/studies", content=dicom[:-40], headers=DICOM)
    problem(answer, 400, "truncated")


@pytest.mark.usefixtures("nothing_stays")
def test_an_unsupported_transfer_syntax_says_so(client):
    mpeg = compressed(image(), "1.2.840.10008.1.2.4.100", b"\0\0\1\xb3")
    body = problem(
        client.post("/v1/studies", content=mpeg, headers=DICOM), 415, "unsupported_transfer_syntax"
    )
    assert body["facts"]["transfer_syntax"] == "MPEG2 Main Profile / Main Level"
    assert "MPEG2 Main Profile / Main Level" in body["detail"]


@pytest.mark.usefixtures("nothing_stays")
def test_an_image_without_its_series_is_told_what_it_lacks(client):
    data = encoded(image(SeriesInstanceUID=None))
    body = problem(client.post("/v1/studies", content=data, headers=DICOM), 400, "not_dicom")
    assert "Series Instance UID (0020,000E)" in body["detail"]
    assert body["title"] != "Not a DICOM object"  # it is one


def test_the_elements_of_all_objects_of_an_upload_are_counted_together(client, monkeypatch):
    archive = zipped(*((str(each), numbered(each)) for each in range(6)))
    monkeypatch.setattr(bounds, "TOGETHER", 500)  # reads; of one image there are some hundred
    assert client.post("/v1/studies", content=numbered(1), headers=DICOM).status_code == 201
    refused = client.post("/v1/studies", content=archive, headers=ZIP)
    assert problem(refused, 413, "too_large")["facts"] == {"limit": 500}


@pytest.mark.usefixtures("nothing_stays")
def test_an_upload_of_which_nothing_can_be_kept_says_why_for_each(client):
    data = zipped(("a", b"one"), ("b", encoded(image(PixelData=None))))
    body = problem(client.post("/v1/studies", content=data, headers=ZIP), 422, "nothing_usable")
    assert [each["code"] for each in body["facts"]["skipped"]] == ["not_dicom", "no_pixel_data"]


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"this is no archive", 422, "unsafe_archive"),
        (zipped(("../../etc/passwd", b"x")), 422, "unsafe_archive"),
        (zipped(("/etc/passwd", b"x")), 422, "unsafe_archive"),
        (zipped(("inner.zip", zipped(("a", b"x")))), 400, "not_dicom"),
        (zipped(("bomb", bytes(1_990_000))), 413, "archive_too_large"),
        (zipped(("bomb", os.urandom(1000) + bytes(2_500_000))), 413, "archive_too_large"),
        (zipped(*((str(n), b"x") for n in range(9))), 413, "too_large"),
        (zipped(), 422, "invalid_request"),
    ],
    ids=["none", "parent", "absolute", "nested", "ratio", "expansion", "entries", "empty"],
)
def test_an_archive_that_could_harm_is_refused(client, data, status, code):
    problem(client.post("/v1/studies", content=data, headers=ZIP), status, code)


def test_archives_within_are_skipped_unopened(client):
    inner = [zipped(("x.class", numbered(2))), gzip.compress(numbered(3))]
    data = zipped(("./1.dcm", numbered(1)), ("viewer.jar", inner[0]), ("2.dcm.gz", inner[1]))
    for answer in (
        client.post("/v1/studies", content=data, headers=ZIP),
        client.post("/v1/studies", files=[("file", ("disc.zip", data))]),
    ):
        body = answer.json()
        assert answer.status_code == 201
        assert len(body["instances"]) == 1
        assert [(each["part"], each["code"]) for each in body["skipped"]] == [
            (2, "not_dicom"),
            (3, "not_dicom"),
        ]
        assert all("unpack it first" in each["detail"] for each in body["skipped"])


@pytest.mark.usefixtures("nothing_stays")
def test_an_encoded_body_is_refused_as_such(client, dicom):
    encoded_as = DICOM | {"Content-Encoding": "gzip"}
    answer = client.post("/v1/studies", content=gzip.compress(dicom), headers=encoded_as)
    body = problem(answer, 415, "unsupported_media_type")
    assert body["facts"] == {"supported": ["identity"]}
    plain = DICOM | {"Content-Encoding": "identity"}
    sent_plain = client.post("/v1/studies", content=dicom, headers=plain)
    assert client.delete(sent_plain.headers["location"]).status_code == 200


@pytest.mark.usefixtures("nothing_stays")
def test_an_archive_that_expands_too_far_tells_the_limit_and_what_was_observed(client):
    bomb = zipped(("bomb", bytes(1_990_000)))
    body = problem(client.post("/v1/studies", content=bomb, headers=ZIP), 413, "archive_too_large")
    assert body["facts"].keys() == {"entry", "limit_ratio", "observed_ratio"}
    assert body["facts"]["observed_ratio"] > body["facts"]["limit_ratio"] == 100
    large = zipped(("large", os.urandom(1000) + bytes(2_500_000)))
    body = problem(client.post("/v1/studies", content=large, headers=ZIP), 413, "archive_too_large")
    assert body["facts"] == {"limit_bytes": 2_000_000, "observed_bytes": 2_501_000}


@pytest.mark.usefixtures("nothing_stays")
def test_two_patients_studies_are_not_made_one(client):
    other = image(SOPInstanceUID="2.25.99", StudyInstanceUID="2.25.98", PatientID="other")
    data = zipped(("1.dcm", numbered(1)), ("note.txt", b"text"), ("2.dcm", encoded(other)))
    body = problem(client.post("/v1/studies", content=data, headers=ZIP), 422, "several_studies")
    assert body["facts"] == {"part": 3}


def named(number: int, patient: str | None, **changes) -> bytes:
    """Bytes of an image of one study that names a patient, or none."""
    return encoded(image(SOPInstanceUID=f"2.25.1{number}", PatientID=patient, **changes))


@pytest.mark.usefixtures("nothing_stays")
def test_two_patients_of_one_study_are_not_made_one(client):
    data = zipped(("1", named(1, "A")), ("2", named(2, None)), ("3", named(3, "A ")))
    answer = client.post("/v1/studies", content=data, headers=ZIP)
    assert answer.status_code == 201  # who is not named contradicts nobody; padding is no name
    assert client.delete(answer.headers["location"]).status_code == 200
    data = zipped(("1", named(1, None)), ("2", named(2, "CANARY-A")), ("3", named(3, "CANARY-B")))
    answer = client.post("/v1/studies", content=data, headers=ZIP)
    body = problem(answer, 422, "several_patients")
    assert body["facts"] == {"part": 3, "differing": ["patient_id"]}
    assert "CANARY" not in answer.text


JANE = {
    "PatientID": "PID",
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
}
NOBODY = dict.fromkeys(JANE, "")


def sent(client, *of_patients):
    """Send images of one study, each with what it says of its patient."""
    images = [
        encoded(image(**NOBODY | {"SOPInstanceUID": f"2.25.1{n}"} | said))
        for n, said in enumerate(of_patients)
    ]
    data = zipped(*((str(n), each) for n, each in enumerate(images)))
    return client.post("/v1/studies", content=data, headers=ZIP)


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("one", "other", "differing"),
    [
        (JANE | {"PatientID": ""}, {"PatientName": "ROE^JIM"}, ["patient_name"]),
        (
            JANE | {"PatientID": ""},
            {"PatientName": "DOE^JIM", "PatientBirthDate": "19330303", "PatientSex": "M"},
            ["patient_name", "patient_birth_date", "patient_sex"],
        ),
        (JANE, {"PatientName": "ROE^JIM"}, ["patient_name"]),
        (JANE, JANE | {"PatientBirthDate": "1933.03.03"}, ["patient_birth_date"]),
        (
            JANE | {"IssuerOfPatientID": "HERE"},
            JANE | {"IssuerOfPatientID": "THERE"},
            ["issuer_of_patient_id"],
        ),
        (
            {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Yamada^Tarou=山田^太郎"},
            {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Yamada^Tarou=山本^太郎"},
            ["patient_name"],
        ),
    ],
    ids=["name", "all", "no id beside one", "birth date", "issuer", "ideographs"],
)
def test_patients_are_told_apart_by_all_that_names_them(client, one, other, differing):
    answer = sent(client, one, {}, other)
    body = problem(answer, 422, "several_patients")
    assert body["facts"] == {"part": 3, "differing": differing}
    assert "JIM" not in answer.text
    assert "THERE" not in answer.text


@pytest.mark.parametrize(
    "same",
    [
        {"PatientName": "DOE^JANE^^Dr. ", "PatientSex": "f"},
        {"PatientName": "Doe Jane", "PatientBirthDate": "1970.01.01"},
        {"PatientName": "DOE", "PatientSex": "O", "PatientBirthDate": "00000000"},
        {"PatientName": "Doe^Jane^Mary=山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
        {"PatientName": "Dö^Jane", "SpecificCharacterSet": "ISO_IR 100"},
        {"PatientID": " PID ", "IssuerOfPatientID": "HERE"},
    ],
    ids=["case", "words", "unknown", "middle", "no text", "padding"],
)
def test_one_patient_who_is_written_in_several_ways_is_one(client, same):
    wrong = (b"ISO_IR 100", b"ISO_IR 192")  # makes Latin-1 bytes that no character set tells
    data = zipped(
        ("1", encoded(image(SOPInstanceUID="2.25.11", **JANE))),
        ("2", encoded(image(**NOBODY | {"SOPInstanceUID": "2.25.12"} | same)).replace(*wrong)),
    )
    answer = client.post("/v1/studies", content=data, headers=ZIP)
    assert answer.status_code == 201, answer.text


@pytest.mark.usefixtures("nothing_stays")
def test_different_objects_of_one_identity_are_refused(client):
    files = [("file", ("x", each)) for each in (named(1, "A"), named(1, "A", Rows=6, Columns=8))]
    body = problem(client.post("/v1/studies", files=files), 422, "contradictory_objects")
    assert body["facts"] == {"part": 2}


def test_a_study_that_is_held_with_another_patient_is_refused_until_that_one_is_deleted(
    served, client
):
    first = client.post("/v1/studies", content=named(1, "CANARY-A"), headers=DICOM)
    before = served.stored()
    answer = client.post("/v1/studies", content=named(2, "CANARY-B"), headers=DICOM)
    body = problem(answer, 409, "study_contradicted")
    differing = {"differs": "patient", "differing": ["patient_id"]}
    assert body["facts"] == {"study": first.json()["id"], **differing}
    assert "CANARY" not in answer.text
    assert served.stored() == before
    assert client.delete(first.headers["location"]).status_code == 200
    assert served.stored() == []
    assert client.post("/v1/studies", content=named(2, "CANARY-B"), headers=DICOM).is_success


def test_an_object_that_comes_again_with_other_bytes_is_refused(served, client):
    first = client.post("/v1/studies", content=named(1, "A"), headers=DICOM)
    before = served.stored()
    other = zipped(("new", named(2, "A")), ("again", named(1, "A", ViewPosition="LL")))
    answer = client.post("/v1/studies", content=other, headers=ZIP)
    body = problem(answer, 409, "study_contradicted")
    assert body["facts"] == {"study": first.json()["id"], "differs": "object"}
    assert served.stored() == before
    more = zipped(("new", named(2, "A")), ("again", named(1, "A")))
    assert client.post("/v1/studies", content=more, headers=ZIP).status_code == 201
    assert client.post("/v1/studies", content=named(1, "A"), headers=DICOM).status_code == 201


def test_what_one_tenant_holds_contradicts_no_other(served, client):
    assert client.post("/v1/studies", content=named(1, "A"), headers=DICOM).status_code == 201
    with served.client(served.key("other")) as other:
        assert other.post("/v1/studies", content=named(1, "B"), headers=DICOM).status_code == 201


def test_of_two_patients_at_one_moment_never_both_are_taken_in(served, client):
    together = Barrier(2)

    def send(patient: str) -> int:
        together.wait()
        return client.post("/v1/studies", content=named(1, patient), headers=DICOM).status_code

    with ThreadPoolExecutor(2) as pool:
        statuses = sorted(pool.map(send, "AB"))
    assert statuses in ([201, 409], [409, 409])
    held = [each for each in served.stored() if each.endswith("/study.json")]
    assert len(held) == statuses.count(201)


@pytest.mark.usefixtures("nothing_stays")
def test_too_many_objects_are_refused(client):
    data = zipped(*((f"{n}.dcm", numbered(n)) for n in range(6)))
    body = problem(client.post("/v1/studies", content=data, headers=ZIP), 413, "too_large")
    assert body["facts"] == {"limit": 5}
    files = [("file", ("x", numbered(n))) for n in range(6)]
    problem(client.post("/v1/studies", files=files), 413, "too_large")


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("content_type", ["application/dicom", "application/zip"])
def test_a_body_over_the_limit_is_refused_whether_announced_or_not(client, content_type):
    headers = {"Content-Type": content_type}
    body = problem(
        client.post("/v1/studies", content=bytes(2_000_001), headers=headers), 413, "too_large"
    )
    assert body["facts"] == {"limit": 2_000_000, "observed": 2_000_001}

    def chunks():
        for _ in range(21):
            yield bytes(100_000)

    answer = client.post("/v1/studies", content=chunks(), headers=headers)
    facts = problem(answer, 413, "too_large")["facts"]
    assert facts["limit"] == 2_000_000 < facts["observed"] <= 2_100_000


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json", "image/png"])
def test_another_content_type_is_refused(client, dicom, content_type):
    answer = client.post("/v1/studies", content=dicom, headers={"Content-Type": content_type})
    body = problem(answer, 415, "unsupported_media_type")
    assert "application/dicom" in body["facts"]["supported"]


FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("content_type", "data", "status", "code"),
    [
        ("multipart/form-data", b"", 400, "malformed_body"),
        ("multipart/form-data; boundary=" + "b" * 71, b"", 400, "malformed_body"),
        (FORM, b"", 400, "malformed_body"),
        (FORM, b"nothing of a form", 400, "malformed_body"),
        (FORM, PART % (b"file", b"half"), 400, "malformed_body"),
        (FORM, b"--b\r\n" + b"X: y\r\n" * 17 + b"\r\n\r\n--b--\r\n", 400, "malformed_body"),
        (FORM, b"--b\r\nX: " + b"y" * 5000 + b"\r\n\r\n\r\n--b--\r\n", 400, "malformed_body"),
        (FORM, PART % (b"photo", b"x") + b"--b--\r\n", 422, "invalid_request"),
        (FORM, PART % (b"request", b"{}") + b"--b--\r\n", 422, "invalid_request"),
        (FORM, PART % (b"request", b"x" * 20_001) + b"--b--\r\n", 413, "too_large"),
        (FORM, PART % (b"file", b"no DICOM") + b"--b--\r\n", 400, "not_dicom"),
        (FORM, b"--b--\r\n", 422, "invalid_request"),
    ],
)
def test_a_form_that_is_none_is_refused(client, content_type, data, status, code):
    answer = client.post("/v1/studies", content=data, headers={"Content-Type": content_type})
    problem(answer, status, code)


@pytest.mark.usefixtures("nothing_stays")
def test_a_caller_who_leaves_in_mid_upload_leaves_nothing(served):
    parts = urlsplit(served.url)
    head = (
        f"POST /v1/studies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key()}\r\n"
        "Content-Type: application/dicom\r\nContent-Length: 1500000\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as line:
        line.sendall(head.encode() + bytes(1_200_000))
        wait_until(served.uploads)
    wait_until(lambda: not served.uploads())


@pytest.mark.usefixtures("nothing_stays")
def test_a_store_that_fails_in_mid_study_keeps_nothing_of_it(served, client, monkeypatch):
    put = served.backends.store.put

    def failing(path, data, **options):
        if path.endswith("study.json"):
            raise StoreUnavailable("The object store does not answer; try again shortly.")
        put(path, data, **options)

    monkeypatch.setattr(served.backends.store, "put", failing)
    data = zipped(("1", numbered(1)), ("2", numbered(2)))
    problem(client.post("/v1/studies", content=data, headers=ZIP), 503, "store_unavailable")


@pytest.mark.usefixtures("nothing_stays")
def test_too_many_uploads_at_once_are_asked_to_wait(served, client, dicom, monkeypatch):
    monkeypatch.setattr(served.gateway.scratch, "_limit", 100)
    body = problem(client.post("/v1/studies", content=dicom, headers=DICOM), 507, "out_of_storage")
    assert body["retryable"] is True
    monkeypatch.setattr(served.gateway.scratch, "_limit", 10_000)
    assert served.gateway.scratch._used == 0


def test_studies_are_listed_newest_first_page_by_page(client, send):
    ids = []
    for _ in range(3):
        ids.append(send().json()["id"])
        time.sleep(0.01)  # the store tells times in milliseconds
    first = client.get("/v1/studies", params={"limit": 2}).json()
    rest = client.get("/v1/studies", params={"limit": 2, "cursor": first["cursor"]}).json()
    assert [each["id"] for each in first["studies"] + rest["studies"]] == ids[::-1]
    assert rest["cursor"] is None


def test_a_removed_study_leaves_nothing(served, client, study):
    answer = client.delete(f"/v1/studies/{study}")
    assert answer.json() == {"id": study, "objects": 2}
    assert served.stored() == []
    problem(client.get(f"/v1/studies/{study}"), 404, "not_found")
    problem(client.delete(f"/v1/studies/{study}"), 404, "not_found")


def test_a_study_stays_while_a_job_needs_it(client, worker, ask, job):
    answer = client.delete(f"/v1/studies/{ask['study']}")
    body = problem(answer, 409, "conflict")
    assert body["facts"] == {"job": job}
    worker.lease()
    problem(client.delete(f"/v1/studies/{ask['study']}"), 409, "conflict")


def test_a_study_whose_jobs_have_ended_can_be_removed(client, worker, ask, job):
    worker.succeed()
    assert client.delete(f"/v1/studies/{ask['study']}").status_code == 200
    assert client.get(f"/v1/explanations/{job}").json()["state"] == "succeeded"


def test_no_uid_and_no_name_is_told_of_a_study(client, study):
    text = client.get(f"/v1/studies/{study}").text
    assert "2.25." not in text
    assert "Canary" not in text


def test_many_listings_read_only_their_page(client, send, monkeypatch):
    for _ in range(3):
        send()
    read = []
    get = Studies.get
    monkeypatch.setattr(Studies, "get", lambda *args: read.append(1) or get(*args))
    client.get("/v1/studies", params={"limit": 1})
    assert len(read) == 1


def wait_until(condition, seconds=10.0):
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
