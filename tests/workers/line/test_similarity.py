"""An encoder through the whole line: how alike two images of a study are, and where."""

import hashlib
import json

import numpy as np
import pytest
import torch

from service.domain.job import State
from service.domain.request import ExplanationRequest
from service.entries import entry_of
from service.errors.requests import InvalidTarget
from service.manifests import read_manifest
from service.targets import check_references, check_target, with_targets
from tests.support.hospital import take_in
from tests.support.small_model import (
    model_input,
    network,
    picture,
    write_image,
    write_package,
)

PICTURES = {"in_0001": picture(1), "in_0002": picture(2), "in_0003": picture(3)[:, ::-1].copy()}


def embedded(name):
    with torch.no_grad():
        return network()(model_input(PICTURES[name])[None])[0].double().numpy()


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    changes = {"task": "embedding", "outputs": [{"decoding": "embedding"}]}
    return [
        write_package(
            tmp_path_factory.mktemp("encoder") / "encoder", name="encoder", changes=changes
        )
    ]


@pytest.fixture(scope="module")
def study(clinic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    tags = {"StudyInstanceUID": "1.2.3.4", "PatientID": "SMALL"}
    files = [
        write_image(folder / f"{name}.dcm", each, tags=tags) for name, each in PICTURES.items()
    ]
    return take_in(clinic.backends.store, *files)


@pytest.fixture(scope="module")
def told(clinic, study):
    targets = [{"kind": "embedding", "similarity_to": each} for each in ("in_0002", "in_0003")]
    methods = ["saliency", "grad_cam", {"name": "occlusion", "parameters": {"window": 8}}]
    asked = {"instance": "in_0001", "targets": targets, "methods": methods}
    record, document = clinic.explain(
        "encoder", study, artifacts=["json", "png", "dicom_sc", "dicom_sr"], **asked
    )
    assert record.state is State.SUCCEEDED, document
    return record, document


def test_the_score_is_the_cosine_of_the_embeddings(told):
    _, document = told
    assert document.predictions == ()
    assert {each.status for each in document.results} == {"succeeded"}
    for entry in document.results:
        name = entry.target.again.similarity_to
        assert entry.target.score == pytest.approx(
            cosine(embedded("in_0001"), embedded(name)), abs=1e-5
        )
        assert entry.target.quantity == "cosine similarity of embeddings"
        assert "uncertified" in entry.trust.flags
        assert not entry.omitted
        assert entry.trust.certificate.reason == "target_is_no_class"


def test_the_map_is_the_gradient_of_the_cosine_with_the_reference_held_still(clinic, told):
    record, document = told
    (entry,) = [
        each
        for each in document.results
        if (each.method, each.target.key) == ("saliency", "similarity-to-in_0002")
    ]
    leaf = model_input(PICTURES["in_0001"])[None].double().requires_grad_()
    outputs = network().double()(leaf)[0]
    reference = torch.from_numpy(embedded("in_0002"))
    score = outputs @ reference / outputs.norm() / reference.norm()
    (gradient,) = torch.autograd.grad(score, leaf)
    found = np.array(json.loads(clinic.artifact(record, entry, "json"))["map"]["values"])
    expected = gradient[0, 0].numpy()
    np.testing.assert_allclose(np.squeeze(found), expected, atol=2e-3 * np.abs(expected).max())


def test_each_result_tells_the_digest_of_what_it_was_held_against(study, told):
    _, document = told
    digests = {each.id: each.sha256 for each in study.instances}
    for entry in document.results:
        against = digests[entry.target.again.similarity_to]
        assert entry.target.against == against
        both = json.dumps([digests["in_0001"], against], separators=(",", ":"))
        assert entry.trust.binding.source == hashlib.sha256(both.encode()).hexdigest()
    assert document.coherent


def asked(study, **target):
    return ExplanationRequest.model_validate(
        {
            "study": study.id,
            "model": "encoder",
            "instance": "in_0001",
            "methods": ["saliency"],
            "targets": [{"kind": "embedding", **target}],
        }
    )


@pytest.mark.parametrize("name", ["in_0001", "in_0009"])
def test_what_is_no_other_image_of_the_study_is_refused(served, study, name):
    manifest = read_manifest((served[0] / "model.yaml").read_bytes())
    check_references(asked(study, similarity_to="in_0003"), manifest.image.accept, study)
    with pytest.raises(InvalidTarget) as refusal:
        check_references(asked(study, similarity_to=name), manifest.image.accept, study)
    assert refusal.value.pointer == "/targets/0/similarity_to"
    assert refusal.value.facts["instances"] == ["in_0002", "in_0003"]


def test_an_encoder_is_asked_about_another_image_or_not_at_all(served, study):
    entry = entry_of(read_manifest((served[0] / "model.yaml").read_bytes()), "p")
    wrong = asked(study, of="reconstruction_error")
    with pytest.raises(InvalidTarget) as refusal:
        check_target(wrong.targets[0], "/targets/0", entry)
    assert refusal.value.pointer == "/targets/0/of"
    bare = ExplanationRequest(study=study.id, model="encoder", methods=["saliency"])
    with pytest.raises(InvalidTarget) as refusal:
        with_targets(bare, entry)
    assert refusal.value.facts["kinds"] == ["embedding"]
