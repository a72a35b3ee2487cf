"""A model with many heads: what differs in its head alone shares all that comes before."""

from collections.abc import Collection, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from typing_extensions import override

from workers.certify.weights import SEEDS, shuffled

CLASSES: Final = 1
"""Axis of the outputs along which the heads' answers follow one another."""


class Heads(nn.Module):
    """Several versions of one module, side by side."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @override
    def forward(self, *given: Tensor) -> Tensor:
        return torch.cat([member(*given) for member in self.members], CLASSES)


def headed(
    model: nn.Module, names: frozenset[str], image: Tensor, layers: Collection[str]
) -> nn.Module | None:
    """Return a copy with the model's own head and each of its shuffles.

    Its outputs are those of the model, followed by those of the copy with the
    first shuffle, and so on, to the last bit: one pass gives what else takes
    one for each shuffle.

    Parameters
    ----------
    model
        It stays as it is.
    names
        Parameters of the head, see `head_of`.
    image
        One on which it is tried, shape ``(C, *spatial)``, of the model's floating type.
    layers
        Places in the model that methods may look at.

    Returns
    -------
    Module or None
        `None` where the head is no one module whose outputs are the model's.
    """
    owners = {name.rpartition(".")[0] for name in names}
    path = owners.pop() if len(owners) == 1 else ""
    if not path or any(f"{layer}.".startswith(f"{path}.") for layer in layers):
        return None
    try:
        model.get_submodule(path)
    except AttributeError:  # a node of a graph, whose name has a dot
        return None
    versions = [shuffled(model, seed, names) for seed in SEEDS]
    copied = shuffled(model, SEEDS[0], frozenset())
    members = [each.get_submodule(path) for each in (copied, *versions)]
    copied.set_submodule(path, Heads(members))
    with torch.no_grad():
        row = image[None]
        try:
            together: Tensor = copied(row)
        except Exception:  # noqa: BLE001 - foreign code, which may look into its head
            return None
        apart = torch.cat([each(row) for each in (model, *versions)], CLASSES)
    return copied if torch.equal(together, apart) else None
