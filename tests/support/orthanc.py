"""A real Orthanc with DICOMweb, private and on loopback, for as long as a test needs it."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.support.ports import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START = 30.0
"""Seconds within which it must answer."""

ONE_REQUEST = httpx.Limits(max_keepalive_connections=0)
"""It closes idle connections, perhaps just as the next request is sent on one."""


@dataclass(frozen=True, slots=True)
class Orthanc:
    """Where it listens."""

    client: httpx.Client
    dicom_port: int

    def store(self, *objects: bytes) -> httpx.Response:
        """Store DICOM objects by STOW-RS."""
        boundary = uuid4().hex
        part = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(part + each + b"\r\n" for each in objects) + f"--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        return self.client.post(
            "/dicom-web/studies",
            content=body,
            headers={"Content-Type": kind, "Accept": "application/dicom+json"},
        )

    def send(self, *files: Path, option: str = "-xe") -> None:
        """Store DICOM objects by C-STORE, with DCMTK's `storescu`; `option` names the syntax."""
        peer = ("127.0.0.1", str(self.dicom_port))
        # in small PDUs each object waits for a delayed acknowledgement
        command = ["storescu", "-R", "-pdu", "131072", "--max-send-pdu", "131072", option]
        subprocess.run([*command, "-aec", "TEST", *peer, *files], check=True, timeout=300)

    def file(self, sop_instance_uid: str) -> bytes:
        """Return a stored object's bytes."""
        return self.client.get(f"{self._instance(sop_instance_uid)}/file").content

    def delete(self, sop_instance_uid: str) -> None:
        """Forget a stored object, so that it can be stored anew."""
        self.client.delete(self._instance(sop_instance_uid)).raise_for_status()

    def _instance(self, sop_instance_uid: str) -> str:
        (found,) = self.client.post("/tools/lookup", content=sop_instance_uid).json()
        return f"/instances/{found['ID']}"

    def rendered(self, study: str, series: str, instance: str) -> httpx.Response:
        """Ask for the picture of an object, as a viewer does."""
        path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered"
        return self.client.get(path, headers={"Accept": "image/png"})


def missing() -> str | None:
    """Return what is not installed, if anything is."""
    if shutil.which("Orthanc") is None:
        return "Orthanc"
    return None if PLUGIN.exists() else "Orthanc's DICOMweb plugin"


@contextmanager
def running() -> Iterator[Orthanc]:
    """Start one, wait until it answers, and end it; skip or, under CI, fail without."""
    if absent := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"not installed: {absent}")
        pytest.skip(f"not installed: {absent}")
    with tempfile.TemporaryDirectory(prefix="orthanc-") as name:
        folder, port, dicom_port = Path(name), free_port(), free_port()
        settings = _settings(folder, port, dicom_port)
        (folder / "orthanc.json").write_text(json.dumps(settings))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                ["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log, cwd=folder
            )
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=300, limits=ONE_REQUEST
            ) as client:
                orthanc = Orthanc(client, dicom_port)
                _wait(orthanc, process, folder / "log")
                yield orthanc
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _settings(folder: Path, port: int, dicom_port: int) -> dict[str, object]:
    return {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": port,
        "HttpServerEnabled": True,
        "DicomServerEnabled": True,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "SyncStorageArea": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }


def _wait(orthanc: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.HTTPError):
            if orthanc.client.get("/dicom-web/studies").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"Orthanc did not start: {log.read_text()[-800:]}")
