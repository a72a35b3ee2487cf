import subprocess
import sys
from datetime import timedelta

import pytest

from service.settings import Settings


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
