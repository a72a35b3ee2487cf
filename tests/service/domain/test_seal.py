"""The seal of a document, and whether the maps in it are its own."""

import hashlib
import json

import pytest

from service import documents
from service.domain.explanation import (
    Explanation,
    InstanceRef,
    Provenance,
    Result,
    sealed,
    verify_seal,
)
from service.domain.request import ExplanationRequest
from service.domain.trust import Binding, Grade, TrustReport
from service.errors.jobs import ResultDamaged

JOB = "ex_0123456789abcdefghjkmnpqrs"
REQUEST = ExplanationRequest(study="st_1", model="small", methods=[{"name": "saliency"}])
RAN = Provenance(
    package="a" * 64,
    weights="b" * 64,
    request="c" * 64,
    instances=(InstanceRef(id="in_0001", sha256="d" * 64, sop_class_uid="1.2.840.10008.1"),),
    device="cpu",
    hardware="AVX2",
    precision="float32",
    tf32=False,
    threads=1,
)
BOUND = {
    "map": "e" * 64,
    "input": "f" * 64,
    "source": "d" * 64,
    "weights": "b" * 64,
    "precision": "float32",
    "request": "c" * 64,
    "job": JOB,
    "attempt": 1,
}


def document(**changes) -> Explanation:
    binding = Binding.of(**BOUND | changes)
    report = TrustReport(grade=Grade.WEAK, statements=(), binding=binding)
    result = Result(
        method="saliency", version=1, parameters={}, target=None, status="succeeded", trust=report
    )
    return Explanation(
        id=JOB,
        state="succeeded",
        request=REQUEST,
        results=(result,),
        attempt=1,
        created=1,
        ended=2,
        timings={"attribute": 0.1, "judge": 1e-7},
        provenance=RAN,
    )


def by_hand(data: bytes) -> str:
    rest = {name: value for name, value in json.loads(data).items() if name != "seal"}
    spelled = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(spelled.encode()).hexdigest()


def test_the_seal_is_of_the_canonical_json_of_all_else():
    data = documents.written(document(), JOB)
    assert json.loads(data)["seal"] == by_hand(data)
    assert documents.read(data, JOB) == sealed(document())


def test_spaces_and_order_do_not_break_the_seal():
    data = json.loads(documents.written(document(), JOB))
    turned = dict(reversed(list(data.items())))
    assert documents.read(json.dumps(turned, indent=3).encode(), JOB) == sealed(document())


def test_a_figure_that_is_not_finite_is_sealed_as_it_is_written():
    strange = document().model_copy(update={"timings": {"judge": float("nan")}})
    data = json.loads(sealed(strange).model_dump_json())
    assert data["timings"] == {"judge": None}
    assert verify_seal(data)


def leaves(value, path=()):
    """Yield the path of everything in a document that is not a container."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, (*path, name))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from leaves(each, (*path, place))
    else:
        yield path


def test_a_change_anywhere_breaks_the_seal():
    data = documents.written(document(), JOB)
    paths = list(leaves(json.loads(data)))
    assert len(paths) > 50
    for *outer, last in paths:
        changed = json.loads(data)
        place = changed
        for each in outer:
            place = place[each]
        place[last] = "changed"
        assert not verify_seal(changed), (outer, last)


def test_a_document_of_another_job_is_neither_written_nor_read():
    data = documents.written(document(), JOB)
    with pytest.raises(ResultDamaged):
        documents.written(document(), "ex_other")
    with pytest.raises(ResultDamaged):
        documents.read(data, "ex_other")


@pytest.mark.parametrize("name", ["source", "weights", "request", "job", "attempt"])
def test_a_map_of_another_job_is_neither_written_nor_read(name):
    other = 2 if name == "attempt" else "0" * 64
    crossed = document(**{name: other})
    assert not crossed.coherent
    with pytest.raises(ResultDamaged):
        documents.written(crossed, JOB)
    with pytest.raises(ResultDamaged):
        documents.read(sealed(crossed).model_dump_json().encode(), JOB)


def test_a_binding_whose_digest_is_not_its_own_is_refused():
    (result,) = document().results
    false = result.trust.binding.model_copy(update={"map": "0" * 64})
    report = result.trust.model_copy(update={"binding": false})
    changed = result.model_copy(update={"trust": report})
    assert not document().model_copy(update={"results": (changed,)}).coherent


def test_maps_that_are_bound_need_to_be_told_what_ran():
    assert not document().model_copy(update={"provenance": None}).coherent
    assert document().model_copy(update={"provenance": None, "results": ()}).coherent
