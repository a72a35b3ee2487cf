"""Weighted least squares for captum, whose own models need scikit-learn."""

from collections.abc import Iterable
from typing import Any

import torch
from captum._utils.models.model import Model
from torch import Tensor
from typing_extensions import override


class Regression(Model):
    """A weighted linear fit with an intercept, solved as a stacked system.

    Parameters
    ----------
    ridge
        Penalty on all weights but the intercept.
    """

    def __init__(self, ridge: float = 0.0) -> None:
        self.ridge = ridge
        self.weights = torch.zeros(0)

    @override
    def fit(self, train_data: Iterable[Any], **kwargs: Any) -> dict[str, float]:
        """Fit to batches of ``(x, y, weight)``."""
        x, y, weight = (torch.cat([*each]).double() for each in zip(*train_data, strict=True))
        root = weight.reshape(-1, 1).sqrt()
        ones = torch.ones(len(x), 1, dtype=torch.float64)
        penalty = torch.eye(x.shape[1] + 1, dtype=torch.float64)[:-1] * self.ridge**0.5
        design = torch.cat([root * torch.cat([x, ones], 1), penalty])
        left = torch.cat([root * y.reshape(-1, 1), torch.zeros(len(penalty), 1)])
        self.weights = torch.linalg.lstsq(design, left).solution[:-1].T
        return {}

    @override
    def representation(self) -> Tensor:
        """Return the fitted weights, shape ``(1, features)``."""
        return self.weights

    @override
    def __call__(self, x: Tensor) -> Tensor:
        """Return predictions up to the intercept."""
        return x @ self.weights.T
