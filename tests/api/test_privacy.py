"""Nothing of a patient leaves the objects that were sent: marks in every place prove it."""

import io
import json
import logging
import urllib.request
import zipfile

import pytest
from pydicom.datadict import DicomDictionary, keyword_dict
from pydicom.valuerep import VR

from service import telemetry
from tests.support.phantom_dicom import encoded, image
from tests.support.ports import free_port

MARK = "ZZCANARY"
UID = "2.25.987654321987654321"
TEXTS = {VR.PN, VR.LO, VR.SH, VR.ST, VR.LT, VR.UT, VR.UC, VR.AE}
ADDRESSED = {"CS": f"{MARK}", "PN": f"{MARK}^PATIENT", "AE": MARK}


def marked(**changes):
    """Return an image with a mark in every text attribute of the dictionary, and marked UIDs."""
    ds = image(**changes)
    for tag, (vr, multiplicity, _, retired, keyword) in DicomDictionary.items():
        if retired or not keyword or vr not in TEXTS or multiplicity[0] != "1" or tag >> 16 < 8:
            continue
        setattr(ds, keyword, ADDRESSED.get(str(vr), f"{MARK} {keyword}"[:16]))
    ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = (
        f"{UID}.{number}" for number in (1, 2, 3)
    )
    return ds


def zipped(name, data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def spoken(capsys):
    """Everything that this process logs, as it would be written."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    telemetry.configure("DEBUG", "gateway")
    lines = []
    yield lambda: lines.append(capsys.readouterr().err) or "".join(lines)
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = before


def scraped():
    stop = telemetry.serve_metrics(port := free_port())
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    finally:
        stop()


def dumped(served):
    """Return every key and value that Redis holds."""
    with served.backends.server.client() as redis:
        keys = redis.keys("*")
        return " ".join([*keys, *_values(redis, keys)])


def _values(redis, keys):
    readers = {
        "string": redis.get,
        "hash": redis.hgetall,
        "list": lambda key: redis.lrange(key, 0, -1),
        "set": redis.smembers,
        "zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        "stream": redis.xrange,
    }
    for key in keys:
        yield str(readers[redis.type(key)](key))


def requests(client, data):
    """Send the marks through every door; yields the answers."""
    wrong = f"{MARK}^{MARK}"
    dicom = {"Content-Type": "application/dicom"}
    form = [("file", (f"{MARK}.dcm", data, "application/dicom"))]
    yield client.post("/v1/studies", content=data, headers=dicom)
    yield client.post("/v1/studies", files=form)
    yield client.post("/v1/studies", files=[(MARK, (MARK, data))])
    yield client.post(
        "/v1/studies",
        content=zipped(f"{MARK}/{MARK}.dcm", data),
        headers={"Content-Type": "application/zip"},
    )
    yield client.post(
        "/v1/studies",
        content=zipped(f"../{MARK}", data),
        headers={"Content-Type": "application/zip"},
    )
    yield client.post("/v1/studies", content=data[:-30], headers=dicom)
    yield client.post("/v1/studies", content=encoded(marked(PixelData=None)), headers=dicom)
    yield client.post("/v1/studies", content=encoded(marked(Rows=0)), headers=dicom)
    yield client.post("/v1/studies", content=MARK.encode(), headers=dicom)
    yield client.post("/v1/studies", content=b"", headers={"Content-Type": MARK})
    yield client.get(f"/v1/studies/{MARK}", headers={"X-Request-ID": MARK, "User-Agent": MARK})
    yield client.get(f"/{MARK}", params={MARK: MARK})
    yield client.request(MARK, "/v1/studies")
    yield client.get("/v1/studies", params={"cursor": MARK, "limit": MARK})
    yield client.get("/v1/studies", headers={"Authorization": f"Bearer {MARK}"})
    yield client.get("/v1/explanations", params={"state": MARK, "created_from": MARK})
    yield client.get(f"/v1/models/{MARK.lower()}/versions/{MARK}")
    yield client.get(f"/v1/methods/{MARK}")
    for body in (
        {"study": wrong, "model": wrong, "methods": [wrong], "targets": [wrong], wrong: wrong},
        {"study": "st_1", "model": MARK.lower(), "methods": [MARK.lower()]},
        {"study": "st_1", "model": "chest", "methods": ["saliency"], "targets": [MARK.lower()]},
        {"study": "st_1", "model": "chest", "methods": ["saliency"], "label": wrong},
        {"study": "st_1", "model": "chest", "methods": ["saliency"], "priority": wrong},
        {"study": "st_1", "model": "chest", "methods": [{"name": "saliency", "parameters": wrong}]},
        [wrong],
        wrong,
    ):
        yield client.post("/v1/explanations", json=body, headers={"Idempotency-Key": MARK})
    yield client.post(
        "/v1/explanations",
        files=[*form, ("request", (None, json.dumps({"model": wrong}), "application/json"))],
        headers={"Prefer": MARK},
    )


def test_no_mark_leaves_by_answers_logs_metrics_or_redis(served, client, worker, ask, spoken):
    data = encoded(marked())
    assert data.count(MARK.encode()) > 300
    statuses = set()
    for answer in requests(client, data):
        statuses.add(answer.status_code)
        told = answer.text + str(dict(answer.headers))
        assert MARK not in told.upper(), (answer.request.url, told)
        assert UID not in told
    assert statuses >= {201, 400, 401, 404, 415, 422}
    study = client.post(
        "/v1/studies", content=data, headers={"Content-Type": "application/dicom"}
    ).json()["id"]
    job = client.post("/v1/explanations", json=ask | {"study": study}).json()["id"]
    assert client.get(f"/v1/explanations/{job}").status_code == 200
    in_redis = dumped(served)
    assert study in in_redis, "the search would find nothing"
    worker.succeed()
    written = spoken()
    assert "http_request" in written
    for place in (in_redis, dumped(served), written, scraped(), *served.stored()):
        assert MARK not in place.upper()
        assert UID not in place


def test_a_bug_is_told_by_its_place_alone(served, client, monkeypatch, spoken):
    def broken(*_args, **_options):
        raise ValueError(f"{MARK} in {UID}")

    monkeypatch.setattr(served.gateway.explain.studies, "list", broken)
    answer = client.get("/v1/studies")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert answer.json()["instance"] == answer.headers["x-request-id"]
    written = spoken()
    assert "ValueError" in written
    assert answer.json()["instance"] in written
    assert __name__ in written, "the place is told"
    for place in (answer.text, written):
        assert MARK not in place
        assert UID not in place


def test_the_marks_cover_the_attributes_that_name_patients():
    keywords = {each.keyword for each in marked() if MARK in str(each.value)}
    assert {"PatientName", "PatientID", "OtherPatientNames", "ReferringPhysicianName"} <= keywords
    assert keywords <= set(keyword_dict)
