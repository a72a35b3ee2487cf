"""The outcomes of the methods for which the bands were set."""

import pytest

from service.domain.certificate import Similarity
from workers.certify.verdict import outcome_of


def alike(**highs):
    return {
        name: Similarity(value=high, low=min(0.0, high), high=high, pairs=96)
        for name, high in highs.items()
    }


@pytest.mark.parametrize(
    ("all_random", "other_class", "head_random", "expected"),
    [
        (0.10, 0.02, 0.08, "passed"),  # Grad-CAM
        (0.01, -0.11, -0.03, "passed"),  # input x gradient
        (0.11, 0.59, 0.72, "weakly_specific"),  # saliency by magnitude
        (0.27, 0.60, 0.72, "weakly_specific"),  # SmoothGrad by magnitude
        (0.09, 0.78, 0.87, "failed"),  # guided backpropagation
        (1.00, 1.00, 1.00, "failed"),  # edges
        (0.30, 0.50, 0.50, "passed"),
        (0.31, 0.00, 0.00, "weakly_specific"),
        (0.60, 0.00, 0.00, "weakly_specific"),
        (0.61, 0.00, 0.00, "failed"),
        (0.00, 0.80, 0.00, "weakly_specific"),
        (0.00, 0.00, 0.81, "failed"),
        (-0.61, 0.00, 0.00, "failed"),
    ],
)
def test_the_worst_upper_end_decides(all_random, other_class, head_random, expected):
    found = alike(all_random=all_random, other_class=other_class, head_random=head_random)
    assert outcome_of(found) == expected


def test_what_is_alike_for_everybody_does_not_count():
    assert outcome_of(alike(all_random=0.1, other_class=0.1, other_patient=1.0)) == "passed"


def test_a_model_of_one_class_is_judged_by_the_rest():
    assert outcome_of(alike(all_random=0.1, head_random=0.9)) == "failed"
    assert outcome_of(alike(all_random=0.1)) == "passed"
