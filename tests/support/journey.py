"""The way of a study through the API, for tests that need one to have gone it."""

from pathlib import Path
from typing import Any

import httpx

STUDIES = Path(__file__).parents[2] / "examples" / "studies" / "chest"
NODULE = STUDIES / "nodule.dcm"
MODEL = "chest-phantom"
WAIT = "wait=60"


def upload(client: httpx.Client, path: Path = NODULE) -> dict[str, Any]:
    """Send a DICOM file as it is."""
    answer = client.post(
        "/v1/studies", content=path.read_bytes(), headers={"Content-Type": "application/dicom"}
    )
    assert answer.status_code == 201, answer.text
    study: dict[str, Any] = answer.json()
    return study


def request(study: str, *methods: str, **others: Any) -> dict[str, Any]:
    """Return the body that asks for an explanation."""
    return {"study": study, "model": MODEL, "methods": list(methods or ("grad_cam",)), **others}


def explain(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """Ask, wait, and return the finished job."""
    answer = client.post("/v1/explanations", json=body, headers={"Prefer": WAIT})
    assert answer.status_code in {200, 202}, answer.text
    job: dict[str, Any] = answer.json()
    for _ in range(4):
        if job["state"] in {"succeeded", "failed", "cancelled"}:
            break
        job = client.get(f"/v1/explanations/{job['id']}", params={"wait": 60}).json()
    return job
