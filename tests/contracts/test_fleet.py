"""What the fleet promises: who is alive, and what they can do together."""

from typing import Literal

import pytest

from service.domain.catalog import Catalog, CertificateEntry, FormatEntry, MethodEntry, ModelEntry
from service.errors.requests import TooLarge
from service.fleet.base import Leave, WorkerRecord
from service.fleet.redis import RedisFleet
from service.redis_server import RedisServer
from service.store.base import BlobStore
from tests.support.jobs import HandClock

pytestmark = pytest.mark.redis


def worker(
    name: str = "w1", packages: tuple[str, ...] = (), *, loading: bool = False
) -> WorkerRecord:
    return WorkerRecord(
        id=name,
        pool="default",
        device="cpu",
        started=1,
        version="0.1.0",
        packages=packages,
        running=0,
        slots=2,
        loading=loading,
    )


def method(name: str) -> MethodEntry:
    return MethodEntry(
        name=name,
        version=1,
        title=name,
        parameters={},
        needs=("forward",),
        signed=True,
        paper="",
        cost="",
        weaknesses="",
    )


def model(name: str, version: str, package: str, state: str = "ready") -> ModelEntry:
    return ModelEntry.model_validate(
        {
            "name": name,
            "version": version,
            "package": package,
            "title": name,
            "task": "classification-multilabel",
            "intended_use": "",
            "not_for": "",
            "license": "MIT",
            "runtime": "torch",
            "state": state,
        }
    )


def test_a_published_worker_is_alive_as_it_told(fleet: RedisFleet) -> None:
    fleet.publish(worker("w2"), Catalog(), seconds=5)
    fleet.publish(worker("w1"), Catalog(), seconds=5)
    assert fleet.workers() == (worker("w1"), worker("w2"))


def test_a_silent_worker_is_gone(fleet: RedisFleet, clock: HandClock) -> None:
    fleet.publish(worker(), Catalog(), seconds=5)
    clock.pass_seconds(4.9)
    assert fleet.workers()
    clock.pass_seconds(0.1)
    assert fleet.workers() == ()


def test_publishing_again_keeps_a_worker_alive(fleet: RedisFleet, clock: HandClock) -> None:
    for running in range(5):
        busy = worker().model_copy(update={"running": running})
        fleet.publish(busy, Catalog(), seconds=5)
        clock.pass_seconds(4)
        assert fleet.workers() == (busy,)


def test_a_retired_worker_is_gone_at_once(fleet: RedisFleet) -> None:
    fleet.publish(worker("w1"), Catalog(methods=(method("a"),)), seconds=5)
    fleet.publish(worker("w2"), Catalog(methods=(method("b"),)), seconds=5)
    fleet.retire("w1")
    assert [each.id for each in fleet.workers()] == ["w2"]
    assert [each.name for each in fleet.catalog().methods] == ["b"]


def test_without_workers_ever_the_catalog_is_empty(fleet: RedisFleet) -> None:
    assert fleet.catalog() == Catalog()


def test_the_catalog_is_the_union_of_the_living(fleet: RedisFleet) -> None:
    one = Catalog(methods=(method("a"), method("b")), models=(model("m", "1.0.0", "p1"),))
    two = Catalog(methods=(method("b"), method("c")), models=(model("m", "1.10.0", "p2"),))
    fleet.publish(worker("w1"), one, seconds=5)
    fleet.publish(worker("w2"), two, seconds=5)
    joint = fleet.catalog()
    assert {each.name for each in joint.methods} == {"a", "b", "c"}
    assert [each.version for each in joint.models] == ["1.0.0", "1.10.0"]


def test_a_ready_model_counts_before_an_unavailable_one(fleet: RedisFleet) -> None:
    broken = Catalog(models=(model("m", "1.0.0", "p1", "unavailable"),))
    fleet.publish(worker("w1"), broken, seconds=5)
    assert [each.state for each in fleet.catalog().models] == ["unavailable"]
    fleet.publish(worker("w2"), Catalog(models=(model("m", "1.0.0", "p1"),)), seconds=5)
    assert [each.state for each in fleet.catalog().models] == ["ready"]


def test_the_worker_that_has_measured_more_of_a_model_tells_of_it(fleet: RedisFleet) -> None:
    def known(outcome: Literal["not_certifiable", "passed"]) -> Catalog:
        certificate = CertificateEntry(
            method="saliency", parameters={}, default=True, id="a" * 64, outcome=outcome, protocol=1
        )
        entry = model("m", "1.0.0", "p1").model_copy(update={"certificates": (certificate,)})
        return Catalog(models=(entry,))

    fleet.publish(worker("w1"), known("not_certifiable"), seconds=5)
    fleet.publish(worker("w2"), known("passed"), seconds=5)
    ((found,),) = (each.certificates for each in fleet.catalog().models)
    assert found.outcome == "passed"


