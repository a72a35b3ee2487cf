"""A study of the archive is given so many explanations, and no more."""

import json

import pytest

from service.additions import addition
from service.domain.request import ExplanationRequest
from service.domain.study import Instance
from service.errors.requests import KeyReused, StudyFull
from service.explain import Explain
from service.keys import Caller
from service.settings import Settings
from service.studies import Part
from tests.support.fake_fleet import CATALOG, model
from tests.support.phantom_dicom import encoded, image

CALLER = Caller("clinic", "k")


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "a.dcm"
    file.write_bytes(encoded(image()))
    return file


@pytest.fixture
def asking(backends, file):
    """Ask about a new upload of the same image, under limits."""

    def start(**limits):
        explain = Explain(backends, Settings.model_validate({"limits": limits}))

        def ask(*, dry=False, key=None, **changes):
            study = explain.submissions.take_in(CALLER, [Part(1, file)]).id
            fields = {"study": study, "model": "chest", "methods": ["saliency"], "targets": [0]}
            request = ExplanationRequest.model_validate(fields | changes)
            if dry:
                return explain.submissions.validate(CALLER, request)
            return explain.submissions.submit(CALLER, request, key)

        return ask

    return start


def test_the_last_series_that_is_allowed_is_made_and_no_other(asking):
    ask = asking(study_series=2)
    ask(targets=[0])
    ask(targets=[1])
    with pytest.raises(StudyFull) as refused:
        ask(methods=["integrated_gradients"])
    assert refused.value.facts["series"] == 3
    assert refused.value.facts["series_limit"] == 2
    with pytest.raises(StudyFull):
        ask(methods=["integrated_gradients"], dry=True)


def test_a_question_asked_again_adds_objects_to_the_same_series(asking):
    ask = asking(study_series=1, study_objects=2)
    ask()
    ask(priority="high", style="contour", label="again")
    with pytest.raises(StudyFull) as refused:
        ask()
    assert refused.value.facts["series"] == 1
    assert refused.value.facts["objects"] == 3


def test_a_job_that_is_not_queued_anew_adds_nothing(backends, asking):
    ask = asking(study_objects=2)
    study = json.loads(ask(key="k").job.request)["study"]
    assert ask(key="k", study=study).replayed
    with pytest.raises(KeyReused):
        ask(key="k", study=study, targets=[1])
    assert len(list(backends.store.list("clinic/additions"))) == 1
    ask()


def test_what_is_no_dicom_object_is_never_counted(asking):
    ask = asking(study_series=0, study_objects=0)
    ask(artifacts=["png", "json"])
    with pytest.raises(StudyFull):
        ask(artifacts=["png", "dicom_sc"])


def test_every_method_and_target_is_an_object(asking):
    two = {"methods": ["saliency", "integrated_gradients"], "targets": ["above_threshold"]}
    asking(study_objects=4)(**two)  # the model has two classes
    with pytest.raises(StudyFull) as refused:
        asking(study_objects=4)(targets=[0])
    assert refused.value.facts["objects"] == 5


def test_a_removed_explanation_leaves_its_series_counted(backends, asking):
    ask = asking(study_series=1)
    job = ask().job
    backends.store.purge(f"clinic/jobs/{job.id}")
    backends.queue.cancel("clinic", job.id)
    with pytest.raises(StudyFull):
        ask(targets=[1])


def test_nothing_of_a_patient_is_in_a_notes_name(backends, asking):
    asking()()
    (note,) = backends.store.list("clinic/additions")
    uid = image().StudyInstanceUID
    assert str(uid) not in note.path
    assert note.bytes == 0


@pytest.mark.parametrize(
    ("dicom", "captures"),
    [
        ({}, 1),
        ({"objects": "single_frame"}, 32),
        ({"objects": "single_frame", "slices": "all"}, 40),
        ({"slices": "all"}, 1),
    ],
)
def test_each_slice_that_is_an_object_counts(dicom, captures):
    entry = model(
        "ct@1.0.0", "e" * 64, accept={"modalities": ["CT"], "volume": {"least_slices": 2}}
    )
    instances = [
        Instance.model_construct(sha256="f" * 64, study_instance_uid="2.25.1", number_of_frames=1)
    ] * 40
    fields = {"study": "st_1", "model": "ct", "methods": ["saliency"], "targets": [0]}
    request = ExplanationRequest.model_validate(fields | {"dicom": dicom})
    asked = addition(request, instances, entry, CATALOG.formats)
    assert list(asked.series.values()) == [captures]
