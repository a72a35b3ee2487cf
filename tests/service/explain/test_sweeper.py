"""What has had its time is removed; what is needed stays."""

import time
from datetime import timedelta

import pytest

from service.domain.request import ExplanationRequest
from service.errors.requests import NotFound
from service.explain import Explain
from service.keys import Caller, Scope
from service.settings import Settings
from service.studies import Part
from service.sweeper import Sweeper
from tests.support.fake_fleet import FakeWorker
from tests.support.phantom_dicom import encoded, image

CALLER = Caller("clinic", "k")
DAY = timedelta(hours=24)


@pytest.fixture
def explain(backends):
    backends.keys.create("clinic", [Scope.STUDIES_READ])
    return Explain(backends, Settings())


@pytest.fixture
def sweep_in(backends, explain):
    """Sweep as if time had passed."""

    def sweep(span):
        def later():
            return int((time.time() + span.total_seconds()) * 1000)

        return Sweeper(backends, explain, Settings(), later).sweep()

    return sweep


@pytest.fixture
def study(explain, tmp_path):
    file = tmp_path / "a.dcm"
    file.write_bytes(encoded(image()))
    return explain.submissions.take_in(CALLER, [Part(1, file)]).id


def ask(explain, study):
    fields = {"study": study, "model": "chest", "methods": ["saliency"], "artifacts": ["png"]}
    return explain.submissions.submit(CALLER, ExplanationRequest.model_validate(fields)).job.id


def test_a_study_stays_its_time_and_then_goes(backends, explain, sweep_in, study):
    assert sweep_in(DAY * 0.9).studies == 0
    assert explain.studies.get("clinic", study)
    swept = sweep_in(DAY * 1.1)
    assert (swept.studies, swept.objects) == (1, 2)
    with pytest.raises(NotFound):
        explain.studies.get("clinic", study)
    assert list(backends.store.list("clinic")) == []


def test_an_old_study_stays_while_a_job_needs_it(backends, explain, sweep_in, study):
    ask(explain, study)
    assert sweep_in(DAY * 3).studies == 0
    FakeWorker(backends).lease()
    assert sweep_in(DAY * 3).studies == 0


def test_a_study_goes_its_time_after_its_last_job_ended(backends, explain, sweep_in, study):
    ask(explain, study)
    FakeWorker(backends).succeed()
    assert sweep_in(DAY * 0.9).studies == 0
    assert sweep_in(DAY * 1.1).studies == 1


def test_results_stay_longer_than_studies_and_then_go(backends, explain, sweep_in, study):
    job = ask(explain, study)
    FakeWorker(backends).succeed()
    assert sweep_in(DAY * 6.9).jobs == 0
    assert explain.results.artifacts(explain.glance(CALLER, job))
    swept = sweep_in(DAY * 7.1)
    assert (swept.jobs, swept.objects) == (1, 2)


def test_what_a_crash_left_without_a_record_goes_too(backends, sweep_in):
    backends.store.put("clinic/studies/st_half/in_0001.dcm", b"x")
    assert sweep_in(DAY * 0.9).studies == 0
    assert sweep_in(DAY * 1.1).studies == 1


def test_what_belongs_to_no_tenant_is_never_swept(backends, sweep_in):
    backends.store.put("models/index/a/1.0.0.json", b"x")
    backends.store.put("catalog/x.json", b"x")
    sweep_in(DAY * 1000)
    assert backends.store.head("models/index/a/1.0.0.json")
    assert backends.store.head("catalog/x.json")
    assert backends.keys.list()
