import json
import subprocess
import sys
from datetime import timedelta

import pytest
from pydantic import ValidationError

from service.settings import Settings, faults


@pytest.mark.parametrize("text", ["90", " 90 ", "90.0", "PT90S", "PT1M30S"])
def test_a_duration_is_seconds_or_iso_8601(monkeypatch, text):
    monkeypatch.setenv("WHYLIGHT_WORKER__GRACE", text)
    assert Settings().worker.grace == timedelta(seconds=90)


@pytest.mark.parametrize("module", ["api.main", "workers.main"])
def test_a_wrong_setting_ends_the_process_with_its_name_and_not_its_value(monkeypatch, module):
    monkeypatch.setenv("WHYLIGHT_WORKER__SLOTS", "secret-word")
    ended = subprocess.run(
        [sys.executable, "-m", module], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "WHYLIGHT_WORKER__SLOTS: " in ended.stderr
    assert "secret-word" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host",
        "file:///etc/passwd",
        "host:8000",
        "http://user:secret-word@host",
        "http://host?to=x",
        "http://host:port",
        "http://",
    ],
)
def test_an_inference_server_is_listed_by_a_plain_address(monkeypatch, address):
    monkeypatch.setenv("WHYLIGHT_REMOTE__ENDPOINTS", json.dumps({"lab": address}))
    with pytest.raises(ValidationError) as told:
        Settings()
    assert not any("secret-word" in each for each in faults(told.value))


def test_no_server_is_listed_by_default():
    assert Settings().remote.endpoints == {}


def test_only_a_listed_server_is_found(monkeypatch):
    listed = {"lab": "http://10.0.0.5:8000/lab/", "two": "https://two.example"}
    monkeypatch.setenv("WHYLIGHT_REMOTE__ENDPOINTS", json.dumps(listed))
    remote = Settings().remote
    assert remote.endpoint("lab") == ("lab", "http://10.0.0.5:8000/lab")
    assert remote.endpoint("http://10.0.0.5:8000/lab") == remote.endpoint("lab")
    for other in ("http://10.0.0.5:8000", "http://10.0.0.5:8000/lab/../x", "http://two.example"):
        assert remote.endpoint(other) is None