def test_a_part_that_one_worker_has_is_not_unavailable(fleet: RedisFleet) -> None:
    dicom = FormatEntry(name="dicom_sc", title="", media_type="application/dicom", extension="dcm")
    fleet.publish(
        worker("w1"), Catalog(unavailable={"dicom_sc": "ImportError", "x": "OSError"}), seconds=5
    )
    fleet.publish(worker("w2"), Catalog(formats=(dicom,)), seconds=5)
    assert fleet.catalog().unavailable == {"x": "OSError"}


def test_the_last_catalog_stays_readable_when_all_are_gone(
    fleet: RedisFleet, clock: HandClock
) -> None:
    fleet.publish(worker("w1"), Catalog(methods=(method("a"),)), seconds=5)
    fleet.publish(worker("w2"), Catalog(methods=(method("b"),)), seconds=5)
    joint = fleet.catalog()
    clock.pass_seconds(1000)
    assert fleet.workers() == ()
    assert fleet.catalog() == joint


def test_a_retired_last_worker_leaves_its_catalog(fleet: RedisFleet) -> None:
    fleet.publish(worker(), Catalog(methods=(method("a"),)), seconds=5)
    fleet.retire("w1")
    assert [each.name for each in fleet.catalog().methods] == ["a"]


def test_a_worker_that_still_loads_takes_nothing_from_what_was_known(
    fleet: RedisFleet, clock: HandClock
) -> None:
    one, two, other = (model(name, "1.0.0", name) for name in ("one", "two", "zwei"))
    fleet.publish(worker(), Catalog(methods=(method("old"),), models=(one, two)), seconds=5)
    fleet.retire("w1")
    failed = model("one", "1.0.0", "one", "unavailable")
    partial = Catalog(methods=(method("new"),), models=(failed,))
    fleet.publish(worker(loading=True), partial, seconds=5)
    assert fleet.catalog().models == (failed, two)  # what it tells of itself counts
    assert [each.name for each in fleet.catalog().methods] == ["new"]
    clock.pass_seconds(6)
    assert fleet.catalog().models == (one, two)
    fleet.publish(worker(loading=True), partial, seconds=5)
    fleet.publish(worker("w2"), Catalog(models=(other,)), seconds=5)
    assert fleet.catalog().models == (failed, other)  # w2 has loaded all there is
    fleet.publish(worker(), Catalog(models=(failed, two)), seconds=5)
    clock.pass_seconds(6)
    assert fleet.catalog().models == (failed, two, other)


def test_what_is_withdrawn_is_in_no_catalog_until_it_is_readmitted(fleet: RedisFleet) -> None:
    kept, gone = model("m", "1.0.0", "p1"), model("m", "2.0.0", "p2")
    fleet.publish(worker(packages=("p1", "p2")), Catalog(models=(kept, gone)), seconds=5)
    fleet.withdraw("p2")
    assert fleet.catalog().models == (kept,)
    fleet.publish(worker(packages=("p1", "p2")), Catalog(models=(kept, gone)), seconds=5)
    assert fleet.catalog().models == (kept,)  # its worker has not looked yet
    fleet.retire("w1")
    assert fleet.catalog().models == (kept,)
    fleet.readmit("p2")
    assert fleet.catalog().models == (kept, gone)


def test_another_process_reads_the_same_catalog(
    fleet: RedisFleet, redis: RedisServer, store: BlobStore
) -> None:
    catalog = Catalog(methods=(method("a"),))
    fleet.publish(worker(), catalog, seconds=5)
    assert RedisFleet(redis, store).catalog() == catalog


def test_a_catalog_that_changes_is_seen(fleet: RedisFleet) -> None:
    fleet.publish(worker(), Catalog(methods=(method("a"),)), seconds=5)
    assert [each.name for each in fleet.catalog().methods] == ["a"]
    fleet.publish(worker(), Catalog(methods=(method("b"),)), seconds=5)
    assert [each.name for each in fleet.catalog().methods] == ["b"]


def test_asking_again_reads_nothing_from_the_store(fleet: RedisFleet, store: BlobStore) -> None:
    fleet.publish(worker(), Catalog(methods=(method("a"),)), seconds=5)
    first = fleet.catalog()
    assert store.purge("catalog") == 1
    assert fleet.catalog() is first


