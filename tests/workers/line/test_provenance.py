"""A job's document names what it was made of; what was exchanged on the way fails the job."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from typing_extensions import override

from service import paths
from service.domain.explanation import Explanation, Result
from service.domain.job import Job, State
from service.domain.trust import Binding
from service.errors.jobs import ResultDamaged
from tests.support.hospital import TENANT, ask, document, published, take_in
from tests.support.small_model import model_input, picture
from tests.workers.line.conftest import House
from workers.catalog import catalog
from workers.held import Held
from workers.line import Line
from workers.methods.base import METHODS
from workers.slots import Slots
from workers.stages.deliver import deliver_document

ELSEWHERE = "provenance"
"""A pool that the house's own worker does not serve."""


@pytest.fixture(scope="module")
def explained(house: House) -> tuple[Job, Explanation]:
    return house.explain(
        house.image("bound"), methods=["saliency", "grad_cam"], artifacts=["npy"], checks="none"
    )


def leased(house: House, **request: Any) -> Held:
    """Queue a job where nobody else looks, and lease it."""
    study = take_in(house.backends.store, house.image("crossed"))
    job = ask(house.backends, house.package, study, pool=ELSEWHERE, **request)
    lease = house.backends.queue.lease("test", ELSEWHERE, [job.package])
    assert lease is not None
    return Held(lease)


def binding(result: Result) -> Binding:
    assert result.trust is not None
    assert result.trust.binding is not None
    return result.trust.binding


def spelled(values: Any) -> str:
    """The digest of an array, by hand."""
    array = np.asarray(values, "<f4")
    shape = "[" + ",".join(str(length) for length in array.shape) + "]"
    return hashlib.sha256(shape.encode() + array.tobytes()).hexdigest()


def test_the_document_says_what_ran_on_what(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    record, document_ = explained
    ran = document_.provenance
    assert ran is not None
    source = (house.folder / "bound.dcm").read_bytes()
    weights = (house.folder / "package" / "weights.safetensors").read_bytes()
    (image,) = ran.instances
    assert (image.id, image.sha256) == ("in_0001", hashlib.sha256(source).hexdigest())
    assert image.sop_class_uid == "1.2.840.10008.5.1.4.1.1.1"
    assert ran.package == house.package.package
    assert ran.weights == hashlib.sha256(weights).hexdigest()
    assert ran.request == hashlib.sha256(record.request.encode()).hexdigest()
    assert (ran.device, ran.precision, ran.tf32) == ("cpu", "float32", False)
    assert ran.hardware == torch.backends.cpu.get_cpu_capability()
    assert (ran.threads, ran.fixed_rows) == (torch.get_num_threads(), None)


def test_results_and_catalog_say_which_version_of_a_method_ran(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS["saliency"], "version", 7)
    _, found = house.explain(
        house.image("versions"), methods=["saliency", "grad_cam"], checks="none", artifacts=["npy"]
    )
    assert {each.method: each.version for each in found.results} == {"saliency": 7, "grad_cam": 1}
    told = {each.name: each.version for each in catalog(()).methods}
    assert (told["saliency"], told["grad_cam"]) == (7, 1)


def test_every_map_is_bound_to_what_it_was_made_of(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    record, document_ = explained
    ran = document_.provenance
    assert ran is not None
    for each in document_.results:
        bound = binding(each)
        (file,) = each.artifacts
        data = house.backends.store.get(paths.artifact(str(record.result), file.name))
        assert bound.map == spelled(np.load(io.BytesIO(data)))
        assert (bound.job, bound.attempt) == (record.id, 1)
        assert (bound.source, bound.weights) == (ran.instances[0].sha256, ran.weights)
        assert bound.request == ran.request
        assert bound.holds
    inputs = {binding(each).input for each in document_.results}
    assert inputs == {spelled(model_input(picture(3)))}
    assert len({binding(each).map for each in document_.results}) == len(document_.results)


def test_the_same_image_gives_the_same_map_under_another_binding(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    _, again = house.explain(
        house.folder / "bound.dcm", methods=["saliency"], artifacts=["npy"], checks="none"
    )
    first, second = binding(explained[1].results[0]), binding(again.results[0])
    assert (first.map, first.input, first.source) == (second.map, second.input, second.source)
    assert first.digest != second.digest


def test_the_document_names_no_object_and_no_patient(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    source = pydicom.dcmread(house.folder / "bound.dcm")
    data = house.backends.store.get(paths.document(str(explained[0].result))).decode()
    assert json.loads(data)["seal"]
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientName"):
        assert str(source[name].value) not in data
    assert "SMALL" not in data


class Meddled(Slots):
    """The house's slots, before which somebody exchanges a map's file."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    @override
    def run(self, task: str, message: Any, *rest: Any, **options: Any) -> dict[str, Any]:
        if task == "render":
            file = Path(message["map"])
            np.save(file, np.load(file)[..., ::-1])
        return self._slots.run(task, message, *rest, **options)


def test_a_map_exchanged_in_the_scratch_folder_fails_the_job_and_leaves_no_picture(
    house: House,
) -> None:
    held = leased(house, artifacts=["png", "npy"], targets=["top1"])
    line: Line = house.worker._line
    replace(line, slots=Meddled(line.slots)).lead(held)
    job = house.backends.queue.get(TENANT, held.lease.job.id)
    assert job.state is State.FAILED
    assert job.failure is not None
    assert job.failure.code == "result_damaged"
    assert published(house.backends, job) == [paths.document(str(job.result))]
    assert document(house.backends, job).failure == job.failure


def test_results_of_one_job_are_never_published_under_another(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    held = leased(house)
    mine, other = explained[1], held.lease.job
    crossed = mine.model_copy(update={"id": other.id})  # its maps are still of the other job
    for each in (mine, crossed):
        with pytest.raises(ResultDamaged):
            deliver_document(each, held.lease, house.backends.store)
    assert published(house.backends, other) == []
    house.backends.queue.cancel(TENANT, other.id)
