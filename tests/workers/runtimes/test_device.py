"""What the device's memory and failures mean."""

from pathlib import Path

import pytest
import torch

from workers import device


def test_the_budget_is_a_share_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 16000 kB\nMemFree: 10 kB\nMemAvailable: 8000 kB\n")
    monkeypatch.setattr(device, "MEMORY", memory)
    monkeypatch.setattr(device, "CONTAINER", tmp_path)
    assert device.memory_budget(torch.device("cpu")) == 8_000 * 1024 * device.CPU_SHARE
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert device.memory_budget(torch.device("cpu")) == 2_000_000 * device.CPU_SHARE
    (tmp_path / "memory.max").write_text("max\n")
    assert device.memory_budget(torch.device("cpu")) == 8_000 * 1024 * device.CPU_SHARE


def test_the_budget_of_this_machine_is_positive() -> None:
    assert device.memory_budget(torch.device("cpu")) > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_budget_of_a_gpu_is_below_its_free_memory() -> None:
    cuda = torch.device("cuda")
    assert 0 < device.memory_budget(cuda) < torch.cuda.mem_get_info(cuda)[0]


def test_the_device_is_chosen_by_wish_or_by_what_is_there() -> None:
    assert device.choose("cpu").type == "cpu"
    assert device.choose("cuda:1").index == 1
    assert device.choose().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_an_ordinary_error_is_neither_full_memory_nor_a_lost_device() -> None:
    error = RuntimeError("shapes do not match")
    assert not device.is_out_of_memory(error)
    assert not device.is_device_fault(error)
