"""What a binding is a digest of, and how another map is told from the one it was made for."""

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.domain.grid import Grid
from service.domain.target import EmbeddingTarget, Segment, SegmentationTarget
from service.errors.jobs import ResultDamaged
from tests.support.parcels import fetched
from tests.support.phantom_dicom import encoded, image
from tests.support.sheets import MODEL, TARGET
from workers.binding import Seen, array_digest, bound, demand_bound, demand_same
from workers.parcels import Attribution, Decoded, ImageFacts, Prepared, SourceFile

VALUES = np.array([[[0.5, -1.0, 2.0], [3.0, 0.0, 1e-7]]], np.float32)
GRID = Grid.identity((2, 3))
FACTS = ImageFacts(
    rows=2,
    columns=3,
    channels=1,
    modality="CR",
    photometric_interpretation="MONOCHROME2",
    bits_stored=12,
    stored_minimum=0,
    stored_maximum=4095,
    value_minimum=0.0,
    value_maximum=4095.0,
    lossy=False,
    window=None,
)


def by_hand(values):
    """The digest of an array, spelled out number by number."""
    spelled = str(list(values.shape)).replace(" ", "").encode()
    for value in values.flatten().tolist():
        spelled += struct.pack("<f", value)
    return hashlib.sha256(spelled).hexdigest()


def prepared(folder: Path, tensor=VALUES, **asked) -> Prepared:
    job = fetched(encoded(image()), folder, **asked)
    nowhere = folder / "none"
    return Prepared(Decoded(job, FACTS, nowhere, nowhere, None, nowhere), tensor, GRID)


def attribution(values=VALUES) -> Attribution:
    return Attribution("saliency", 1, {}, True, TARGET, values, GRID)


@pytest.fixture
def parcel(tmp_path):
    return prepared(tmp_path)


@pytest.fixture
def mine(parcel):
    (attribution_,) = bound(parcel, MODEL, [attribution()])
    return attribution_


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f4", ">f4"])
def test_an_arrays_digest_is_of_its_shape_and_its_numbers_alone(order, kind):
    assert array_digest(np.asarray(VALUES, kind, order=order)) == by_hand(VALUES)


def test_arrays_that_differ_in_shape_or_one_number_have_other_digests():
    changed = VALUES.copy()
    changed[0, 1, 2] = np.nextafter(changed[0, 1, 2], np.float32(1))
    others = (VALUES.reshape(1, 3, 2), VALUES[:, ::-1], -VALUES, changed)
    assert len({array_digest(each) for each in (VALUES, *others)}) == 5


def test_a_binding_holds_everything_the_map_was_made_of(parcel, mine):
    job = parcel.decoded.fetched.lease.job
    fields = mine.binding.model_dump()
    digest = fields.pop("digest")
    assert fields == {
        "map": by_hand(VALUES),
        "input": by_hand(parcel.tensor),
        "source": parcel.decoded.fetched.instance.sha256,
        "weights": MODEL.weights,
        "precision": "float32",
        "request": hashlib.sha256(job.request.encode()).hexdigest(),
        "job": job.id,
        "attempt": job.attempt,
    }
    spelled = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.sha256(spelled.encode()).hexdigest()
    assert mine.binding.holds
    assert not mine.binding.model_copy(update={"attempt": 7}).holds


def test_a_method_without_a_map_has_no_binding(parcel):
    (lost,) = bound(parcel, MODEL, [attribution(None)])
    assert lost.binding is None


def test_a_map_of_this_job_is_bound_to_it(parcel, mine):
    assert demand_bound(mine, parcel, MODEL) == mine.binding


@pytest.mark.parametrize("crossed", ["job", "attempt", "input", "source", "request", "weights"])
def test_a_map_from_elsewhere_is_not_bound_to_this_job(parcel, mine, crossed):
    """Each of the things bound is changed alone; all else is this job's own."""
    decoded, model = parcel.decoded, MODEL
    job, lease = decoded.fetched.lease.job, decoded.fetched.lease
    tensor = parcel.tensor
    match crossed:
        case "job" | "attempt" | "request":
            other = {"job": {"id": "ex_2"}, "attempt": {"attempt": 2}, "request": {"request": "{}"}}
            lease = replace(lease, job=job.model_copy(update=other[crossed]))
            decoded = replace(decoded, fetched=replace(decoded.fetched, lease=lease))
        case "source":
            instance = decoded.fetched.instance.model_copy(update={"sha256": "f" * 64})
            decoded = replace(decoded, fetched=replace(decoded.fetched, instance=instance))
        case "input":
            tensor = parcel.tensor + 1
        case _:
            model = MODEL.model_copy(update={"weights": "f" * 64})
    with pytest.raises(ResultDamaged):
        demand_bound(mine, Prepared(decoded, tensor, GRID), model)


