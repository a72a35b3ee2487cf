"""What an issuing system said of a class, beside what the model says of it here."""

from service.domain.parity import Pair, Parity


def pair(
    key: str, outcome: Parity, observed: float | None = 5.0, *, positive: bool | None = None
) -> Pair:
    """A class that the model reports here, at a logit of 15.84."""
    return Pair(
        key=key,
        outcome=outcome,
        scale="logit",
        observed=observed,
        found=15.84,
        tolerance=0.02,
        observed_positive=positive,
        found_positive=True,
    )
