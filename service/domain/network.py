"""The network of a model package: what builds it, fills it, or runs it elsewhere."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from service.domain.files import RelativePath
from service.domain.value import Name, Value


class Architecture(Value):
    """A network constructor of the allow-list and its arguments."""

    name: Name
    parameters: dict[Name, JsonValue] = {}


class KeyMap(Value):
    """How the names in a foreign file of weights become those of the network.

    Prefixes are stripped first, then whole parts are dropped, then renamed, then
    the layout is applied.
    """

    strip: tuple[str, ...] = ()
    """Prefixes to take off every name that has them, one after the other: ``module.``."""

    drop: tuple[str, ...] = ()
    """Beginnings of the names of tensors that the network has no use for."""

    rename: dict[str, str] = {}
    """Beginnings of names and what they become; the first that fits counts."""

    layout: Name | None = None
    """A published layout that the architecture knows: ``torchvision``, ``timm``, ``nnunet``."""


class HeadLayer(Value):
    """A layer of a replaced head."""

    kind: Literal["linear", "batch_norm", "layer_norm", "relu", "gelu", "tanh"]
    key: str | None = None
    """Its name in the file of weights, after stripping: ``classifier.0``."""

    features: int | None = Field(default=None, ge=1, le=65536)
    """How many numbers a linear layer puts out; the last one's are the classes."""

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> "HeadLayer":
        """Require names of what has weights, and the size of linear layers."""
        if self.kind in {"linear", "batch_norm", "layer_norm"} and self.key is None:
            raise ValueError(f"a layer of kind '{self.kind}' needs its 'key' in the weights")
        if (self.kind == "linear") != (self.features is not None):
            raise ValueError("a linear layer needs 'features', and no other kind has them")
        return self


class Head(Value):
    """Layers that stand in place of the network's own linear head."""

    layers: tuple[HeadLayer, ...] = Field(min_length=1, max_length=16)


class Members(Value):
    """Networks of one architecture that answer together, such as the folds of a training."""

    weights: tuple[RelativePath, ...] = Field(min_length=2, max_length=16)
    """Their files, of role ``weights``."""

    combine: Literal["logits", "probabilities"] = "logits"
    """What the mean is taken of. What is explained is a logit in both cases: that of the mean
    probability, or its logarithm where classes exclude each other."""


ServerWord = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""A name or a version on an inference server; safe in the path of an address."""


class Remote(Value):
    """Where a model runs that the package does not hold: a server of the Open Inference Protocol.

    The protocol's version 2 over HTTP, as Triton, KServe, MLServer and others speak it.
    """

    endpoint: str = Field(min_length=1, max_length=200)
    """The server, by its name in the administrator's list or by its address there."""

    model: ServerWord
    """The model's name on the server."""

    model_version: ServerWord | None = None
    """The version to ask; the server's choice if not given."""

    input: str = Field(min_length=1, max_length=200)
    """Name of the tensor that takes the image."""

    output: str = Field(min_length=1, max_length=200)
    """Name of the tensor to explain."""

    datatype: Literal["FP16", "FP32", "FP64"] = "FP32"
    """Of all tensors, by the protocol's word."""

    rows: int = Field(default=32, ge=1, le=1024)
    """Most images in one request."""

    tolerance: float = Field(default=1e-3, gt=0, le=1)
    """How far the server's answer to one and the same input may move, counted as in `surrogate`."""


class Surrogate(Value):
    """How nearly a network that stands in for the original must say what that says."""

    tolerance: float = Field(default=1e-3, gt=0, le=1)
    """Largest difference of a logit, as a share of the largest logit, or of 1 if that is less."""

    def difference(self, original: Sequence[float], surrogate: Sequence[float]) -> float:
        """Return the largest difference of two answers, counted as `tolerance` is."""
        largest = max(1.0, *(abs(each) for each in original))
        pairs = zip(original, surrogate, strict=True)
        apart = [abs(a - b) / largest for a, b in pairs]
        return math.inf if any(map(math.isnan, apart)) else max(apart)


class Layer(Value):
    """A layer that methods may use, by its name in each runtime."""

    name: str
    """Module path in torch."""

    onnx: str | None = None
    """Tensor name in the ONNX graph."""