def test_a_similarity_to_another_image_is_not_bound_to_this_one(parcel):
    def held_against(sha256):
        own = parcel.decoded.fetched
        other = own.instance.model_copy(update={"id": "in_0002", "sha256": sha256})
        beside = replace(own, references=(replace(own, instance=other),))
        return replace(parcel, decoded=replace(parcel.decoded, fetched=beside))

    again = EmbeddingTarget(kind="embedding", similarity_to="in_0002")
    _demand_bound_to_what_lies_beside(parcel, held_against, again)


def test_a_given_region_is_bound_to_the_segmentation_that_it_is_a_segment_of(parcel):
    def marked(sha256):
        own = parcel.decoded.fetched
        other = own.instance.model_copy(update={"id": "in_0002", "sha256": sha256})
        marks = replace(own, segmentations={"in_0002": SourceFile(other, own.file)})
        return replace(parcel, decoded=replace(parcel.decoded, fetched=marks))

    region = Segment(kind="segment", instance="in_0002", segment=1)
    again = SegmentationTarget(kind="segmentation", of="effusion", region=region)
    _demand_bound_to_what_lies_beside(parcel, marked, again)


def _demand_bound_to_what_lies_beside(alone, beside, again) -> None:
    told = replace(attribution(), target=TARGET.model_copy(update={"again": again}))
    (mine,) = bound(beside("a" * 64), MODEL, [told])
    own = alone.decoded.fetched.instance.sha256
    spelled = json.dumps([own, "a" * 64], separators=(",", ":"))
    assert mine.binding.source == hashlib.sha256(spelled.encode()).hexdigest()
    assert demand_bound(mine, beside("a" * 64), MODEL) == mine.binding
    for other in (beside("b" * 64), alone):
        with pytest.raises(ResultDamaged):
            demand_bound(mine, other, MODEL)


def test_a_map_without_a_binding_is_refused(parcel):
    with pytest.raises(ResultDamaged):
        demand_bound(attribution(), parcel, MODEL)


def test_the_same_values_pass_and_others_do_not(mine):
    demand_same(VALUES.copy(), mine.binding.map)
    with pytest.raises(ResultDamaged):
        demand_same(VALUES[:, ::-1], mine.binding.map)


@pytest.fixture
def made(tmp_path):
    """Return the binding of a map that was made of an input."""

    def binding(values, tensor):
        (found,) = bound(prepared(tmp_path, tensor), MODEL, [attribution(values)])
        return found.binding

    return binding


def test_the_very_same_map_of_another_image_is_a_duplicate(made):
    seen = Seen()
    first, again = made(VALUES, VALUES), made(VALUES, VALUES)
    other_map, stale = made(VALUES * 2, VALUES + 1), made(VALUES, VALUES + 1)
    found = [seen.is_duplicate(each, degenerate=False) for each in (first, again, other_map, stale)]
    assert found == [False, False, False, True]


def test_blank_maps_are_no_duplicates(made):
    seen, blank = Seen(), np.zeros_like(VALUES)
    assert not seen.is_duplicate(made(blank, VALUES), degenerate=True)
    assert not seen.is_duplicate(made(blank, VALUES + 1), degenerate=True)


def test_the_map_met_longest_ago_is_forgotten_first(made):
    seen = Seen(limit=2)
    for values in (VALUES, VALUES * 2, VALUES, VALUES * 3):  # the second is met longest ago
        seen.is_duplicate(made(values, VALUES), degenerate=False)
    assert seen.is_duplicate(made(VALUES, VALUES + 1), degenerate=False)
    assert not seen.is_duplicate(made(VALUES * 2, VALUES + 1), degenerate=False)
