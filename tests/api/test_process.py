"""The gateway as a process: it starts, serves, drains, and cleans up."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from api.intake.base import Scratch
from service.keys import KeyRing, Scope
from service.settings import StoreSettings
from service.store.objects import open_store
from tests.support.ports import free_port
from tests.support.redis_server import any_server, running

STARTS_WITHIN = 30.0


@pytest.fixture
def process(tmp_path):
    """A gateway in a process of its own, and its address."""
    port, metrics = free_port(), free_port()
    with running(any_server()) as redis:
        environment = {name: value for name, value in os.environ.items() if "WHYLIGHT" not in name}
        environment |= {
            "WHYLIGHT_QUEUE__URL": redis.url,
            "WHYLIGHT_STORE__URL": (tmp_path / "store").as_uri(),
            "WHYLIGHT_HTTP__PORT": str(port),
            "WHYLIGHT_HTTP__METRICS_PORT": str(metrics),
            "WHYLIGHT_HTTP__SCRATCH": str(tmp_path / "scratch"),
        }
        child = subprocess.Popen(
            [sys.executable, "-m", "api.main"], env=environment, stderr=subprocess.PIPE, text=True
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for(url, child)
            yield child, url, metrics
        finally:
            if child.poll() is None:
                child.kill()
            child.wait(10)
            child.stderr.close()


def _wait_for(url, child):
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until:
        assert child.poll() is None, child.stderr.read()
        try:
            if httpx.get(f"{url}/healthz/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError(url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_told_to_end_and_leaves_nothing(process, tmp_path, number):
    child, url, metrics = process
    text = httpx.get(f"http://127.0.0.1:{metrics}/metrics", trust_env=False).text
    assert "whylight_http_requests_total" in text
    assert len(list((tmp_path / "scratch").iterdir())) == 2
    child.send_signal(number)
    assert child.wait(20) == 0
    assert list((tmp_path / "scratch").iterdir()) == []
    told = [json.loads(line) for line in child.stderr.read().splitlines()]
    assert [each["event"] for each in told if each["event"] != "http_request"] == [
        "started",
        "swept",
        "draining",
        "stopped",
    ]
    assert url not in str(told)


def test_a_drain_lets_an_upload_end(process, tmp_path):
    child, url, _ = process
    store = open_store(StoreSettings(url=(tmp_path / "store").as_uri(), reserve_bytes=0))
    key, _ = KeyRing(store).create("clinic", list(Scope))
    answers = []

    def slow():
        for _ in range(8):
            yield b"x" * 100
            time.sleep(0.2)

    def upload():
        headers = {"Content-Type": "application/dicom", "Authorization": f"Bearer {key}"}
        answers.append(
            httpx.post(f"{url}/v1/studies", content=slow(), headers=headers, trust_env=False)
        )

    thread = threading.Thread(target=upload)
    thread.start()
    time.sleep(0.4)
    child.send_signal(signal.SIGTERM)
    thread.join(20)
    assert child.wait(20) == 0
    assert answers[0].json()["code"] == "not_dicom"


def test_what_a_killed_gateway_left_is_removed_by_the_next(process, tmp_path):
    child, _, _ = process
    child.kill()
    child.wait(10)
    (left,) = [each for each in (tmp_path / "scratch").iterdir() if each.is_dir()]
    (left / "patient").write_bytes(b"pixels")
    scratch = Scratch(tmp_path / "scratch", 1000)
    assert not left.exists()
    other = Scratch(tmp_path / "scratch", 1000)
    assert scratch.folder.exists(), "the folder of one that lives stays"
    scratch.close()
    other.close()
    assert list((tmp_path / "scratch").iterdir()) == []