def test_a_catalog_gone_from_the_store_comes_back_with_its_worker(
    fleet: RedisFleet, redis: RedisServer, store: BlobStore
) -> None:
    fleet.publish(worker("w1"), Catalog(methods=(method("a"),)), seconds=5)
    fleet.publish(worker("w2"), Catalog(methods=(method("b"),)), seconds=5)
    store.purge("catalog")
    reader, restarted = RedisFleet(redis, store), RedisFleet(redis, store)
    assert reader.catalog() == Catalog()
    restarted.publish(worker("w1"), Catalog(methods=(method("a"),)), seconds=5)
    assert [each.name for each in reader.catalog().methods] == ["a"]


def test_a_catalog_of_another_version_is_named_and_does_no_harm(
    fleet: RedisFleet, redis: RedisServer, store: BlobStore
) -> None:
    fleet.publish(worker("w1"), Catalog(methods=(method("a"),)), seconds=5)
    fleet.publish(worker("w2"), Catalog(methods=(method("b"),)), seconds=5)
    for blob in list(store.list("catalog")):
        if b'"b"' in store.get(blob.path):
            store.put(blob.path, b'{"from_the_future":1}')
    seen = RedisFleet(redis, store).catalog()
    assert [each.name for each in seen.methods] == ["a"]
    assert list(seen.unavailable.values()) == ["another version wrote it"]


def test_a_large_catalog_stays_out_of_redis(fleet: RedisFleet, redis: RedisServer) -> None:
    large = Catalog(methods=tuple(method(f"method_{i}") for i in range(200)))
    fleet.publish(worker(), large, seconds=5)
    with redis.client() as client:
        sizes = [
            len(str(client.hgetall("wl:fleet:worker:w1"))),
            client.memory_usage("wl:fleet:last"),
        ]
    assert max(sizes) < 1000
    assert fleet.catalog() == large


def test_a_worker_record_over_eight_kib_is_refused(fleet: RedisFleet) -> None:
    with pytest.raises(TooLarge):
        fleet.publish(worker(packages=("a" * 64,) * 200), Catalog(), seconds=5)
    assert fleet.workers() == ()


def test_a_package_whose_loads_are_lost_twice_is_given_up_until_it_is_forgiven(
    fleet: RedisFleet, clock: HandClock
) -> None:
    assert fleet.begin_load("p1", "w1", seconds=9) is Leave.BEGUN
    clock.pass_seconds(9)
    assert fleet.begin_load("p1", "w2", seconds=9) is Leave.BEGUN
    assert fleet.begin_load("p1", "w3", seconds=9) is Leave.WAIT  # one at a time from now on
    assert fleet.begin_load("p2", "w3", seconds=9) is Leave.BEGUN
    fleet.end_load("w3")
    clock.pass_seconds(9)
    assert fleet.begin_load("p1", "w3", seconds=9) is Leave.GIVEN_UP
    assert fleet.begin_load("p2", "w3", seconds=9) is Leave.BEGUN
    fleet.forgive_loads("p1")
    assert fleet.begin_load("p1", "w4", seconds=9) is Leave.BEGUN


def test_a_worker_that_begins_anew_has_lost_its_load_at_once(fleet: RedisFleet) -> None:
    for expected in (Leave.BEGUN, Leave.BEGUN, Leave.GIVEN_UP, Leave.GIVEN_UP):
        assert fleet.begin_load("p1", "w1", seconds=9) is expected


def test_a_load_that_is_held_is_not_lost_however_long_it_takes(
    fleet: RedisFleet, clock: HandClock
) -> None:
    fleet.begin_load("p1", "w1", seconds=9)
    for _ in range(5):
        clock.pass_seconds(8)
        fleet.hold_load("w1", seconds=9)
        assert fleet.begin_load("p1", "w2", seconds=9) is Leave.BEGUN
        fleet.end_load("w2")


def test_an_ended_load_forgives_those_lost_before(fleet: RedisFleet) -> None:
    for _ in range(2):
        fleet.begin_load("p1", "w1", seconds=9)
    fleet.end_load("w1")
    for _ in range(2):
        assert fleet.begin_load("p1", "w1", seconds=9) is Leave.BEGUN


def test_a_retired_workers_load_is_not_lost(fleet: RedisFleet) -> None:
    for _ in range(3):
        assert fleet.begin_load("p1", "w1", seconds=9) is Leave.BEGUN
        fleet.retire("w1")


def test_a_load_that_was_held_too_late_stays_lost(fleet: RedisFleet, clock: HandClock) -> None:
    fleet.begin_load("p1", "w1", seconds=9)
    clock.pass_seconds(9)
    fleet.begin_load("p2", "w2", seconds=9)
    fleet.hold_load("w1", seconds=9)
    fleet.begin_load("p1", "w1", seconds=9)
    assert fleet.begin_load("p1", "w1", seconds=9) is Leave.GIVEN_UP
