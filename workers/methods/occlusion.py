"""Occlusion: how far the score falls when a window is covered."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from service.errors.requests import InvalidParameter
from workers.methods.base import METHODS, Maps, Method, ModelFacts, scored, spread
from workers.methods.windows import Search, Windows, asked_for, every_place
from workers.passes import Ability, Cost, Forward, Plan, Targets, TimeUp
from workers.rows import Beside, Clean, Patched
from workers.tabular import Tabular

Edge = Annotated[int, Field(ge=1, le=512)]


@METHODS.register("occlusion")
class Occlusion(Method):
    r"""Mean fall of the score over the windows that cover a place.

    .. math:: A(u) = \frac{1}{|W_u|} \sum_{w \in W_u} f(x) - f(x_{w \to b})

    Windows of edge `window` stand at multiples of `stride` along each axis
    until one reaches the image's far edge, where it is cut off. The fall is
    constant on cells of edge gcd(`window`, `stride`), and the map keeps one
    value for each such cell. With several windows the map is the mean of
    theirs, so that findings of several sizes are seen.

    With `refine` only that share of the windows is tried, from coarse to fine:
    first windows far apart, then more between those whose falls differ most.
    The falls of the others are interpolated linearly. How many were tried is
    stated with the map. On the demo model an eighth of the windows of 16 pixels
    gives the full map's ranks with a Spearman coefficient of 0.95 at a stride
    of 4 (median of ten maps), but of 0.85 at a stride of 8: it pays where
    windows overlap much.

    Without `refine` the windows come from coarse to fine as well, in an order that
    does not depend on what was found. When time is up after the first, coarsest
    windows, a map of what is known is returned, marked as partial, the others' falls
    interpolated likewise. On the demo model the first are 25 of 225, and their map
    correlates with the full one at 0.90 (median of eight maps; the least 0.71), that of
    64 at 0.99 (0.94).

    Parameters
    ----------
    window
        Edge of the covering window, in pixels of the model's input, or up to
        four such edges.
    stride
        Distance between windows, in the same pixels; at most the smallest
        window, so that every place is covered. Half of each window if not
        given.
    baseline
        Value inside the window, in model-input units; the model's own
        reference value if not given.
    refine
        Share of the windows that is tried; all of them if not given.

    References
    ----------
    Zeiler, Fergus (2014). Visualizing and understanding convolutional
    networks. ECCV. arXiv:1311.2901, section 4.2.
    """

    title: ClassVar = "Occlusion"
    needs: ClassVar = frozenset({Ability.FORWARD})
    signed: ClassVar = True
    partial_map: ClassVar = True
    paper: ClassVar = "Zeiler, Fergus (2014), arXiv:1311.2901, section 4.2"
    cost: ClassVar = "1 + refine x (size / stride) to the number of axes forward rows"
    weaknesses: ClassVar = (
        "A covered window is itself an unusual picture, to which the model may react. "
        "Findings much larger or smaller than the window are missed."
    )

    window: Edge | Annotated[tuple[Edge, ...], Field(min_length=1, max_length=4)] = Field(
        default=16,
        description="Edge in model-input pixels, or several, whose maps are averaged.",
        json_schema_extra={"x-under-image": True},
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Distance of windows in model-input pixels; default: half of each window.",
        json_schema_extra={"x-at-most": "window"},
    )
    baseline: float | None = Field(
        default=None,
        ge=-1e6,
        le=1e6,
        description="Value inside the window, in model-input units; default: the model's.",
    )
    refine: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the windows that is tried, from coarse to fine; default: all.",
    )

    @override
    def settled(self, model: ModelFacts) -> Self:
        """Return this method with the model's baseline, and the stride, where none was given.

        Raises
        ------
        InvalidParameter
            If a window covers the model's whole input: of no place it would tell anything.
        """
        if model.sizes and max(self.windows) >= max(model.sizes):
            raise InvalidParameter(
                "A window covers the whole image; its edge must be under the longest of 'sizes'.",
                parameter="window",
                sizes=list(model.sizes),
            )
        baseline = model.baseline if self.baseline is None else self.baseline
        stride = self._stride(self.window) if isinstance(self.window, int) else self.stride
        return self.model_copy(update={"baseline": baseline, "stride": stride})

    @model_validator(mode="after")
    def _leaves_no_gaps(self) -> Self:
        if self.stride is not None and self.stride > min(self.windows):
            raise ValueError("stride must be at most window, so that every place is covered")
        return self

    @property
    def windows(self) -> tuple[int, ...]:
        """Edges of the windows, in pixels."""
        return (self.window,) if isinstance(self.window, int) else self.window

    def lattices(self, sizes: Sequence[int]) -> tuple[Windows, ...]:
        """Return the windows over an image of spatial `sizes`, one set for each edge."""
        return tuple(Windows(edge, self._stride(edge), tuple(sizes)) for edge in self.windows)

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one row for each window that is tried and one for the image."""
        lattices = self.lattices(shape[1:])
        rows = sum(asked_for(each.shape, self._budget(each)) for each in lattices)
        return Cost(forward_rows=1 + rows, exact=self.refine is None)

    @override
    def joint(self, image: Tensor, targets: Targets, tabular: Tabular | None) -> Plan[Maps]:
        """Attribute `image`, and the values beside it by the fall without each."""
        if tabular is None:
            return (yield from self.plan(image, targets))
        whole, without = yield (
            Forward(Beside(Clean(image), tabular.values), targets),
            Forward(Beside(Clean(image, len(tabular.values)), tabular.without()), targets),
        )
        shares = (whole.scores.double() - without.scores.double()).T
        return replace((yield from self.plan(image, targets)), shares=shares)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *grid)`` of cells."""
        lattices = self.lattices(image.shape[1:])
        searches = [Search(each.shape, len(targets), self._budget(each)) for each in lattices]
        clean = yield Forward(Clean(image), targets)
        search = self._all if self.refine is None else self._refined
        late = yield from search(image, targets, lattices, searches, clean.scores[0].double())
        tried = sum(each.tried for each in searches)
        figures = {"windows": float(sum(each.count for each in lattices)), "tried": float(tried)}
        falls = [each.values().to(image.device) for each in searches]
        return self._map(image, lattices, falls, (figures,) * len(targets), partial=late)

    def _all(
        self,
        image: Tensor,
        targets: Targets,
        lattices: Sequence[Windows],
        searches: Sequence[Search],
        clean: Tensor,
    ) -> Plan[bool]:
        """Try every window, all asked for at once; return whether time was up before their end."""
        rounds = list(_in_step(every_place(each.shape) for each in lattices))
        rows = self._covered(image, lattices, rounds)
        scores, late = yield from scored(rows, targets, image)
        if len(scores) < sum(map(len, rounds[0])):  # between what would be interpolated?
            raise TimeUp
        falls = (clean - scores).cpu()
        for asked in _in_step(each.rounds() for each in searches):
            falls = _learned(searches, asked, falls)
        return late

    def _refined(
        self,
        image: Tensor,
        targets: Targets,
        lattices: Sequence[Windows],
        searches: Sequence[Search],
        clean: Tensor,
    ) -> Plan[bool]:
        """Go through all searches in step; return whether time was up before their end."""
        late = False
        for number, asked in enumerate(_in_step(each.rounds() for each in searches)):
            rows = self._covered(image, lattices, [asked])
            if not rows.count:
                continue
            scores, late = yield from scored(rows, targets, image)
            if late and number == 0:  # likewise
                raise TimeUp
            _learned(searches, asked, (clean - scores).cpu())
            if late:
                break
        return late

    def _covered(
        self, image: Tensor, lattices: Sequence[Windows], rounds: Sequence[tuple[Tensor, ...]]
    ) -> Patched:
        """Return the image with the windows at some places covered, round by round."""
        every = [each.boxes() for each in lattices]
        boxes = tuple(
            boxes[place]
            for asked in rounds
            for boxes, places in zip(every, asked, strict=True)
            for place in places.tolist()
        )
        return Patched(image, boxes, self.baseline or 0.0)

    def _map(
        self,
        image: Tensor,
        lattices: Sequence[Windows],
        falls: Sequence[Tensor],
        extras: tuple[dict[str, float], ...],
        *,
        partial: bool,
    ) -> Maps:
        """Return the mean map of all lattices, on cells that divide all of their windows."""
        cell = math.gcd(*(part for each in lattices for part in (each.edge, each.stride)))
        maps = [each.averaged(fall, cell) for each, fall in zip(lattices, falls, strict=True)]
        values = torch.stack(maps).mean(0).unsqueeze(1).to(image.dtype)
        return Maps(values, spread([cell] * (image.dim() - 1)), extras, partial=partial)

    def _stride(self, edge: int) -> int:
        """Return the distance between windows of an edge, in pixels."""
        return max(1, edge // 2) if self.stride is None else self.stride

    def _budget(self, windows: Windows) -> int | None:
        """Return how many windows of a lattice are tried at most; all if `None`."""
        return None if self.refine is None else math.ceil(self.refine * windows.count)


def _in_step(rounds: Iterable[Iterable[Tensor]]) -> Iterator[tuple[Tensor, ...]]:
    """Iterate over the rounds of several searches, each time over one of each."""
    return zip_longest(*rounds, fillvalue=torch.zeros(0, dtype=torch.int64))


def _learned(searches: Sequence[Search], asked: Sequence[Tensor], falls: Tensor) -> Tensor:
    """Tell searches the falls ``(n, K)`` at what they asked for, and return what is left.

    There may be fewer than were asked for.
    """
    for search, places in zip(searches, asked, strict=True):
        search.learn(places[: len(falls)], falls[: len(places)])
        falls = falls[len(places) :]
    return falls
