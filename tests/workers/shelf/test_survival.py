"""Survival models as ONNX files: hazards and masses, before a sigmoid or softmax and behind one."""

from typing import Any

import pytest
import torch
from torch import nn

from service.domain.grid import Grid
from service.manifests import read_manifest
from tests.support.exported import onnx_of, write_onnx_package
from tests.support.hospital import register
from tests.support.small_model import SIDE, network
from tests.workers.shelf.conftest import Room
from tests.workers.shelf.test_activation import ended, image
from workers.targets.base import Answer
from workers.targets.resolve import predict

ENDS: dict[str, tuple[nn.Module, int]] = {
    "hazards": (nn.Sigmoid(), 3),
    "masses": (nn.Softmax(1), 2),
}
"""The activation of three numbers, and how many times they tell of."""


def outputs(decoding: str, count: int) -> list[dict[str, Any]]:
    horizons = [{"time": 30 * (1 + number)} for number in range(count)]
    event = {"key": "relapse", "label": "Relapse", "unit": "d", "horizons": horizons}
    return [{"decoding": decoding, "event": event}]


@pytest.mark.parametrize("decoding", ENDS)
def test_probabilities_of_intervals_are_undone_where_the_manifest_says_so(
    room: Room, decoding: str
) -> None:
    last, count = ENDS[decoding]
    told = {"outputs": outputs(decoding, count)}
    record = ended(room, last, "probabilities", "survival", **told)
    entry = room.entry(record)
    assert entry.failure is None
    assert len(entry.classes) == count
    manifest = read_manifest((room.folder / "ended" / "model.yaml").read_bytes())
    with torch.no_grad():
        raw = network()(image()[None])[0].double()
    each = raw.softmax(0) if decoding == "masses" else raw.sigmoid()
    spared = 1 - each.cumsum(0) if decoding == "masses" else (1 - each).cumprod(0)
    model = room.shelf.get(record.package)
    said = torch.from_numpy(model.runtime._run(image()[None], [model.runtime._output])[0].numpy())
    found = predict(Answer(manifest, said[0].double(), Grid.identity((SIDE, SIDE))))
    assert [one.probability for one in found] == pytest.approx(
        (1 - spared)[:count].tolist(), abs=1e-5
    )


@pytest.mark.parametrize("decoding", ENDS)
def test_probabilities_that_pass_for_logits_of_intervals_are_refused(
    room: Room, decoding: str
) -> None:
    last, count = ENDS[decoding]
    record = ended(room, last, "logits", "survival", outputs=outputs(decoding, count))
    assert "activation: probabilities" in room.refusal(record)


def test_a_network_of_more_numbers_than_the_event_has_times_is_refused(room: Room) -> None:
    files = {"model.onnx": onnx_of(network(), torch.zeros(1, SIDE, SIDE))}
    tests = [{"title": "one", "input": "plain.dcm", "logits": [0.0, 0.0], "tolerance": 1.0}]
    changes = {"task": "survival", "outputs": outputs("hazards", 2), "selftests": tests}
    bad = register(room.store, write_onnx_package(room.folder / "more", files, **changes))
    assert "lists 2 numbers, and the network gives 3" in room.refusal(bad)
    failure = room.entry(bad).failure
    assert failure is not None
    assert failure.facts["field"] == "/outputs/0/event"
