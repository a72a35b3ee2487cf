"""Targets of a detection: one proposal's score, or what is left of its box in a changed image.

Suppression picks boxes and has no derivative. So a box is found once, on the
unchanged image, and what is explained from then on is the score of the proposal
that it came from, before any suppression. Of a model that sees windows the boxes
of all of them are suppressed together, which leaves each box as it was: it comes
from one proposal of one window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from service.domain.boxes import EDGES, BoxWindows, Detection, PatientBox
from service.domain.explanation import Prediction
from service.domain.grid import Grid, apply
from service.domain.manifest import Manifest
from service.domain.outputs import ClassSpec
from service.domain.resolved import ResolvedTarget
from service.domain.target import PIXELS, DetectionTarget
from service.errors.requests import InvalidTarget
from workers.cells import demand_axes
from workers.passes import Scalar
from workers.targets.base import Answer, Chosen, found, key_of
from workers.targets.decoding import Decoder, corners, kept, overlaps
from workers.targets.proposals import Box, BoxSimilarity, ProposalEdge, ProposalLogit
from workers.targets.windows import Windows

MOST: Final = 100
"""Boxes of one class that are listed, the best of them."""

LOGIT: Final = "log odds of the box's score"
SIMILARITY: Final = "probability of the box times overlap"
OBJECTNESS: Final = "log odds of the objectness"
OBJECT_SIMILARITY: Final = "objectness times overlap with the box"
EDGE: Final = "{edge} edge of the box"
PLACES: Final = {"first_slice": "first slice of the box", "end_slice": "end of the box's slices"}
"""What those edges are called that are no edges of a picture."""


def decoder_of(manifest: Manifest, extent: Sequence[int]) -> Decoder:
    """Return what reads a detector's outputs, or those of each window.

    Parameters
    ----------
    extent
        Spatial shape of the prepared image.
    """
    boxes = manifest.outputs[0].boxes
    assert boxes is not None  # noqa: S101 - the manifest requires it of its task
    windows = Windows(manifest.sliding_window, extent)
    return Decoder(boxes, len(manifest.classes), windows.extent, windows.inner)


def by_window(manifest: Manifest, outputs: Tensor) -> Tensor:
    """Return a detector's outputs on one image as those of each window, ``(windows, ...)``."""
    return outputs if manifest.sliding_window else outputs[None]


def predictions_of(answer: Answer) -> tuple[Prediction, ...]:
    """Return the boxes of each class that are found, and the best proposal's score.

    Raises
    ------
    InvalidTarget
        If the outputs are not what the manifest's decoding reads.
    """
    seen = _Seen.of(answer)
    return tuple(
        _prediction(index, spec, seen) for index, spec in enumerate(answer.manifest.classes)
    )


def resolve(target: DetectionTarget, answer: Answer) -> Chosen | None:
    """Make a box definite; `None` where the model has no such box.

    Raises
    ------
    InvalidTarget
        There is no such class, it is not for use, or the target has other axes than the image.
    """
    index, spec = found(target.of, answer.manifest.classes)
    seen = _Seen.of(answer)
    asked = None if target.box is None else seen.asked(target.box)
    proposal = seen.meant(target, index, spec)
    if proposal is None:
        return None
    box, logit = seen.boxes[proposal], seen.logits[proposal, index]
    (score, quantity), *perturbed = _scored(target, seen, proposal, index)
    probability, place = logit.sigmoid().item(), seen.in_source(proposal)
    resolved = ResolvedTarget(
        kind="detection",
        key=_key(target, spec.key),
        label=spec.label,
        index=index,
        of=spec.key,
        asked_as=str(target.of),
        score=score(answer.outputs[None]).item(),
        quantity=quantity,
        probability=probability,
        threshold=spec.threshold,
        above_threshold=spec.threshold is not None and probability >= spec.threshold,
        unit=PIXELS if isinstance(score, ProposalEdge) else None,
        box=place,
        patient=seen.in_patient(place),
        windows=seen.told(score),
        overlap=None if asked is None else overlaps(box, asked).item(),
        again=target.model_copy(update={"of": spec.key}),
    )
    for other, words in perturbed:
        said = {"score": other(answer.outputs[None]).item(), "quantity": words}
        changed = resolved.model_copy(update=said | {"windows": seen.told(other)})
        return Chosen(resolved, score, Chosen(changed, other))
    return Chosen(resolved, score)


