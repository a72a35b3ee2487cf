"""A codec that ends its process fails the job whose pixels it was given, and no other."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pydicom
import pytest

from service.domain.job import Job, State
from service.errors.base import Kind
from service.settings import QueueSettings, Settings, StoreSettings, WorkerSettings
from tests.support.hospital import ask, ended, published, take_in
from tests.support.phantom_dicom import JPEG_LS, compress, compressed
from tests.workers.line.conftest import House, working
from workers import wiring
from workers.slots import Slots

POOL = "crashing"


@pytest.fixture(scope="module")
def frail(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The same house with a worker whose JPEG-LS codec crashes, in a pool of its own."""
    settings = Settings(
        queue=QueueSettings(url=house.server.url),
        store=StoreSettings(url=f"file://{house.folder}/store", reserve_bytes=0),
        worker=WorkerSettings(slots=2, pool=POOL, scratch=tmp_path_factory.mktemp("frail")),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "Slots", partial(Slots, tasks="tests.support.crashing_codec"))
        with working(settings, house.backends, {house.package.package}) as worker:
            yield replace(house, worker=worker)


def asked(house: House, file: Path) -> Job:
    study = take_in(house.backends.store, file)
    return ask(house.backends, house.package, study, pool=POOL, targets=["top1"], checks="none")


def in_jpeg_ls(file: Path) -> Path:
    image = pydicom.dcmread(file)
    code = compress(image.pixel_array, JPEG_LS)
    file.write_bytes(compressed(image, JPEG_LS, code))
    return file


def test_a_codec_that_crashes_fails_its_own_job_and_no_other(frail: House) -> None:
    doomed = in_jpeg_ls(frail.image("doomed"))
    files = [frail.image("before"), doomed, frail.image("beside"), doomed, frail.image("after")]
    jobs = [asked(frail, file) for file in files]
    records = [ended(frail.backends, job) for job in jobs]
    for file, record in zip(files, records, strict=True):
        if file == doomed:
            assert record.state is State.FAILED
            assert record.failure is not None
            assert (record.failure.code, record.failure.kind) == ("undecodable_pixels", Kind.DATA)
            assert record.attempt == 1
        else:
            assert record.state is State.SUCCEEDED
    assert len(published(frail.backends, records[1])) == 1  # its document


def test_the_same_image_is_explained_where_the_codec_is_sound(house: House) -> None:
    record, _ = house.explain(in_jpeg_ls(house.image("sound")), targets=["top1"], checks="none")
    assert record.state is State.SUCCEEDED
