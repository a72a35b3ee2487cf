"""What is not, to the byte, what was computed for the job is never handed out."""

import hashlib
import json

import pytest

from tests.support.problems import problem

NAME = "saliency.nodule.png"
DICOM_NAME = "saliency.nodule.dcm"
ZIP = {"Accept": "application/zip"}
RELATED = {"Accept": "multipart/related"}


class Results:
    """A finished job's folder in the store, for somebody who meddles with it."""

    def __init__(self, store, record):
        self._store, self.prefix, self.id = store, record.result, record.id

    def read(self, name):
        return self._store.get(f"{self.prefix}/{name}")

    def plant(self, name, data):
        self._store.put(f"{self.prefix}/{name}", data)

    @property
    def url(self):
        return f"/v1/explanations/{self.id}"


@pytest.fixture
def finish(served, worker, client, ask):
    """Have a job done; returns its results."""

    def done(**changes):
        job = client.post("/v1/explanations", json=ask | changes).json()["id"]
        worker.succeed()
        return Results(served.backends.store, served.backends.queue.get("clinic", job))

    return done


@pytest.fixture
def mine(finish):
    return finish()


def damaged(answer):
    """The answer is the problem alone: not one byte of a file."""
    body = problem(answer, 500, "result_damaged")
    assert not body["retryable"]
    assert "etag" not in answer.headers


def edited(results, **changes):
    results.plant("job.json", json.dumps(json.loads(results.read("job.json")) | changes).encode())


def sealed_anew(document):
    """The document with the seal that its content asks for, taken by hand."""
    rest = {name: value for name, value in document.items() if name != "seal"}
    spelled = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return rest | {"seal": hashlib.sha256(spelled.encode()).hexdigest()}


def test_a_stale_map_planted_in_the_store_is_found(client, mine):
    stale = b"\0" + mine.read(NAME)[1:]  # same length: only its digest tells
    mine.plant(NAME, stale)
    damaged(client.get(f"{mine.url}/artifacts/{NAME}"))
    damaged(client.get(f"{mine.url}/artifacts", headers=ZIP))


@pytest.mark.parametrize("wish", ["bytes=0-9", "bytes=19990-", "bytes=-1"])
def test_no_range_of_a_changed_file_is_given_even_if_the_range_is_whole(client, mine, wish):
    data = bytearray(mine.read(NAME))
    data[10_000] ^= 1  # outside of every range that is asked for
    mine.plant(NAME, bytes(data))
    damaged(client.get(f"{mine.url}/artifacts/{NAME}", headers={"Range": wish}))


def test_two_results_under_each_others_names_are_found(client, mine):
    picture, capture = mine.read(NAME), mine.read(DICOM_NAME)
    mine.plant(NAME, capture)
    mine.plant(DICOM_NAME, picture)
    damaged(client.get(f"{mine.url}/artifacts/{NAME}"))
    damaged(client.get(f"{mine.url}/artifacts/{DICOM_NAME}"))
    damaged(client.get(f"{mine.url}/artifacts", headers=RELATED))


def test_a_file_that_is_whole_is_still_given_beside_a_damaged_one(client, mine):
    mine.plant(DICOM_NAME, b"x" * 20000)
    assert client.get(f"{mine.url}/artifacts/{NAME}").content == mine.read(NAME)
    assert client.head(f"{mine.url}/artifacts/{DICOM_NAME}").status_code == 200


def test_two_jobs_whose_documents_are_crossed_are_both_found(client, finish):
    """Each document is whole and sealed; it only is not the job's."""
    first, second = finish(), finish(methods=["occlusion"])
    documents = first.read("job.json"), second.read("job.json")
    second.plant("job.json", documents[0])
    first.plant("job.json", documents[1])
    for each in (first, second):
        damaged(client.get(each.url))
        damaged(client.get(f"{each.url}/artifacts"))
        damaged(client.get(f"{each.url}/artifacts", headers=ZIP))
        damaged(client.get(f"{each.url}/artifacts/{NAME}"))
        damaged(client.get(f"{each.url}/artifacts/job.json"))


def test_another_jobs_file_under_the_same_name_is_found(client, finish):
    first, second = finish(), finish()
    other = second.read(NAME).replace(b"nodule", b"NODULE")
    first.plant(NAME, other)
    damaged(client.get(f"{first.url}/artifacts/{NAME}"))
    assert client.get(f"{second.url}/artifacts/{NAME}").status_code == 200


@pytest.mark.parametrize(
    "changes", [{"attempt": 2}, {"warnings": ["edited"]}, {"seal": None}, {"seal": "0" * 64}]
)
def test_an_edited_document_is_never_served(client, mine, changes):
    edited(mine, **changes)
    damaged(client.get(mine.url))
    damaged(client.get(f"{mine.url}/artifacts/job.json"))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"seal": NaN}', b"[" * 100_000]
)
def test_a_document_that_cannot_be_read_is_never_served(client, mine, data):
    mine.plant("job.json", data)
    damaged(client.get(mine.url))


def test_a_sealed_document_of_a_form_that_is_not_ours_is_never_served(client, mine):
    document = sealed_anew(json.loads(mine.read("job.json")) | {"comment": "mine"})
    mine.plant("job.json", json.dumps(document).encode())
    damaged(client.get(mine.url))


def test_the_seal_is_of_everything_in_the_document(client, mine):
    document = client.get(f"{mine.url}/artifacts/job.json").json()
    assert document == sealed_anew(document)


def test_the_document_comes_as_it_was_written(client, mine):
    answer = client.get(f"{mine.url}/artifacts/job.json")
    entry = client.get(f"{mine.url}/artifacts").json()["artifacts"][-1]
    assert answer.content == mine.read("job.json")
    assert answer.headers["content-type"] == "application/json"
    assert (entry["name"], entry["format"]) == ("job.json", "job")
    assert (entry["method"], entry["target"]) == (None, None)
    assert entry["sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert answer.headers["etag"] == f'"{entry["sha256"]}"'
    assert answer.json()["id"] == mine.id


def test_the_operator_is_told_of_a_damaged_result_and_of_nothing_in_it(client, mine, caplog):
    mine.plant(NAME, b"Doe^Jane")
    with caplog.at_level("WARNING", "whylight"):
        damaged(client.get(f"{mine.url}/artifacts/{NAME}"))
    (told,) = [each for each in caplog.records if each.message == "result_damaged"]
    assert told.whylight_fields["job"] == mine.id
    assert "Doe" not in str(told.__dict__)
