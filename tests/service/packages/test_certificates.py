"""Records in the store: the first counts; records in a package: read or refused."""

import json

import pytest

from service.certificates import MethodRecords
from service.contents import inspect
from service.domain.certificate import Certificate, MethodRecord
from service.domain.precision import PrecisionRecord
from service.errors.models import InvalidPackage
from service.records import read_listed, write_listed
from service.settings import StoreSettings
from service.store.objects import open_store
from tests.support.packages import entry, manifest, write_manifest, write_package


def record(id_="a" * 64, cases=24):
    certificate = Certificate(outcome="passed", cases=cases, seeds=4, synthetic=True, protocol=1)
    return MethodRecord(
        id=id_,
        method="saliency",
        parameters={},
        weights="b" * 64,
        runtime="torch",
        certificate=certificate,
    )


@pytest.fixture
def store(tmp_path):
    return open_store(StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=0))


def test_of_two_workers_the_first_record_counts_for_both(store):
    first, second = MethodRecords(store), MethodRecords(store)
    assert first.find("a" * 64) is None
    assert first.enter(record()) == record()
    assert second.enter(record(cases=12)) == record()
    assert second.find("a" * 64) == record()


def test_a_record_that_cannot_be_read_is_none_and_does_not_block_ours(store):
    store.put(f"models/certificates/{'a' * 64}.json", b'{"schema_number": 99}')
    assert MethodRecords(store).find("a" * 64) is None
    assert MethodRecords(store).enter(record()) == record()


def test_records_are_read_as_they_were_written():
    both = (record(), record("c" * 64))
    assert read_listed(write_listed(both), MethodRecord) == both


def with_records(folder, content, role="certificates"):
    write_package(folder)
    (folder / f"{role}.json").write_bytes(content)
    fields = manifest(folder)
    fields["files"].append(entry(folder, role, "json", f"{role}.json"))
    write_manifest(folder, fields)
    return folder


def test_a_package_may_bring_records(tmp_path):
    found, _ = inspect(with_records(tmp_path / "p", write_listed((record(),))))
    assert found.file("certificates", "json").path == "certificates.json"


def test_a_package_may_bring_what_was_measured_in_bfloat16(tmp_path):
    narrow = PrecisionRecord(
        id="a" * 64, method="saliency", parameters={}, device="cpu", outcome="offered", gate=0.99
    )
    content = write_listed((narrow,))
    assert read_listed(content, PrecisionRecord) == (narrow,)
    found, _ = inspect(with_records(tmp_path / "p", content, "precisions"))
    assert found.file("precisions", "json").path == "precisions.json"


@pytest.mark.parametrize("role", ["certificates", "precisions"])
@pytest.mark.parametrize("content", [b"{}", b'[{"id": "x"}]', json.dumps([1, 2]).encode()])
def test_a_package_whose_records_cannot_be_read_is_refused(tmp_path, content, role):
    with pytest.raises(InvalidPackage) as caught:
        inspect(with_records(tmp_path / "p", content, role))
    assert [each["pointer"] for each in caught.value.facts["errors"]] == ["/files/2/path"]
