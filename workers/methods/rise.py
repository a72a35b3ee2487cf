"""RISE: how the score differs between random masks that show a place and that hide it."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Final, Self

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.device import sent
from workers.methods.base import METHODS, Maps, Method, ModelFacts, cells, require_half, scored
from workers.passes import Ability, Cost, Plan, Targets
from workers.rows import Masked, start_of

FINE: Final = 4
"""Cells of the map to a cell of the masks, along each axis."""

MATRICES: Final = 2
"""Whole matrices of masks that make a partial map; half of the masks if they are fewer."""

ROWS: Final = 64
"""Masks whose signs are held at once when scores are summed."""


@METHODS.register("rise")
class Rise(Method):
    r"""Mean score of random masks that show a place, less that of those that hide it.

    .. math:: A(u) = \sum_j U_j(u) \cdot \frac{2}{n} \sum_{i=1}^{n} s_{ij}\, f(x_{M_i}), \qquad
              M_i = \sum_j \frac{1 + s_{ij}}{2} U_j

    with signs `s`, one for each mask and node of a coarse lattice, and `U` the
    linear interpolation between nodes. It is twice the paper's conditional
    mean less the mean over all masks, for masks that show half of the image:
    the same picture, with zero where the score does not depend on the place.

    Signs are rows of a Hadamard matrix, with rows, columns and signs of
    columns drawn at random, each followed by its complement. Nodes are then
    balanced against each other, interactions of pairs of nodes cancel, and
    about half as many masks give the error of independent ones. With each full
    matrix the lattice is shifted by a part of a cell.

    When time is up after half of the masks, or after two whole matrices of more (256
    masks of the default lattice), the map of the whole pairs among them is returned,
    marked as partial; how many `samples` that were is stated with it. On the demo model
    the map of 256 masks correlates with that of 512 at 0.95 (median of eight maps; the
    least 0.82).

    Parameters
    ----------
    samples
        Masks, an even number.
    cells
        Cells of the mask lattice along each axis.
    baseline
        Value of hidden places, in model-input units; the model's own reference
        value if not given.
    seed
        Where the random choices start; equal seeds give equal masks.

    References
    ----------
    Petsiuk, Das, Saenko (2018). RISE: randomized input sampling for
    explanation of black-box models. BMVC. arXiv:1806.07421, eq. 6.
    """

    title: ClassVar = "RISE"
    needs: ClassVar = frozenset({Ability.FORWARD})
    signed: ClassVar = True
    partial_map: ClassVar = True
    paper: ClassVar = "Petsiuk, Das, Saenko (2018), arXiv:1806.07421, eq. 6"
    cost: ClassVar = "samples forward rows"
    weaknesses: ClassVar = (
        "Masked images are unlike those the model was made for. Findings smaller than a cell "
        "are blurred, and with few masks the map is noisy."
    )

    samples: int = Field(default=512, ge=2, le=16384, multiple_of=2, description="Masks.")
    cells: int = Field(default=7, ge=2, le=24, description="Lattice cells along each axis.")
    baseline: float | None = Field(
        default=None,
        ge=-1e6,
        le=1e6,
        description="Value of hidden places, in model-input units; default: the model's.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Where random choices start.")

    @override
    def settled(self, model: ModelFacts) -> Self:
        """Return this method with the model's baseline where none was given."""
        baseline = model.baseline if self.baseline is None else self.baseline
        return self.model_copy(update={"baseline": baseline})

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return `samples` forward rows."""
        return Cost(forward_rows=self.samples)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *grid)``, finer than masks."""
        lattice = Lattice(image, self.cells, self.seed)
        rows = Masked(image, self.baseline or 0.0, lattice.masks, self.samples)
        scores, partial = yield from scored(rows, targets, image)
        done = len(scores) // 2 * 2  # a mask without its complement is unbalanced
        require_half(done, self.samples, MATRICES * lattice.block)
        values = lattice.effects(scores[:done]).unsqueeze(1)
        extras = ({"samples": float(done)},) * len(targets)
        affine = cells(image.shape[1:], values.shape[2:])
        return Maps(values.to(image.dtype), affine, extras, partial=partial)


