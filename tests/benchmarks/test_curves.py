"""How sure the AUCs of the comparison with the usual curves are."""

import numpy as np

from benchmarks.curves import CURVES, Said, compared, intervals
from benchmarks.maps import WRONG

CHECKS = ("probe_bank", *CURVES)


def finding(right: float, wrong: float, methods: int = 3) -> list[Said]:
    """Say of each of a finding's maps the same."""
    figures = {"right": right, **dict.fromkeys(WRONG, wrong)}
    return [
        Said(check, f"method {k}", kind, figure)
        for check in CHECKS
        for k in range(methods)
        for kind, figure in figures.items()
    ]


def drawn(count: int, methods: int = 3) -> list[list[Said]]:
    random = np.random.default_rng(1)
    return [finding(*pair, methods=methods) for pair in random.normal((1.0, 0.0), size=(count, 2))]


def test_an_interval_holds_its_auc_and_narrows_with_more_findings() -> None:
    widths = []
    for count in (20, 80):
        said = drawn(count)
        auc = compared([each for whole in said for each in whole])["road"]["blank"]
        low, high = intervals(said)["road"]["blank"]
        assert low < auc < high
        widths.append(high - low)
    assert widths[1] < 0.7 * widths[0]


def test_more_maps_of_the_same_findings_make_no_auc_surer() -> None:
    assert intervals(drawn(20, methods=6)) == intervals(drawn(20, methods=1))


def test_right_maps_that_always_win_leave_no_doubt() -> None:
    said = [finding(1.0, 0.0)] * 5
    assert intervals(said)["deletion"]["edge"] == (1.0, 1.0)
