"""In deterministic mode a map is the same to the bit, whichever jobs shared its batches."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain.explanation import Explanation
from service.settings import QueueSettings, Settings, StoreSettings, WorkerSettings
from tests.support.hospital import ask, document, ended, take_in
from tests.support.small_model import picture
from tests.workers.line.conftest import House, working

POOL = "deterministic"
ROWS = 3


@pytest.fixture(scope="module")
def padded(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The same house with a worker that pads its batches, in a pool of its own."""
    scratch = tmp_path_factory.mktemp("padded")
    settings = Settings(
        queue=QueueSettings(url=house.server.url),
        store=StoreSettings(url=f"file://{house.folder}/store", reserve_bytes=0),
        worker=WorkerSettings(slots=2, jobs=4, pool=POOL, fixed_rows=ROWS, scratch=scratch),
    )
    with working(settings, house.backends, {house.package.package}) as worker:
        yield replace(house, worker=worker)


def explained(house: House, *files: Path) -> list[Explanation]:
    """Have images explained side by side."""
    asked = [
        ask(
            house.backends,
            house.package,
            take_in(house.backends.store, file),
            pool=POOL,
            methods=["saliency", "grad_cam", "occlusion"],
            artifacts=[],
            checks="none",
        )
        for file in files
    ]
    return [document(house.backends, ended(house.backends, each)) for each in asked]


def digests(explanation: Explanation) -> list[str]:
    """The SHA-256 of each map."""
    bindings = (each.trust.binding for each in explanation.results if each.trust)
    return [each.map for each in bindings if each]


def test_the_bits_of_a_map_do_not_depend_on_the_jobs_beside_it(padded: House) -> None:
    image = padded.image("mine")
    others = [padded.image(f"other-{k}", stored=picture(10 + k)) for k in range(3)]
    (alone,) = explained(padded, image)
    beside, *_ = explained(padded, image, *others)
    assert len(digests(alone)) >= 3
    assert digests(beside) == digests(alone)
    assert alone.provenance is not None
    assert alone.provenance.fixed_rows == ROWS
