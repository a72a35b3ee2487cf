"""Tabular inputs: what a model takes of a patient beside the image, one number each."""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, model_validator

from service.domain.value import Slug, Value

Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,16}$")]
"""A code such as ``M``."""

Origin = Literal["request", "dicom", "default"]
"""Where a value came from."""

UNITS: Final = {
    "PatientAge": ("a", "mo", "wk", "d"),
    "PatientSize": ("m", "cm"),
    "PatientWeight": ("kg", "g"),
}
"""Units that a DICOM attribute can be given in; Patient's Sex has words."""


class Variable(Value):
    """One number that a model takes beside the image, in the order of its tensor."""

    key: Slug
    label: str = Field(max_length=64)
    unit: str = Field(default="1", max_length=16)
    """As of UCUM: ``a``, ``mo``, ``kg``, ``1`` without one."""

    minimum: float | None = Field(default=None, allow_inf_nan=False)
    maximum: float | None = Field(default=None, allow_inf_nan=False)
    """Least and greatest value that the model was made for, both allowed."""

    codes: dict[Word, Annotated[float, Field(allow_inf_nan=False)]] = {}
    """In place of a range: words and the numbers that they stand for, ``{F: 0, M: 1}``."""

    mean: float = Field(default=0.0, allow_inf_nan=False)
    std: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """The model is given the value less the mean, over the standard deviation."""

    baseline: float = Field(allow_inf_nan=False)
    """The value that a share is counted from, such as the mean of the training cases."""

    default: float | None = Field(default=None, allow_inf_nan=False)
    """What counts where nobody gives a value; without it a value is required."""

    source: Literal["PatientAge", "PatientSex", "PatientSize", "PatientWeight"] | None = None
    """The DICOM attribute that it is read from where the request gives none."""

    @model_validator(mode="after")
    def _says_what_it_allows(self) -> "Variable":
        """Require words or a range, and what a source needs."""
        ranged = self.minimum is not None and self.maximum is not None
        if bool(self.codes) == ranged or (self.minimum is None) != (self.maximum is None):
            raise ValueError("a variable needs 'minimum' and 'maximum', or 'codes'")
        if not self.least < self.greatest:
            raise ValueError("the range must hold more than one value")
        if not all(self.least <= each <= self.greatest for each in self._own):
            raise ValueError("'baseline' and 'default' must lie in the range")
        if self.source is not None and (self.source == "PatientSex") != bool(self.codes):
            raise ValueError("source PatientSex needs 'codes', and no other source has them")
        units = UNITS.get(self.source or "")
        if units and self.unit not in units:
            raise ValueError(f"a value of source {self.source} needs a unit of {', '.join(units)}")
        return self

    @property
    def _own(self) -> tuple[float, ...]:
        return (self.baseline, *(() if self.default is None else (self.default,)))

    @property
    def least(self) -> float:
        """The least number allowed."""
        return min(self.codes.values()) if self.minimum is None else self.minimum

    @property
    def greatest(self) -> float:
        """The greatest number allowed."""
        return max(self.codes.values()) if self.maximum is None else self.maximum

    @property
    def required(self) -> bool:
        """Whether a request must give it."""
        return self.default is None and self.source is None

    def number(self, given: float | str) -> float:
        """Return the number of what was given.

        Raises
        ------
        ValueError
            It is not allowed; the text says what is, and not what was given.
        """
        if self.codes:
            if not isinstance(given, str) or given not in self.codes:
                raise ValueError(f"Give one of the words {', '.join(self.codes)}.")
            return self.codes[given]
        if isinstance(given, str) or not self.least <= given <= self.greatest:
            unit = "" if self.unit == "1" else f" (in {self.unit})"
            raise ValueError(f"Give a number from {self.least:g} to {self.greatest:g}{unit}.")
        return float(given)

    def normalized(self, number: float) -> float:
        """Return a number as the model takes it."""
        return (number - self.mean) / self.std


class VariableFact(Value):
    """A value that was given to the model beside the image."""

    key: str
    label: str
    unit: str
    value: float
    baseline: float
    """What its share is counted from."""

    origin: Origin


class VariableShare(Value):
    """What one value beside the image adds to the explained score."""

    key: str
    label: str
    relevance: float
    """Signed, in units of the score, as the map's values are."""
