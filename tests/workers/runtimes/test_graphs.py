"""When a forward pass is captured, and what becomes of those that cannot be."""

import pytest
import torch
from torch import Tensor

from tests.support.engine import TOP, image_for, small_runtime
from workers.runtimes import graphs
from workers.runtimes.graphs import AFTER, KEPT, LARGEST, Blind, Given, Graphs, LooksError, padded
from workers.runtimes.memory import Ledger


class Recorded:
    """Stands for a CUDA graph, of which a CPU has none."""

    def replay(self, batch: Tensor) -> Given:
        return batch * 3, {}


def eager(batch: Tensor, _: tuple[str, ...]) -> Given:
    return batch * 2, {}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the rows of what is captured, in order."""
    rows: list[int] = []

    def captured(_self: Graphs, _run: object, batch: Tensor, _places: object) -> Recorded:
        rows.append(len(batch))
        return Recorded()

    monkeypatch.setattr(Graphs, "_captured", captured)
    return rows


def given(made: Graphs, rows: int, places: tuple[str, ...] = ()) -> float:
    outputs, _ = made.forward(eager, torch.ones(rows, 1), places)
    return outputs[0, 0].item()


def test_few_sizes_do_for_all_and_less_than_a_half_is_added() -> None:
    sizes = [padded(rows) for rows in range(1, LARGEST + 1)]
    assert all(rows <= size < rows * 1.5 for rows, size in enumerate(sizes, start=1))
    assert len(set(sizes)) < KEPT
    assert [padded(rows) for rows in (1, 2, 3, 5, 7, 9, 13, 33, 64)] == [
        1, 2, 3, 6, 8, 12, 16, 48, 64,
    ]  # fmt: skip
    assert padded(LARGEST + 1) == LARGEST + 1


def test_only_a_frequent_pass_is_captured_once_for_its_size_and_places(kept: list[int]) -> None:
    made = Graphs(Ledger())
    assert [given(made, 4) for _ in range(AFTER + 2)] == [2.0] * AFTER + [3.0] * 2
    assert given(made, 8) == 2.0
    assert given(made, 4, ("layer",)) == 2.0
    assert kept == [4]


def test_a_large_batch_is_never_captured(kept: list[int]) -> None:
    made = Graphs(Ledger())
    assert {given(made, LARGEST + 1) for _ in range(AFTER + 2)} == {2.0}
    assert kept == []


def test_the_graph_used_least_recently_makes_room(kept: list[int]) -> None:
    made = Graphs(Ledger())
    for rows in range(1, KEPT + 1):
        for _ in range(AFTER + 1):
            given(made, rows)
    assert given(made, 1) == 3.0
    for _ in range(AFTER + 1):
        given(made, KEPT + 1)
    assert given(made, 1) == 3.0
    assert given(made, 2) == 2.0
    assert kept == list(range(1, KEPT + 2))


def test_what_cannot_be_captured_is_tried_once_and_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = []

    def refused(_self: Graphs, _run: object, batch: Tensor, _places: object) -> None:
        tries.append(len(batch))

    monkeypatch.setattr(graphs.Graphs, "_captured", refused)
    made = Graphs(Ledger())
    assert {given(made, rows) for _ in range(2 * AFTER) for rows in (2, 3)} == {2.0}
    assert tries == [2]


@pytest.mark.parametrize(
    "looks",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.empty_like(x, device="meta"),
    ],
)
def test_a_pass_that_looks_at_its_numbers_is_told_before_it_is_captured(looks) -> None:
    x = torch.ones(3, 4)
    with pytest.raises(LooksError), Blind(x.device):
        looks(x)


def test_an_ordinary_pass_looks_at_nothing() -> None:
    runtime = small_runtime()
    batch = torch.stack([image_for(), image_for(seed=1)])
    expected, _ = runtime._plain(batch, (TOP,))
    with Blind(batch.device):
        outputs, found = runtime._plain(batch, (TOP,))
    assert torch.equal(outputs, expected)
    assert set(found) == {TOP}
