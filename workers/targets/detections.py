"""Targets of a detection: one proposal's score, or what is left of its box in a changed image.

Suppression picks boxes and has no derivative. So a box is found once, on the
unchanged image, and what is explained from then on is the score of the proposal
that it came from, before any suppression.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from typing_extensions import override

from service.domain.boxes import Detection, PatientBox
from service.domain.explanation import Prediction
from service.domain.grid import Grid, apply
from service.domain.manifest import Manifest
from service.domain.outputs import ClassSpec
from service.domain.target import DetectionTarget, ResolvedTarget
from service.errors.requests import InvalidTarget
from workers.targets.base import Answer, Chosen, demand_axes, found, key_of
from workers.targets.decoding import Decoder, corners, kept, overlaps

MOST: Final = 100
"""Boxes of one class that are listed, the best of them."""

LOGIT: Final = "log odds of the box's score"
SIMILARITY: Final = "probability of the box times overlap"

Box = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ProposalLogit:
    """The log odds of one class's score at one proposal, whatever becomes of its box."""

    decoder: Decoder
    proposal: int
    index: int

    @property
    def weights(self) -> None:
        """It is read out of more than a row of outputs."""
        return

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((ProposalLogit, self.decoder, self.proposal, self.index))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the logit of each row, shape ``(rows,)``."""
        one = self.decoder.proposals(outputs)[:, self.proposal : self.proposal + 1]
        return self.decoder.logits(one)[:, 0, self.index]


@dataclass(frozen=True, slots=True)
class BoxSimilarity:
    r"""How much of a box is found in a changed image, anywhere among the proposals.

    .. math:: s = \max_j \, \mathrm{IoU}(b, b_j) \, p_j

    with `p` the probability of the box's class. D-RISE takes the cosine of all
    classes' scores in its place, and the objectness: of a detector with one class
    the cosine is 1 whatever it says, and of independent classes it forgets how
    sure it is.

    Parameters
    ----------
    box
        As it was found on the unchanged image, in input pixels.

    References
    ----------
    V. Petsiuk et al., "Black-box explanation of object detectors via saliency maps",
    CVPR 2021, section 3.2.
    """

    decoder: Decoder
    box: Box
    index: int

    @property
    def weights(self) -> None:
        """It is not linear."""
        return

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((BoxSimilarity, self.decoder, self.box, self.index))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the similarity of each row, shape ``(rows,)``."""
        proposals = self.decoder.proposals(outputs)
        probabilities = self.decoder.logits(proposals)[..., self.index].sigmoid()
        box = torch.tensor(self.box, dtype=outputs.dtype, device=outputs.device)
        return (probabilities * overlaps(self.decoder.boxes(proposals), box)).amax(1)


def decoder_of(manifest: Manifest, extent: Sequence[int]) -> Decoder:
    """Return what reads a detector's outputs, `extent` being the spatial shape of its input."""
    boxes = manifest.outputs[0].boxes
    assert boxes is not None  # noqa: S101 - the manifest requires it of its task
    return Decoder(boxes, len(manifest.classes), tuple(extent))


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
    probability, place = logit.sigmoid().item(), seen.in_source(proposal)
    resolved = ResolvedTarget(
        kind="detection",
        key=_key(target, spec.key),
        label=spec.label,
        index=index,
        of=spec.key,
        asked_as=str(target.of),
        score=logit.item(),
        quantity=LOGIT,
        probability=probability,
        threshold=spec.threshold,
        above_threshold=spec.threshold is not None and probability >= spec.threshold,
        box=place,
        patient=seen.in_patient(place),
        overlap=None if asked is None else overlaps(box, asked).item(),
        again=target.model_copy(update={"of": spec.key}),
    )
    similarity = BoxSimilarity(seen.decoder, tuple(box.tolist()), index)
    said = similarity(answer.outputs[None]).item()
    changed = resolved.model_copy(update={"score": said, "quantity": SIMILARITY})
    return Chosen(
        resolved, ProposalLogit(seen.decoder, proposal, index), Chosen(changed, similarity)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What a detector says of the unchanged image, all proposals of it."""

    decoder: Decoder
    grid: Grid
    volume: NDArray[np.float64] | None
    """As of `Answer`."""

    boxes: Tensor
    """In input pixels, float64, as of `Decoder`."""

    logits: Tensor
    """Float64, shape ``(P, K)``."""

    @classmethod
    def of(cls, answer: Answer) -> "_Seen":
        """Read an answer. Errors as of `predictions_of`."""
        decoder = decoder_of(answer.manifest, answer.grid.shape)
        if decoder.fault(answer.outputs.shape) is not None:
            raise InvalidTarget("The model's outputs are not what its manifest says of boxes.")
        proposals = decoder.proposals(answer.outputs[None])
        boxes, logits = decoder.boxes(proposals)[0], decoder.logits(proposals)[0]
        return cls(decoder, answer.grid, answer.volume, boxes, logits)

    def found(self, index: int, spec: ClassSpec) -> list[int]:
        """Return the proposals of a class that are found, the best first."""
        scores = self.logits[:, index].sigmoid()
        (above,) = torch.where(scores >= (spec.threshold or 0.0))
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
        box = _carried(self.boxes[proposal].numpy(), self.grid.to_source)
        return tuple(round(max(0.0, float(each)), 1) for each in box)

    def in_patient(self, box: Box) -> PatientBox | None:
        """Return where a box of the source lies in the patient, of a volume, to 0.01 mm."""
        if self.volume is None:
            return None
        low, high = np.split(np.array(box), 2)
        center = apply(self.volume, (low + high - 1) / 2)  # voxel i covers [i, i + 1) of a box
        size = (high - low) * np.linalg.norm(self.volume[:3, :3], axis=0)
        x, y, z, *edges = (round(float(each), 2) for each in (*center, *size))
        return PatientBox(center=(x, y, z), size=(edges[0], edges[1], edges[2]))

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
    """Return the class's key, and which box it is if not the best."""
    for kind, numbers in (("box", target.box), ("at", target.at)):
        if numbers is not None:
            return key_of(key, kind, *(f"{each:.10g}" for each in numbers))
    return key_of(key, str(target.number)) if target.number else key