class Lattice:
    """Signs of nodes by mask, and masks of signs; both functions of the row index alone.

    Parameters
    ----------
    image
        What is masked, shape ``(C, *spatial)``; its type and device are the masks'.
    count
        Cells along each axis.
    seed
        Where the random choices start.
    """

    def __init__(self, image: Tensor, count: int, seed: int) -> None:
        self.image = image
        self.count = count
        self.sizes = tuple(image.shape[1:])
        self.nodes = (count + 1) ** len(self.sizes)
        self.bits = max(1, math.ceil(math.log2(self.nodes)))
        self.block = 2 << self.bits
        """Masks to a full matrix with its complements; all share one shift."""
        self._seed = seed
        self._drawn = lru_cache(maxsize=2)(self._draw)
        self._hats = lru_cache(maxsize=2 * len(self.sizes))(self._made)

    def signs(self, start: int, stop: int) -> Tensor:
        """Return signs ``(stop - start, nodes)`` of masks that are all of one block."""
        return 1 - 2 * self._hidden(start, stop)

    def masks(self, start: int, stop: int) -> Tensor:
        """Return masks ``(stop - start, 1, *spatial)``, from 0 (hidden) to 1 (shown)."""
        masks = self.image.new_empty(stop - start, *self.sizes)
        for first, end in self._spans(start, stop, self.block):
            shown = sent(1 - self._hidden(first, end), masks.device, masks.dtype)
            self._spread(shown, self._shift(first), masks[first - start : end - start])
        return masks.unsqueeze(1)

    def effects(self, scores: Tensor) -> Tensor:
        """Return maps ``(K, *grid)`` of scores ``(masks, K)``, float64."""
        grid = tuple(min(size, FINE * self.count) for size in self.sizes)
        total = torch.zeros(scores.shape[1], *grid, dtype=torch.float64)
        given = scores.cpu()
        for start, stop in self._spans(0, len(given), ROWS):
            effects = given[start:stop].T @ self.signs(start, stop) * (2 / len(given))
            total += self._spread(effects, self._shift(start), torch.empty_like(total))
        return total.to(scores.device)

    def _hidden(self, start: int, stop: int) -> Tensor:
        """Return 1 where a mask hides a node and 0 where it shows it, for masks of one block."""
        rows, columns, _ = self._drawn(start // self.block)
        first = start % self.block
        return (rows[first : first + stop - start] @ columns) % 2

    def _spans(self, start: int, stop: int, most: int) -> list[tuple[int, int]]:
        """Cut a range of masks where a block ends, and into parts of at most `most`."""
        spans = []
        while start < stop:
            end = min(stop, start + most, (start // self.block + 1) * self.block)
            spans.append((start, end))
            start = end
        return spans

    def _draw(self, block: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a block's masks and nodes as bits, and the lattice's shift.

        A mask ``(masks, bits + 2)`` hides a node ``(bits + 2, nodes)`` where an odd number of
        bits is set in both: so are the signs of Sylvester's Hadamard matrix. Of the two bits
        more, one turns every other mask into its complement, and one flips columns.
        """
        generator = torch.Generator().manual_seed(start_of(self._seed, block))
        rows = torch.randperm(1 << self.bits, generator=generator).repeat_interleave(2)
        columns = torch.randperm(1 << self.bits, generator=generator)[: self.nodes]
        flips = torch.randint(2, (self.nodes,), generator=generator)
        shift = torch.rand(len(self.sizes), generator=generator, dtype=torch.float64) - 0.5
        complement = torch.arange(self.block) % 2
        masks = [*self._bits(rows), complement, torch.ones_like(complement)]
        nodes = [*self._bits(columns), torch.ones_like(flips), flips]
        return torch.stack(masks, 1).double(), torch.stack(nodes).double(), shift

    def _bits(self, numbers: Tensor) -> list[Tensor]:
        return [numbers >> place & 1 for place in range(self.bits)]

    def _shift(self, row: int) -> Tensor:
        return self._drawn(row // self.block)[2]

    def _spread(self, values: Tensor, shift: Tensor, out: Tensor) -> Tensor:
        """Interpolate nodes ``(n, nodes)`` axis by axis into `out`, shape ``(n, *sizes)``."""
        sizes, nodes = out.shape[1:], self.count + 1
        *others, last = (
            self._hats(size, offset, out.device, out.dtype)
            for size, offset in zip(sizes, shift.tolist(), strict=True)
        )
        part = values.reshape(len(values), *(nodes,) * len(sizes))
        for hats in others:
            part = torch.tensordot(part, hats, dims=([1], [1]))
        torch.mm(part.movedim(1, -1).reshape(-1, nodes), last.T, out=out.view(-1, sizes[-1]))
        return out

    def _made(self, size: int, offset: float, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return how much each node counts at `size` places of an axis, ``(size, nodes)``."""
        place = (torch.arange(size, dtype=torch.float64) + 0.5) * (self.count / size) - offset
        distance = place.clamp(0, self.count)[:, None] - torch.arange(self.count + 1)
        return sent((1 - distance.abs()).clamp(min=0), device, dtype)