def _scored(
    target: DetectionTarget, seen: "_Seen", proposal: int, index: int
) -> tuple[tuple[Scalar, str], ...]:
    """Return what is explained of a box, with words for it.

    A second one is what methods explain that take no derivatives.
    """
    match target.score:
        case "class":
            similarity = seen.similarity_of(proposal, index), SIMILARITY
            return (seen.logit_of(proposal, index), LOGIT), similarity
        case "objectness":
            alike = seen.similarity_of(proposal, None), OBJECT_SIMILARITY
            return (seen.logit_of(proposal, None), OBJECTNESS), alike
        case "iou_weighted":
            here = seen.similarity_there(proposal, index)  # a maximum has one window's derivatives
            each_once = dict.fromkeys((here, seen.similarity_of(proposal, index)))
            return tuple((scalar, SIMILARITY) for scalar in each_once)
        case edge:
            return ((seen.edge_of(proposal, edge), PLACES.get(edge, EDGE.format(edge=edge))),)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What a detector says of the unchanged image, all proposals of it."""

    decoder: Decoder
    grid: Grid
    volume: NDArray[np.float64] | None
    """As of `Answer`."""

    windows: Windows

    decoded: Tensor
    """Boxes in pixels of each one's window, float64, as of `Decoder`; window by window."""

    boxes: Tensor
    """The same in pixels of the prepared image."""

    logits: Tensor
    """Float64, shape ``(P, K)``, likewise."""

    @classmethod
    def of(cls, answer: Answer) -> "_Seen":
        """Read an answer. Errors as of `predictions_of`."""
        decoder = decoder_of(answer.manifest, answer.grid.shape)
        outputs = by_window(answer.manifest, answer.outputs)
        if decoder.fault(outputs.shape[1:]) is not None:
            raise InvalidTarget("The model's outputs are not what its manifest says of boxes.")
        proposals = decoder.proposals(outputs.double())
        boxes, logits = decoder.boxes(proposals), decoder.logits(proposals)
        windows = Windows(answer.manifest.sliding_window, answer.grid.shape)
        placed = boxes + windows.firsts.repeat(1, 2)[:, None]
        flat = (each.flatten(0, 1) for each in (boxes, placed, logits))
        return cls(decoder, answer.grid, answer.volume, windows, *flat)

    def logit_of(self, proposal: int, index: int | None) -> Scalar:
        """Return the score of a proposal, whatever becomes of its box."""
        window, own = self._own(proposal)
        return self.windows.here(window, ProposalLogit(self.decoder, own, index))

    def similarity_of(self, proposal: int, index: int | None) -> Scalar:
        """Return how much of a proposal's box is found, in whichever window overlaps it."""
        return self.windows.about(
            self.boxes[proposal], lambda window: self._similarity(proposal, index, window)
        )

    def similarity_there(self, proposal: int, index: int) -> Scalar:
        """Return how much of a proposal's box is found in its own window."""
        window, _ = self._own(proposal)
        return self.windows.here(window, self._similarity(proposal, index, window))

    def _similarity(self, proposal: int, index: int | None, window: int) -> BoxSimilarity:
        own, _ = self._own(proposal)
        away = self.windows.firsts[own] - self.windows.firsts[window]
        box = self.decoded[proposal] + away.repeat(2)
        return BoxSimilarity(self.decoder, tuple(box.tolist()), index)

    def _own(self, proposal: int) -> tuple[int, int]:
        """Return the window of a proposal, and the proposal's number in it."""
        return divmod(proposal, len(self.boxes) // len(self.windows.firsts))

    def told(self, scalar: Scalar) -> BoxWindows | None:
        """Return which windows a score depends on, of a model that sees windows."""
        covered = self.windows.covered(scalar)
        if covered is None:
            return None
        count, box = covered
        return BoxWindows(
            count=count, of=len(self.windows.firsts), box=self._in_source(box.numpy())
        )

    def found(self, index: int, spec: ClassSpec) -> list[int]:
        """Return the proposals of a class that are found, the best first."""
        scores = self.logits[:, index].sigmoid()
        low, high = corners(self.boxes)  # of what lies beside the image nothing is left
        (above,) = torch.where((scores >= (spec.threshold or 0.0)) & (low < high).all(-1))
        left = kept(self.boxes[above], scores[above], self.decoder.decoding.overlap, MOST)
        return above[left].tolist()

    def meant(self, target: DetectionTarget, index: int, spec: ClassSpec) -> int | None:
        """Return the proposal that a target names; `None` if there is no such box.

        Errors as of `resolve`.
        """
        if target.box is not None:
            near = overlaps(self.boxes, self.asked(target.box)) >= self.decoder.decoding.match
            return self._best(index, near)
        if target.at is not None:
            return self._best(index, self._holding(target.at))
        every = self.found(index, spec)
        return every[target.number] if target.number < len(every) else None

    def asked(self, box: Box) -> Tensor:
        """Return a box of the source in input pixels. Errors as of `resolve`."""
        demand_axes(len(box) // 2, self.grid)
        return torch.from_numpy(_carried(box, self.grid.from_source))

    def in_source(self, proposal: int) -> Box:
        """Return a proposal's box in source pixels, to a tenth of a pixel."""
        return self._in_source(self.boxes[proposal].numpy())

    def edge_of(self, proposal: int, name: str) -> Scalar:
        """Return where an edge of a proposal's box lies, in source pixels.

        The box's numbers in input pixels are weighed and added up. Where an axis is turned
        round, what begins in the one ends in the other.

        Raises
        ------
        InvalidTarget
            A box has no such edge.
        """
        rank = len(self.grid.shape)
        edges = EDGES[2 * rank]
        if name not in edges:
            raise InvalidTarget("The box has no such edge.", edges=[*edges])
        end, axis = divmod(edges.index(name), rank)
        *steps, first = self.grid.affine[axis].tolist()
        rising = [max(each, 0.0) for each in steps]
        falling = [min(each, 0.0) for each in steps]
        factors = falling + rising if end else rising + falling
        window, own = self._own(proposal)
        before = float(np.dot(factors, self.windows.firsts[window].repeat(2).numpy()))
        constant = first + before + (1 - sum(steps)) / 2  # pixel i is [i, i + 1) of a box
        return self.windows.here(window, ProposalEdge(self.decoder, own, tuple(factors), constant))

    def in_patient(self, box: Box) -> PatientBox | None:
        """Return where a box of the source lies in the patient, of a volume, to 0.01 mm."""
        if self.volume is None:
            return None
        low, high = np.split(np.array(box), 2)
        center = apply(self.volume, (low + high - 1) / 2)  # voxel i covers [i, i + 1) of a box
        size = (high - low) * np.linalg.norm(self.volume[:3, :3], axis=0)
        x, y, z, *edges = (round(float(each), 2) for each in (*center, *size))
        return PatientBox(center=(x, y, z), size=(edges[0], edges[1], edges[2]))

    def _in_source(self, box: ArrayLike) -> Box:
        """Return a box of the prepared image in source pixels, to a tenth of a pixel."""
        carried = _carried(box, self.grid.to_source)
        return tuple(round(max(0.0, float(each)), 1) for each in carried)

    def _best(self, index: int, among: Tensor) -> int | None:
        """Return the best of some proposals, told by a mask; `None` if there are none."""
        (near,) = torch.where(among)
        return int(near[self.logits[near, index].argmax()]) if len(near) else None

    def _holding(self, place: tuple[float, ...]) -> Tensor:
        """Tell which proposals hold a place of the source. Errors as of `resolve`."""
        demand_axes(len(place), self.grid)
        at = torch.from_numpy(self.grid.from_source(place)) + 0.5
        low, high = corners(self.boxes)
        return ((low <= at) & (at < high)).all(-1)


def _prediction(index: int, spec: ClassSpec, seen: _Seen) -> Prediction:
    """Return what is found of one class."""
    best = seen.logits[:, index].max()
    detections = tuple(_detection(each, index, seen) for each in seen.found(index, spec))
    unused = spec.not_for_use is not None
    return Prediction(
        key=spec.key,
        label=spec.label,
        index=index,
        logit=best.item(),
        probability=best.sigmoid().item(),
        threshold=spec.threshold,
        above_threshold=None if unused else bool(detections),
        detections=() if unused else detections,
    )


def _detection(proposal: int, index: int, seen: _Seen) -> Detection:
    """Return what is told of a box that is found."""
    box, logit = seen.in_source(proposal), seen.logits[proposal, index]
    return Detection(
        box=box,
        patient=seen.in_patient(box),
        logit=logit.item(),
        probability=logit.sigmoid().item(),
    )


def _carried(
    box: ArrayLike, way: Callable[[ArrayLike], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the bounds of a box of one grid in another; pixel `i` is ``[i, i + 1)`` of a box."""
    low, high = np.split(np.asarray(box, np.float64), 2)
    corners = np.array([*product(*zip(low, high, strict=True))])
    moved = way(corners - 0.5) + 0.5
    return np.concatenate([moved.min(0), moved.max(0)])


def _key(target: DetectionTarget, key: str) -> str:
    """Return the class's key, which box it is if not the best, and the score if not the class's."""
    parts = [key]
    for kind, numbers in (("box", target.box), ("at", target.at)):
        parts += [kind, *(f"{each:.10g}" for each in numbers)] if numbers is not None else []
    parts += [str(target.number)] if target.number else []
    parts += [target.score] if target.score != "class" else []
    return key_of(*parts)
