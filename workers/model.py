"""A loaded model: what the shelf holds and the attribute stage works with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from service.domain.catalog import ModelEntry
from service.domain.explanation import ExecutedOn, ModelRef, TargetLayer
from service.domain.manifest import Manifest
from service.domain.request import MethodChoice
from service.errors.requests import InvalidParameter, MissingAbility
from workers.margins import Margins
from workers.methods.base import METHODS, Method, ModelFacts
from workers.precisions import Precisions
from workers.records import Records
from workers.regions import Mask
from workers.replicas import Replicas
from workers.runtimes.base import Runtime

FIRST: Final = "Of the layers that the package names, it is the first that the method can use."


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is ready to be explained."""

    manifest: Manifest
    ref: ModelRef
    facts: ModelFacts
    entry: ModelEntry
    records: Records
    """What was measured of methods on this model."""

    precisions: Precisions
    """What was measured of them in a lower precision."""

    replicas: Replicas
    """What serves it while it is in memory, and what is known of it when it is not."""

    region: Mask | None = None
    """The package's mask of where evidence may lie, if it has one."""

    gaps: Mapping[int, float] = field(default_factory=dict)
    """By class: how far its logit lies apart on validation cases with and without it."""

    known_margins: tuple[Margins, ...] = ()
    """Widest uniform margins of its validation cases, by view; of an image one alone."""

    @property
    def runtime(self) -> Runtime:
        """The replica that was loaded; raises `Dismissed` while it is not in memory."""
        return self.replicas.loaded

    def executed_on(self, method: str) -> ExecutedOn:
        """Tell what computes a method's maps: the model, or what stands in for it."""
        stand_in = self.entry.surrogate
        return "surrogate" if stand_in and method in stand_in.methods else "original"

    def layer(self, choice: MethodChoice, method: Method) -> TargetLayer | None:
        """Return the layer that a settled method looks at, and why that one; `None` if none."""
        name = method.model_dump().get("layer")
        if name is None:
            return None
        found = {each.name: each.reason for each in self.entry.layers}
        asked = choice.parameters.get("layer") is not None
        reason = "The request names it." if asked else found.get(name) or FIRST
        return TargetLayer(name=name, reason=reason)

    def settled(self, choice: MethodChoice) -> Method:
        """Return a method with its parameters, the model's own defaults filled in.

        Raises
        ------
        MissingAbility
            The model cannot serve it.
        InvalidParameter
            Its parameters do not go together, or there is no such layer.
        """
        if choice.name not in self.entry.methods:
            reason = self.entry.refused.get(choice.name, "This worker does not know the method.")
            raise MissingAbility(reason, method=choice.name)
        try:
            return METHODS[choice.name].model_validate(choice.parameters).settled(self.facts)
        except ValidationError as error:
            # sentences of our own validators; the gateway has checked single values
            said = [each["msg"].removeprefix("Value error, ") for each in error.errors()]
            raise InvalidParameter(
                "The method's parameters do not go together; 'reasons' says why.",
                method=choice.name,
                reasons=[*said],
            ) from None
