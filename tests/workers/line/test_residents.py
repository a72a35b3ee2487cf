"""Two models on a worker whose memory holds one of them: every job is done all the same."""

from pathlib import Path

import pytest
import torch

from service.domain.job import State
from service.telemetry import REGISTRY
from tests.support.hospital import ask, document, ended, register, take_in
from tests.support.small_model import (
    LAYER,
    SIDE,
    model_input,
    network,
    picture,
    write_image,
    write_package,
)
from tests.workers.line.conftest import opened, working
from workers.replicas import Replicas
from workers.runtimes.torch import TorchRuntime

SEEDS = {"red": 0, "blue": 1}


def told(metric: str, model: str) -> float:
    labels = {"model": f"{model}@1.0.0"}
    return REGISTRY.get_sample_value(f"whylight_{metric}", labels) or 0.0


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
def test_two_models_take_turns_in_a_memory_for_one(tmp_path: Path, device: str) -> None:
    runtime = TorchRuntime(network(), (1, SIDE, SIDE), (LAYER,), device=torch.device(device))
    alone = Replicas(runtime)
    narrow = {"device": device, "memory_bytes": alone.wanted + alone.taken // 2}
    with opened(tmp_path, narrow) as (_, settings, backends):
        packages = {
            name: register(backends.store, write_package(tmp_path / name, name=name, seed=seed))
            for name, seed in SEEDS.items()
        }
        before = {name: told("model_evictions_total", name) for name in SEEDS}
        study = take_in(backends.store, write_image(tmp_path / "case.dcm", picture(3)))
        with working(settings, backends, {each.package for each in packages.values()}) as worker:
            asked = [
                (name, ask(backends, packages[name], study, methods=["saliency", "rise"]))
                for name in ("red", "blue") * 3
            ]
            records = [(name, ended(backends, job)) for name, job in asked]
            held = {model.manifest.id for model in worker._shelf.residents.models()}
            entries = {each.name: each for each in backends.fleet.catalog().models}
        for name, record in records:
            assert record.state is State.SUCCEEDED
            with torch.no_grad():
                expected = network(SEEDS[name])(model_input(picture(3))[None])[0].tolist()
            said = [each.logit for each in document(backends, record).predictions]
            assert said == pytest.approx(expected, abs=1e-4)
    assert len(held) == 1
    for name in SEEDS:
        assert told("model_loaded", name) == (name in held)
        assert told("model_evictions_total", name) > before[name]
        assert told("model_load_seconds", name) > 0
        memory = entries[name].memory
        assert memory is not None
        assert memory.fixed_bytes == alone.probed.fixed_bytes
        assert memory.row_bytes == dict(alone.probed.row_bytes)
        assert (entries[name].load_seconds or 0) > 0
    budget = REGISTRY.get_sample_value("whylight_worker_memory_bytes", {"kind": "budget"})
    assert budget == settings.worker.memory_bytes
