"""Damaged objects through the gateway and through a decoder: answered, or refused by name.

Set ``WHYLIGHT_MUTATIONS`` to try more of them; a failure names seed and number. They
come in portions, each a test of its own: several processes share them, and what was
broken off goes on with ``--last-failed``.
"""

import io
import json
import os
import resource
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate, generate_frames

from service.errors.base import WhylightError
from service.errors.studies import UndecodablePixels
from tests.conformance.test_corpus_decoding import REFUSED
from tests.support import corpus
from tests.support.mutations import mutated
from tests.support.phantom_dicom import LOSSLESS, compress, compressed, encoded, of_pixels
from tests.support.problems import problem
from tests.support.redis_server import any_server, running
from tests.support.served import serve
from workers.slots import Slots

COUNT = int(os.environ.get("WHYLIGHT_MUTATIONS", "150"))
SEED = int(os.environ.get("WHYLIGHT_MUTATIONS_SEED", "20240607"))
PORTION = 500
LARGEST = (1 << 20) if COUNT <= 150 else (8 << 20)
"""Bytes of the largest file that is damaged."""

BODY, SAMPLES = 16 << 20, 32 << 20
ADDRESS_SPACE = 3 << 30
HUNG = 60.0
GROWTH_KIB = 768 << 10
"""What the gateway's process, which is this one, may grow by."""

REFUSALS = frozenset(
    {
        "absurd_dimensions",
        "malformed_body",
        "no_pixel_data",
        "not_dicom",
        "truncated",
        "unsupported_image",
        "unsupported_transfer_syntax",
    }
)
DECODED = REFUSALS | {"decoded", "undecodable_pixels", "invalid_request"}
"""The last is of a frame that is not there."""

NAMELESS = (
    "nested_priv_SQ.dcm",
    "leadtools-flowers-16-mono2-rle.dcm",
    "HTJ2K_08_RGB.dcm",
    "JLSL_16_15_1_1F.dcm",
    "JLSL_RGB_ILV0.dcm",
    "JLSN_RGB_ILV0.dcm",
)
"""Files of the corpus that lack a UID that every object has; nothing could be filed beside them."""

AT_INTAKE = {
    **{name: code for name, code in REFUSED.items() if code != "unsupported_image"},
    **dict.fromkeys(NAMELESS, "not_dicom"),
}
"""How files of the corpus are refused; a segmentation is kept, to be the region of a target."""

RAMP = (np.add.outer(np.arange(48), np.arange(40)) * 40).astype(np.uint16)


def originals() -> list[bytes]:
    """The whole corpus where it is at hand, and an object of each syntax."""
    drawn = [encoded(of_pixels(RAMP, bits=12, RescaleSlope="2", RescaleIntercept="-1"))]
    drawn += [compressed(of_pixels(RAMP), each, compress(RAMP, each)) for each in LOSSLESS]
    files = [path for path in corpus.FILES if path.stat().st_size <= LARGEST]
    return [*drawn, *(path.read_bytes() for path in files)]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running(any_server()) as redis:
        folder = tmp_path_factory.mktemp("mutations")
        with serve(redis, folder, body_bytes=BODY, pixels=SAMPLES) as served:
            yield served


@pytest.fixture(scope="module")
def slots():
    with Slots(1, address_space_bytes=ADDRESS_SPACE) as slots:
        yield slots


def taken_in(client, data: bytes) -> str:
    """Send an object; return how that ended, and leave nothing behind."""
    answer = client.post("/v1/studies", content=data, headers={"Content-Type": "application/dicom"})
    if answer.status_code == 201:
        assert client.delete(answer.headers["location"]).status_code < 300
        return "taken"
    code = str(answer.json()["code"])
    assert code in REFUSALS, answer.json()
    problem(answer, answer.status_code, code)
    assert 400 <= answer.status_code < 500
    return code


def decoded(slots: Slots, file: Path, frame: int) -> str:
    """Decode an object in a slot; return how that ended."""
    where = {"file": str(file), "scratch": str(file.parent)}
    message = {**where, "frame": frame, "max_samples": SAMPLES}
    try:
        slots.run("decode", message, HUNG, lost=UndecodablePixels)
    except WhylightError as refusal:
        return refusal.failure().code
    return "decoded"


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
def test_every_file_of_the_corpus_is_taken_in_or_refused_by_its_code(gateway):
    files = [path for path in corpus.FILES if path.stat().st_size <= BODY]
    with gateway.client(gateway.key()) as client:
        ends = {path: taken_in(client, path.read_bytes()) for path in files}
    wrong = [
        (path.name, said)
        for path, said in ends.items()
        if said != AT_INTAKE.get(path.name, "taken")
    ]
    assert wrong == []


@pytest.fixture(scope="module")
def files():
    return originals()


@pytest.mark.parametrize("first", range(0, COUNT, PORTION))
def test_damage_is_answered_or_refused_by_name(  # noqa: PLR0917 - fixtures
    gateway, slots, files, tmp_path, first, record_property
):
    ends, numbers = Counter(), range(first, min(first + PORTION, COUNT))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = tmp_path / "hurt.dcm"
    with gateway.client(gateway.key()) as client:
        for number in numbers:
            data = mutated(files[number * 7919 % len(files)], SEED, number)
            file.write_bytes(data)
            started = time.monotonic()
            frame = 1 if number % 8 else 2
            try:
                intake, decoder = taken_in(client, data), decoded(slots, file, frame)
            except Exception as error:
                raise AssertionError(f"mutation {number} of seed {SEED}: {error!r}") from error
            ends[intake, decoder] += 1
            assert decoder in DECODED, (number, decoder)
            assert time.monotonic() - started < HUNG, number
    record_property("mutations", json.dumps([[*each, count] for each, count in ends.items()]))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < GROWTH_KIB
    few = len(numbers) // 20
    assert ends["taken", "decoded"] > few
    assert sum(count for (intake, _), count in ends.items() if intake != "taken") > few


def cut_short(data: bytes, random: np.random.Generator) -> bytes | None:
    """End every frame's code stream early, and wrap it up anew; `None` where there is none."""
    into = io.BytesIO()
    try:
        ds = dcmread(io.BytesIO(data))
        if not ds.file_meta.TransferSyntaxUID.is_encapsulated:
            return None
        frames = int(ds.get("NumberOfFrames") or 1)
        codes = generate_frames(ds.PixelData, number_of_frames=frames)
        cut = [code[: int(random.integers(len(code) // 4, len(code)))] for code in codes]
        ds.PixelData = encapsulate(cut)
        dcmwrite(into, ds)
    except Exception:  # noqa: BLE001 - damaged as it is
        return None
    return into.getvalue()


def test_a_code_stream_that_ends_early_is_refused_or_lacks_nothing(slots, files, tmp_path):
    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    whole.mkdir()
    hurt.mkdir()
    ends: Counter[str] = Counter()
    for number, data in enumerate(files):
        short = cut_short(data, np.random.default_rng([SEED, number]))
        if short is None:
            continue
        (whole / "object.dcm").write_bytes(data)
        (hurt / "object.dcm").write_bytes(short)
        if decoded(slots, whole / "object.dcm", 1) != "decoded":
            continue
        end = decoded(slots, hurt / "object.dcm", 1)
        if end == "decoded":  # only padding was cut off
            assert np.array_equal(np.load(whole / "pixels.npy"), np.load(hurt / "pixels.npy")), (
                number
            )
        ends[end] += 1
    assert ends["undecodable_pixels"] >= len(LOSSLESS)
    assert set(ends) <= {"decoded", "undecodable_pixels"}
