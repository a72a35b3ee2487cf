"""What kinds of targets share: the model's answer, and a target made definite."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.domain.explanation import BagInstance
from service.domain.grid import Grid
from service.domain.manifest import Manifest
from service.domain.outputs import ClassSpec, ValueSpec
from service.domain.resolved import ResolvedTarget
from service.domain.target import Of, Segment
from service.domain.value import Sha256
from service.domain.view import View
from service.errors.requests import InvalidTarget
from workers.given import Given
from workers.methods.base import Method
from workers.passes import Scalar, Targets

LONGEST: Final = 64
"""Characters of a target's key."""

Spec = TypeVar("Spec", ClassSpec, ValueSpec)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A target made definite, and what the engine computes for it."""

    target: ResolvedTarget
    scalar: Scalar
    perturbed: "Chosen | None" = None
    """The same as methods see it that change the image and take no derivatives, if otherwise."""

    def seen_by(self, method: Method) -> "Chosen":
        """Return the target as a method has it explained."""
        return self if self.perturbed is None or method.differentiates() else self.perturbed

    @property
    def every(self) -> "tuple[Chosen, ...]":
        """As any method has it explained."""
        return (self,) if self.perturbed is None else (self, self.perturbed)


def distinct(chosen: Sequence[Chosen]) -> Targets:
    """Return what the engine computes for targets, each once."""
    return tuple(dict.fromkeys(each.scalar for each in chosen))


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a model said of the unchanged image."""

    manifest: Manifest
    outputs: Tensor
    """On the CPU, float64 of shape ``(outputs,)``; of a detection, as its decoding says; of a
    segmentation ``(classes, *spatial)``, and of a detection in windows those of each window, as the
    network gave them, because in double they would be the largest thing held of a volume."""

    grid: Grid
    """The model input's pixels in the source image."""

    volume: NDArray[np.float64] | None = None
    """Of a volume its voxels to patient coordinates, homogeneous; `None` of an image."""

    given: Mapping[Segment, Given] = field(default_factory=dict)
    """Regions that the request gives as segments, on the model's input."""

    views: Sequence[View] = ()
    """Of several images that the model saw at once: which is which."""

    references: Mapping[str, tuple[Tensor, Sha256]] = field(default_factory=dict)
    """Of an encoder: the outputs of images that this one is held against, by name in the study, and
    the digest of each object."""

    slices: Sequence[BagInstance] = ()
    """Of a bag of slices, what each is called, in the order of the model's input."""


def found(of: Of, specs: Sequence[Spec]) -> tuple[int, Spec]:
    """Return a class or value by key or index, and its index.

    Raises
    ------
    InvalidTarget
        If there is none, or it is not for use.
    """
    for index, spec in enumerate(specs):
        if of in (spec.key, index):
            if spec.not_for_use is not None:
                raise InvalidTarget("The model's publisher marked this as not for use.")
            return index, spec
    raise InvalidTarget("The model has no such output.", keys=[each.key for each in specs[:100]])


def threshold_logit(spec: ClassSpec) -> float:
    """Return the logit from which on a class of its own is seen; without a threshold, 0."""
    threshold = 0.5 if spec.threshold is None else spec.threshold
    return float(torch.logit(torch.tensor(threshold, dtype=torch.float64)))


def key_of(*parts: str) -> str:
    """Return parts as one key; what would be too long ends with a digest of all."""
    text = "-".join(parts)
    if len(text) <= LONGEST:
        return text
    return f"{text[:47]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
