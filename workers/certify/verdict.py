"""How a certificate ends: bands of similarity, set on one family of models.

The upper end of the interval of ``|similarity|`` counts. Maps that stay alike
when every weight is shuffled are not about the model; those that stay alike
when the head is shuffled, or for another class, are not about the target.
"""

from collections.abc import Mapping
from typing import Final

from service.domain.certificate import Certified, Compared, Similarity

MODEL: Final = (0.3, 0.6)
"""Similarity under which maps follow the weights, and over which they do not."""

TARGET: Final = (0.5, 0.8)
"""Similarity under which maps follow the target, and over which they do not."""


def outcome_of(similarities: Mapping[Compared, Similarity]) -> Certified:
    """Return the outcome; what could not be compared does not count.

    ``other_patient`` never counts: maps may well be alike where disease is.
    """
    model = _worst(similarities, "all_random")
    target = _worst(similarities, "head_random", "other_class")
    if model > MODEL[1] or target > TARGET[1]:
        return "failed"
    return "passed" if model <= MODEL[0] and target <= TARGET[0] else "weakly_specific"


def _worst(similarities: Mapping[Compared, Similarity], *names: Compared) -> float:
    """Return the largest of these similarities; 0 where nothing was compared."""
    return max((_upper(similarities[name]) for name in names if name in similarities), default=0.0)


def _upper(similarity: Similarity) -> float:
    """Return the upper end of the interval of the magnitude."""
    return max(abs(similarity.low), abs(similarity.high))
