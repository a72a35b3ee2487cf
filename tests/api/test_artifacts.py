"""Artifacts: listed, bundled, fetched whole and in pieces."""

import io
import zipfile
from email.parser import BytesParser
from email.policy import HTTP

import pytest

from service.domain.explanation import Omission, Result
from service.errors.studies import FormatNotApplicable
from tests.support.problems import problem

NAME = "saliency.nodule.png"
DATA = b"saliency.nodule.png " * 1000
DICOM_DATA = b"saliency.nodule.dcm " * 1000


@pytest.fixture
def base(worker, job):
    """Path of a finished job's artifacts."""
    worker.succeed()
    return f"/v1/explanations/{job}/artifacts"


def test_without_a_wish_the_index_is_given(client, base):
    answer = client.get(base, headers={"Accept": "*/*"})
    files = answer.json()["artifacts"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept"
    assert answer.headers["cache-control"] == "no-store"
    assert [each["name"] for each in files] == ["saliency.nodule.dcm", NAME, "job.json"]
    assert files[1]["href"] == f"{base}/{NAME}"


def test_all_files_come_as_an_archive(client, base):
    answer = client.get(base, headers={"Accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["saliency.nodule.dcm", NAME, "job.json"]
        assert archive.read(NAME) == DATA
    again = client.get(base, headers={"Accept": "application/zip"})
    assert again.content == answer.content


def test_all_dicom_objects_come_as_parts(client, base):
    wish = 'multipart/related; type="application/dicom"'
    answer = client.get(base, headers={"Accept": wish})
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + answer.content)
    (part,) = message.iter_parts()
    assert part.get_content_type() == "application/dicom"
    assert part.get_payload(decode=True) == DICOM_DATA


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("application/zip;q=0.5, application/json;q=0.4", "application/zip"),
        ("text/html, application/*;q=0.1", "application/json"),
        ("application/json;q=0, application/*", "application/zip"),
        ("", "application/json"),
    ],
)
def test_the_best_liked_form_is_given(client, base, accept, given):
    answer = client.get(base, headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(given)


@pytest.mark.parametrize("path", ["", f"/{NAME}"])
def test_a_form_that_cannot_be_given_is_refused_with_those_that_can(client, base, path):
    answer = client.get(base + path, headers={"Accept": "video/mp4"})
    assert problem(answer, 406, "not_acceptable")["facts"]["offered"]


def test_an_artifact_that_was_left_out_is_refused_with_what_can_be_had(client, worker, job):
    reason = FormatNotApplicable(
        "The map is too large.", reason="too_many_values", alternatives=["npy"]
    ).failure()
    left_out = Omission(name="saliency.nodule.json", format="json", reason=reason)
    result = Result(
        method="saliency",
        version=1,
        parameters={},
        target=None,
        status="succeeded",
        omitted=(left_out,),
    )
    worker.succeed(results=(result,))
    told = client.get(f"/v1/explanations/{job}").json()["results"][0]["omitted"]
    assert [each["name"] for each in told] == ["saliency.nodule.json"]
    answer = client.get(f"/v1/explanations/{job}/artifacts/saliency.nodule.json")
    body = problem(answer, 406, "not_acceptable")
    assert (body["facts"]["format"], body["facts"]["alternatives"]) == ("json", ["npy"])
    assert body["detail"] == "The map is too large."
    assert "accept" not in body["title"]  # the request accepts anything


def test_a_file_comes_with_its_digest_and_name(client, base):
    answer = client.get(f"{base}/{NAME}")
    (entry,) = [each for each in client.get(base).json()["artifacts"] if each["name"] == NAME]
    assert answer.content == DATA
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"] == f'"{entry["sha256"]}"'
    assert answer.headers["content-disposition"] == f'attachment; filename="{NAME}"'
    assert answer.headers["content-length"] == str(len(DATA))


def test_the_headers_alone_can_be_had(client, base):
    answer = client.head(f"{base}/{NAME}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(DATA))
    assert client.head(base).status_code == 200


def test_a_file_that_is_known_is_not_sent_again(client, base):
    tag = client.get(f"{base}/{NAME}").headers["etag"]
    answer = client.get(f"{base}/{NAME}", headers={"If-None-Match": f'"x", {tag}'})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize(
    ("wish", "start", "end"),
    [("0-9", 0, 10), ("100-199", 100, 200), ("19990-", 19990, 20000), ("-5", 19995, 20000),
     ("19990-99999", 19990, 20000), ("-99999", 0, 20000)],
)  # fmt: skip
def test_a_range_is_given(client, base, wish, start, end):
    answer = client.get(f"{base}/{NAME}", headers={"Range": f"bytes={wish}"})
    assert answer.status_code == 206
    assert answer.content == DATA[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/20000"
    assert answer.headers["content-length"] == str(end - start)


def test_a_range_beyond_the_end_is_refused(client, base):
    answer = client.get(f"{base}/{NAME}", headers={"Range": "bytes=20000-"})
    assert problem(answer, 416, "range_not_satisfiable")["facts"] == {"size": 20000}
    assert answer.headers["content-range"] == "bytes */20000"


@pytest.mark.parametrize(
    "wish", ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=a-b"]
)
def test_what_is_no_single_range_is_passed_over(client, base, wish):
    answer = client.get(f"{base}/{NAME}", headers={"Range": wish})
    assert (answer.status_code, answer.content) == (200, DATA)


def test_a_range_of_another_version_is_not_given(client, base):
    headers = {"Range": "bytes=0-9", "If-Range": '"another"'}
    assert client.get(f"{base}/{NAME}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "name", ["saliency.effusion.png", "study.json", "..%2fjob.json", "x" * 300]
)
def test_only_listed_names_are_served(client, base, name):
    problem(client.get(f"{base}/{name}"), 404, "not_found")


@pytest.mark.parametrize("path", ["", f"/{NAME}"])
def test_results_that_are_not_ready_say_when_to_ask_again(client, job, path):
    answer = client.get(f"/v1/explanations/{job}/artifacts{path}")
    body = problem(answer, 409, "result_not_ready")
    assert body["retryable"] is True
    assert answer.headers["retry-after"] == "1"
    assert body["facts"] == {"state": "queued"}


def test_a_job_without_results_has_an_empty_index(client, job):
    client.post(f"/v1/explanations/{job}/cancel")
    base = f"/v1/explanations/{job}/artifacts"
    assert client.get(base).json() == {"artifacts": []}
    problem(client.get(f"{base}/{NAME}"), 404, "not_found")


def test_files_that_were_removed_are_gone(served, client, base, job):
    served.backends.store.purge(f"clinic/jobs/{job}")
    problem(client.get(base), 410, "gone")
    problem(client.get(f"{base}/{NAME}"), 410, "gone")
