"""Self-tests: inputs of known answer, on the same way that jobs take."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.domain.fields import NAMED
from service.domain.files import SelfTest
from service.domain.grid import Grid
from service.domain.inputs import StepChoice, VolumeRules
from service.domain.manifest import Manifest
from service.entries import outputs_of
from service.errors.base import WhylightError
from service.errors.models import ModelUnavailable
from workers.pixels.decode import decode_file
from workers.scratch import job_folder
from workers.slots import Slots
from workers.stages.prepare import mirrored, prepare_files, stacked
from workers.volumes.decode import decode_series

if TYPE_CHECKING:  # slots load this module, and tensor libraries stay out of them
    from workers.tabular import Tabular

TASK = "selftest"
LIMIT = 60.0
"""Seconds for decoding and preparing one input."""


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """A self-test that was passed."""

    test: SelfTest
    image: NDArray[np.float32]
    """The model's input without the batch axis, shape ``(C, *spatial)``."""

    grid: Grid
    beside: "Tabular | None"
    """What stands beside the image, if something does."""

    answer: NDArray[np.float64]
    """What was held against the expected numbers."""


def prepared(
    manifest: Manifest, test: SelfTest, folder: Path, slots: Slots, scratch: Path
) -> tuple[NDArray[np.float32], Grid]:
    """Decode and prepare a self-test's input in a supervised process.

    Parameters
    ----------
    folder
        The unpacked package.

    Returns
    -------
    tuple
        The model's input without the batch axis, shape ``(C, *spatial)``, and its grid.

    Raises
    ------
    ModelUnavailable
        The input cannot be decoded, or a step does not take it.
    """
    if isinstance(test.input, str):
        return _prepared(manifest, test, folder / test.input, slots, scratch)
    images = []
    for file, turned in _several(manifest, test):
        one = _prepared(manifest, test, folder / file, slots, scratch)
        images.append((mirrored(*one) if turned else one)[0])
    try:
        tensor = stacked(images)
    except WhylightError as error:
        raise _unprepared(test, error) from error
    return tensor, Grid.identity(tensor.shape[1:])


def _several(manifest: Manifest, test: SelfTest) -> list[tuple[str, bool]]:
    """Return the files of several images, in the model's order, and whether each is turned."""
    if isinstance(test.input, dict):
        return [(test.input[each.key], each.mirrored) for each in manifest.image.views]
    return [(file, False) for file in test.paths]


def _prepared(
    manifest: Manifest, test: SelfTest, file: Path, slots: Slots, scratch: Path
) -> tuple[NDArray[np.float32], Grid]:
    """Return one file of a self-test as the model takes it; errors as of `prepared`."""
    rules = manifest.image.accept.volume
    with job_folder(scratch) as work:
        to = work / "tensor.npy"
        message = {
            "file": str(file),
            "steps": [step.model_dump(mode="json") for step in manifest.image.steps],
            "rules": rules and rules.model_dump(mode="json"),
            "scratch": str(work),
            "to": str(to),
        }
        try:
            answer = slots.run(TASK, message, LIMIT)
        except WhylightError as error:
            raise _unprepared(test, error) from error
        tensor: NDArray[np.float32] = np.load(to, allow_pickle=False)
        return tensor, Grid(tensor.shape[1:], np.array(answer["affine"]))


def _unprepared(test: SelfTest, error: WhylightError) -> ModelUnavailable:
    failure = error.failure()
    return ModelUnavailable(
        f"A self-test's input does not reach the model: {failure.detail} Mend the steps or what"
        " 'accept' says, or bring another input.",
        pointer="/selftests",
        **{**failure.facts, "selftest": test.title, "reason": failure.code},
    )


def answered(
    manifest: Manifest, outputs: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return what self-tests tell of outputs: of a segmentation, each class's mean.

    The outputs must be those of the manifest: a network of two logits where `outputs`
    lists one class would pass its own self-tests, and fail every job.

    Parameters
    ----------
    shape
        Spatial shape of the model's input.

    Raises
    ------
    ModelUnavailable
        The network gives another number of outputs than the manifest names, or of a
        segmentation no logit for each class at each pixel of its input.
    """
    count = manifest.width
    if not outputs.ndim or outputs.shape[0] != count:
        given = outputs.shape[0] if outputs.ndim else 1
        raise ModelUnavailable(
            f"'outputs' lists {outputs_of(manifest)}, and the network gives {given}:"
            " list every output of the network, in its order, or mend the network.",
            pointer=f"/outputs/0/{NAMED.get(manifest.task, 'classes')}",
            expected=count,
            found=list(outputs.shape),
        )
    segmentation = manifest.task == "segmentation"
    expected = (count, *shape) if segmentation else (count,)
    if outputs.shape != expected:
        raise ModelUnavailable(
            "A segmentation must give one logit for each class at each pixel of its input; mend"
            " 'outputs' or the network."
            if segmentation
            else f"A network of task '{manifest.task}' must give one number for each output; mend"
            " 'task' or the network.",
            pointer="/outputs",
            expected=list(expected),
            found=list(outputs.shape),
        )
    if not segmentation:
        return outputs
    return np.asarray(outputs.reshape(count, -1).mean(1))


def compare(test: SelfTest, answer: NDArray[np.floating[Any]]) -> None:
    """Compare the model's answer, shape ``(outputs,)``, with the one expected.

    Raises
    ------
    ModelUnavailable
        It differs by more than the self-test's tolerance.
    """
    expected = np.array(test.expected)
    if answer.shape != expected.shape:
        raise ModelUnavailable(
            "The model gives another number of outputs than its self-test expects.",
            pointer="/selftests",
            selftest=test.title,
            expected=list(expected.shape),
            found=list(answer.shape),
        )
    worst = float(np.abs(answer - expected).max())
    if not worst <= test.tolerance:  # a NaN fails too
        raise ModelUnavailable(
            "A self-test of the model failed: its answers are not those expected. Compare the"
            " steps, weights and order of classes with those that gave 'expected'; if 'found' is"
            " what the model says where it was made, write that into the self-test.",
            pointer="/selftests",
            selftest=test.title,
            tolerance=test.tolerance,
            difference=worst if np.isfinite(worst) else None,
            expected=expected.tolist(),
            found=[float(each) if np.isfinite(each) else None for each in answer],
        )


def task(message: dict[str, Any]) -> dict[str, Any]:
    """Decode and prepare one input, inside a slot."""
    file, scratch = Path(message["file"]), Path(message["scratch"])
    patient = None
    if message["rules"] is None:
        files = decode_file(file, scratch)
    else:  # the frames of one enhanced object
        files, volume = decode_series([file], scratch, VolumeRules.model_validate(message["rules"]))
        patient = volume.affine
    steps = [StepChoice.model_validate(each) for each in message["steps"]]
    tensor, grid = prepare_files(files.pixels, files.padding, files.facts, steps, patient)
    np.save(message["to"], tensor, allow_pickle=False)
    return {"affine": grid.affine.tolist()}
