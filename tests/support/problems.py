"""What every problem document must be."""

from typing import Any

import httpx


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that an answer is a certain problem, whole and harmless; return its document."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert body["status"] == status
    assert body["type"] == f"urn:whylight:problem:{code}"
    assert body["instance"] == answer.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    assert body["retryable"] == ("retry-after" in answer.headers)
    if body["retryable"]:
        assert int(answer.headers["retry-after"]) >= 1
    return body
