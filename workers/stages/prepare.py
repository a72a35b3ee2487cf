"""Prepare: modality values to the model's input, step by declared step."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter

from service.domain.grid import Grid, scaling
from service.domain.inputs import StepChoice
from service.domain.variable import Variable
from service.errors.studies import NotAcceptedByModel
from workers.cells import demand_cells
from workers.choices import chosen
from workers.leeway import leeway
from workers.parcels import Decoded, ImageFacts, Prepared, Reference
from workers.segments import read_segments
from workers.slots import Slots
from workers.steps.base import STEPS, Step, StepImage
from workers.variables import Told, beside, told

LIMIT = 30.0
"""Seconds for the steps, beside what a large volume is allowed."""

_CHOICES = TypeAdapter(tuple[StepChoice, ...])
_VARIABLES = TypeAdapter(tuple[Variable, ...])


def prepare(
    decoded: Decoded,
    slots: Slots,
    *,
    limit: float = LIMIT,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Prepared:
    """Run the manifest's steps in a supervised process.

    Parameters
    ----------
    limit
        Seconds for the steps, beside what `leeway` adds.
    on_progress
        Called after them, and after each segment that is read, with the share that is done; what
        it raises ends the work.

    Raises
    ------
    NotAcceptedByModel
        The image is too small, or of another number of channels; or views are of several sizes.
    InvalidTarget
        A region that the request gives holds nothing of the model's input.
    MissingValue
        A value that the model takes beside the image is nowhere given, or otherwise in one view
        than in another.
    StageTimeout, SlotDied
        The steps took more than `limit` seconds, or too much memory.
    """
    request, variables = decoded.fetched.request, decoded.fetched.manifest.variables
    if decoded.views:
        made = _apart(decoded.views, slots, limit, on_progress)
        prepared = _stacked(decoded, [each for each, _ in made])
        return replace(prepared, variables=beside(variables, request.values, *(t for _, t in made)))
    prepared, header = _prepared(decoded, slots, limit)
    demand_cells(request.targets, prepared.grid)
    on_progress(1 / (1 + len(request.segments)))
    segments = read_segments(decoded, prepared.grid, slots, on_progress)
    facts = beside(variables, request.values, header)
    against = {
        each.fetched.instance.id: Reference(
            _prepared(each, slots, limit)[0].tensor, each.fetched.instance.sha256
        )
        for each in decoded.references
    }
    return replace(prepared, variables=facts, given=segments, references=against)


def _prepared(decoded: Decoded, slots: Slots, limit: float) -> tuple[Prepared, Told]:
    """Prepare one image or volume, and return what its header says of each variable."""
    fetched = decoded.fetched
    message = {
        "pixels": str(decoded.pixels),
        "padding": None if decoded.padding is None else str(decoded.padding),
        "facts": decoded.facts.model_dump(mode="json"),
        "steps": _CHOICES.dump_python(fetched.manifest.image.steps, mode="json"),
        "to": str(fetched.scratch / "tensor.npy"),
        "patient": None if decoded.volume is None else decoded.volume.affine,
        "header": str(decoded.header),
        "variables": _VARIABLES.dump_python(fetched.manifest.variables, mode="json"),
    }
    answer = slots.run("prepare", message, limit + leeway(decoded.facts.shape))
    tensor = np.load(message["to"], allow_pickle=False)
    grid = Grid(tensor.shape[1:], np.array(answer["affine"]))
    return Prepared(decoded, tensor, grid), answer["told"]


def _apart(
    views: Sequence[Decoded], slots: Slots, limit: float, on_progress: Callable[[float], None]
) -> list[tuple[Prepared, Told]]:
    """Prepare one view after the other."""
    made: list[tuple[Prepared, Told]] = []
    for each in views:
        one, header = _prepared(each, slots, limit)
        view = each.fetched.view
        if view is not None and view.mirrored:
            tensor, grid = mirrored(one.tensor, one.grid)
            one = replace(one, tensor=tensor, grid=grid)
        made.append((one, header))
        on_progress(len(made) / len(views))
    return made


def mirrored(tensor: NDArray[np.float32], grid: Grid) -> tuple[NDArray[np.float32], Grid]:
    """Return an image, ``(C, rows, columns)``, turned left to right, and the way back."""
    turn = scaling((1, -1), (0, tensor.shape[-1] - 1))
    turned = np.ascontiguousarray(tensor[..., ::-1])
    return turned, Grid(grid.shape, grid.affine @ turn)


def _stacked(decoded: Decoded, views: Sequence[Prepared]) -> Prepared:
    """Return several views as one input."""
    tensor = stacked([each.tensor for each in views])
    return Prepared(decoded, tensor, Grid.identity(tensor.shape[1:]), views=tuple(views))


def stacked(views: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return views ``(C, rows, columns)`` as the model takes them, ``(C, views, rows, columns)``.

    Raises
    ------
    NotAcceptedByModel
        They are not of one shape.
    """
    shapes = list(dict.fromkeys(each.shape for each in views))
    if len(shapes) > 1:
        raise NotAcceptedByModel(
            "The views do not have one shape when they are prepared: send images of one size and"
            " kind, or have the package's steps bring them to one.",
            shapes=[list(each) for each in shapes],
        )
    return np.stack(views, axis=1)


def task(message: dict[str, Any]) -> dict[str, Any]:
    """Prepare one image, inside a slot."""
    padding = message["padding"]
    tensor, grid = prepare_files(
        Path(message["pixels"]),
        None if padding is None else Path(padding),
        ImageFacts.model_validate(message["facts"]),
        _CHOICES.validate_python(message["steps"]),
        message["patient"],
    )
    np.save(message["to"], tensor, allow_pickle=False)
    variables = _VARIABLES.validate_python(message["variables"])
    return {"affine": grid.affine.tolist(), "told": told(Path(message["header"]), variables)}


def prepare_files(
    pixels: Path,
    padding: Path | None,
    facts: ImageFacts,
    steps: Sequence[StepChoice],
    patient: ArrayLike | None = None,
) -> tuple[NDArray[np.float32], Grid]:
    """Run steps on decoded files; self-tests of models call it too.

    Parameters
    ----------
    patient
        Of a volume, source voxel to patient coordinates, shape ``(4, 4)``.

    Returns
    -------
    tuple
        The model's input, float32 of shape ``(C, *spatial)``, and its grid.

    Raises
    ------
    InvalidPackage
        A step does not exist, or its parameters are not valid.
    """
    values = np.asarray(np.load(pixels, mmap_mode="r", allow_pickle=False))
    mask = None if padding is None else np.load(padding, allow_pickle=False)
    place = None if patient is None else np.asarray(patient, float)
    image = StepImage(values, mask, Grid.identity(values.shape[1:]), place)
    for step in parse_steps(steps):
        if not step.takes_integers:
            image = replace(image, values=np.asarray(image.values, np.float32))
        image = step.apply(image, facts)
    return np.ascontiguousarray(image.values, np.float32), image.grid


def parse_steps(steps: Sequence[StepChoice]) -> tuple[Step, ...]:
    """Return the steps that a manifest names.

    Raises
    ------
    InvalidPackage
        A step does not exist, or its parameters are not valid.
    """
    return tuple(
        chosen(STEPS, "step", each.name, each.parameters, f"/inputs/0/steps/{number}")
        for number, each in enumerate(steps)
    )
