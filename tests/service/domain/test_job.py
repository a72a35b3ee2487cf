"""The moves a job may make."""

from itertools import product

import pytest

from service.domain.ids import ALPHABET, new_id
from service.domain.job import MOVES, State

LEGAL = {
    (State.QUEUED, State.RUNNING),
    (State.QUEUED, State.CANCELLED),
    (State.QUEUED, State.FAILED),
    (State.RUNNING, State.SUCCEEDED),
    (State.RUNNING, State.FAILED),
    (State.RUNNING, State.CANCELLED),
    (State.RUNNING, State.QUEUED),
}


@pytest.mark.parametrize(("start", "end"), list(product(State, State)))
def test_only_the_drawn_moves_are_legal(start: State, end: State) -> None:
    assert (end in MOVES[start]) is ((start, end) in LEGAL)


def test_every_state_is_reached_and_every_end_is_an_end() -> None:
    reached = {State.QUEUED}
    for _ in State:
        reached |= {end for start in reached for end in MOVES[start]}
    assert reached == set(State)
    assert {state for state in State if state.ended} == {
        State.SUCCEEDED,
        State.FAILED,
        State.CANCELLED,
    }


def test_ids_are_unguessable_and_never_repeat() -> None:
    ids = {new_id("ex") for _ in range(1000)}
    assert len(ids) == 1000
    for each in ids:
        prefix, _, letters = each.partition("_")
        assert prefix == "ex"
        assert len(letters) == 26
        assert set(letters) <= set(ALPHABET)
