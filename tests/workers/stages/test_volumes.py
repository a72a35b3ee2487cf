"""Decode and prepare a series in real slots, as a job takes it."""

from dataclasses import replace

import numpy as np
import pytest

from service.domain.inputs import Accept, Input, StepChoice, VolumeRules
from service.errors.base import WhylightError
from service.errors.jobs import Cancelled
from service.errors.studies import MissingSlices
from tests.support.parcels import fetched, instance
from tests.support.volumes import CORONAL, Series
from workers.parcels import SourceFile
from workers.slots import Slots
from workers.stages.decode import decode
from workers.stages.prepare import prepare
from workers.stages.render import digest_of
from workers.volumes import decode as volumes

STEPS = (
    StepChoice(name="orient", parameters={"axes": "SPL"}),
    StepChoice(name="resize", parameters={"size": [8, 12, 10]}),
)


@pytest.fixture(scope="module")
def slots():
    with Slots(1, address_space_bytes=4 << 30) as slots:
        yield slots


@pytest.fixture
def series(tmp_path):
    """A function that gives a fetched job on a series."""

    def of(made, **rules):
        files = []
        for number, data in enumerate(made.files()):
            path = tmp_path / f"{number}.dcm"
            path.write_bytes(data)
            known = instance(id=f"in_{number}", sop_instance_uid=f"2.25.{number}")
            files.append(SourceFile(known, path))
        job = fetched(made.files()[0], tmp_path)
        rules = VolumeRules(least_slices=2, **rules)
        accept = Accept(modalities=("CT",), volume=rules)
        taken = Input(kind="volume", layout="NCDHW", accept=accept, steps=STEPS)
        manifest = job.manifest.model_copy(update={"inputs": (taken,)})
        return replace(job, manifest=manifest, series=tuple(files))

    return of


def test_a_series_goes_from_its_files_to_the_models_input(slots, series):
    made = Series(orientation=CORONAL)
    decoded = decode(series(made), slots)
    assert np.array_equal(np.load(decoded.pixels)[0], made.values)
    assert decoded.volume.plane == "coronal"
    prepared = prepare(decoded, slots)
    assert prepared.tensor.shape == (1, 8, 12, 10)
    way = made.affine @ prepared.grid.affine
    assert way[2, 0] > 0  # the first axis leads to the head, as its letter says
    assert abs(way[2, 0]) > np.abs(way[:2, 0]).max()


def test_progress_is_told_between_portions_and_may_end_the_work(slots, series, monkeypatch):
    monkeypatch.setattr(volumes, "PORTION", 24 * 20 * 5)
    told = []
    decode(series(Series()), slots, on_progress=told.append)
    assert told == [5 / 12, 10 / 12, 1.0]

    def stop(_):
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        decode(series(Series()), slots, on_progress=stop)


def test_a_refused_series_fails_by_name_across_the_process(slots, series):
    job = series(Series())
    with pytest.raises(WhylightError) as failure:
        decode(replace(job, series=job.series[:4] + job.series[6:]), slots)
    assert failure.value.failure().code == MissingSlices.code
    assert failure.value.failure().facts["missing"] == 2


def test_derived_series_are_named_by_every_slice(series):
    job = series(Series())
    first = job.series[-1]
    shuffled = replace(job, series=job.series[::-1], instance=first.instance, file=first.file)
    fewer = replace(job, series=job.series[1:])
    assert digest_of(job) == digest_of(shuffled) != digest_of(fewer)
