"""What is no request at all, or is of nothing: a problem document in each case."""

import json

import pytest

from tests.support.problems import problem
from tests.support.served import NOBODY

pytestmark = pytest.mark.usefixtures("nothing_is_queued")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "malformed_body"),
        (b"{", 400, "malformed_body"),
        (b'{"study": NaN}', 400, "malformed_body"),
        (b"\xff\xfe", 400, "malformed_body"),
        (b"[" * 500 + b"]" * 500, 400, "malformed_body"),
        (b"[]", 422, "invalid_request"),
        (b'"text"', 422, "invalid_request"),
        (b"{}" + b" " * 20_000, 413, "too_large"),
    ],
)
def test_a_body_that_is_no_request_is_refused(client, data, status, code):
    headers = {"Content-Type": "application/json"}
    problem(client.post("/v1/explanations", content=data, headers=headers), status, code)


def test_an_endless_body_is_cut_off(client):
    def endless():
        while True:
            yield b" " * 4096

    headers = {"Content-Type": "application/json"}
    problem(client.post("/v1/explanations", content=endless(), headers=headers), 413, "too_large")


def test_another_content_type_is_refused(client, ask):
    headers = {"Content-Type": "text/plain"}
    answer = client.post("/v1/explanations", content=json.dumps(ask), headers=headers)
    body = problem(answer, 415, "unsupported_media_type")
    assert body["facts"]["supported"] == ["application/json", "multipart/form-data"]


@pytest.mark.parametrize("key", ["", "two words", "k" * 201])
def test_an_impossible_idempotency_key_is_refused(client, ask, key):
    answer = client.post("/v1/explanations", json=ask, headers={"Idempotency-Key": key})
    body = problem(answer, 422, "invalid_request")
    assert body["errors"][0]["pointer"] == "/header/idempotency-key"


@pytest.mark.parametrize("path", ["", "/events", "/artifacts", "/artifacts/a.b.png"])
@pytest.mark.parametrize("name", [NOBODY, "ex_1", "x:y", "*", "%2e%2e"])
def test_an_unknown_job_is_not_found(client, name, path):
    problem(client.get(f"/v1/explanations/{name}{path}"), 404, "not_found")


def test_a_path_that_is_none_is_a_problem_too(client):
    problem(client.get("/v2/studies"), 404, "not_found")


def test_a_verb_that_is_none_is_a_problem_too(client):
    answer = client.patch("/v1/studies")
    problem(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"limit": 0}, "/query/limit"),
        ({"limit": "ten"}, "/query/limit"),
        ({"state": "sleeping"}, "/query/state"),
        ({"created_from": "yesterday"}, "/query/created_from"),
        ({"created_from": "2026-01-01T00:00:00"}, "/query/created_from"),
    ],
)
def test_a_wrong_query_is_named(client, params, pointer):
    body = problem(client.get("/v1/explanations", params=params), 422, "invalid_request")
    assert [each["pointer"] for each in body["errors"]] == [pointer]
    assert "Input" not in body["errors"][0]["detail"]


def test_a_cursor_of_no_listing_is_refused(client):
    problem(client.get("/v1/explanations", params={"cursor": "x"}), 422, "invalid_request")
    problem(client.get("/v1/studies", params={"cursor": "x"}), 422, "invalid_request")


def test_a_wait_beyond_the_longest_is_refused(client):
    answer = client.get(f"/v1/explanations/{NOBODY}", params={"wait": 61})
    problem(answer, 422, "invalid_request")
