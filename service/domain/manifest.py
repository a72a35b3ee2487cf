"""``model.yaml``: everything the service must know of a model, strictly.

Its fields are valid by themselves first (`service.domain.fields`); then they are held against
each other here, and what does not go together is told by the field that is to be changed.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from service.domain.boxes import BoxDecoding
from service.domain.fields import LOADED, NAMED, Fields
from service.domain.inputs import Input
from service.domain.outputs import Output
from service.domain.regions import MaskRegion
from service.domain.target import ABOVE_THRESHOLD, REST, TOP1

CONTRADICTION: Final = "contradiction"
"""Type of the error of fields that do not go together; its context has `pointer` and `message`."""

DECODINGS = {
    "segmentation": ("voxel_classes", "voxel_regions"),
    "detection": ("boxes",),
    "survival": ("log_hazard", "hazards", "masses"),
    "reconstruction": ("squared_error",),
    "embedding": ("embedding",),
}
"""By task; of others the logits themselves are what is said."""


class Breach(NamedTuple):
    """Fields that do not go together."""

    pointer: str
    """JSON pointer of the one that is to be changed."""

    message: str


class Manifest(Fields):
    """A model package's ``model.yaml``."""

    @model_validator(mode="after")
    def _goes_together(self) -> "Manifest":
        """Hold the fields against each other; the first breach is told."""
        breach = next(chain.from_iterable(rule(self) for rule in RULES), None)
        if breach is not None:
            raise PydanticCustomError(CONTRADICTION, "{message}", breach._asdict())
        return self


def _inputs(said: Fields) -> Iterator[Breach]:
    """Require one image, and of what stands beside it that it can be told apart."""
    for place, each in enumerate(said.inputs):
        if isinstance(each, Input) != (place == 0):
            yield Breach(
                f"/inputs/{place}/kind",
                "'inputs' needs one image or volume first, and others of kind tabular",
            )
            return
    differ = "names of 'inputs', and keys of their variables, must differ"
    for place in _repeated([each.name for each in said.inputs]):
        yield Breach(f"/inputs/{place}/name", differ)
    places = [
        f"/inputs/{place}/variables/{number}/key"
        for place, tensor in enumerate(said.tabular, 1)
        for number in range(len(tensor.variables))
    ]
    for place in _repeated([each.key for each in said.variables]):
        yield Breach(places[place], differ)
    if said.remote is not None and said.remote.input in {each.name for each in said.tabular}:
        yield Breach(
            "/remote/input", "'remote.input' is the image's tensor; tabular inputs have others"
        )
    if said.variables and said.calibration:
        yield Breach(
            "/calibration", "'calibration' holds images alone: leave it out beside tabular inputs"
        )


def _bag(said: Fields) -> Iterator[Breach]:
    """Require of a bag what its instances can be asked about."""
    bag = said.image.bag
    if bag is None:
        return
    if said.task in {"segmentation", "detection"}:
        yield Breach("/task", "a bag has one answer: its task is a classification or a regression")
    if said.calibration:
        yield Breach(
            "/calibration",
            "'calibration' holds inputs of one shape, and bags are of any: leave it out",
        )
    if bag.images is not None:
        least, most = bag.images.least, bag.images.most
        for place, test in enumerate(said.selftests):
            if not isinstance(test.input, tuple) or not least <= len(test.input) <= most:
                yield Breach(
                    f"/selftests/{place}/input",
                    "each self-test of a bag of images needs a list of files as its 'input',"
                    f" from {least} to {most}",
                )
    if bag.attention and (said.members or said.runtime == "remote"):
        yield Breach(
            "/inputs/0/bag/attention",
            "a bag's 'attention' is a layer of one network that runs here: leave it out of"
            " 'members', and of a model on a server",
        )
    if bag.attention and not said.explain.layers:
        yield Breach("/explain/layers", "a bag's 'attention' needs 'explain.layers' beside it")


def _views(said: Fields) -> Iterator[Breach]:
    """Require of several views what all of them can be asked about."""
    keys = sorted(each.key for each in said.image.views)
    for place, test in enumerate(said.selftests if said.image.images is None else ()):
        named = sorted(test.input) if isinstance(test.input, dict) else []
        if named != keys or isinstance(test.input, tuple):
            yield Breach(
                f"/selftests/{place}/input",
                "each self-test needs one 'input', and of several views a file for each of"
                f" these keys: {keys}",
            )
    if keys and said.task in {"segmentation", "detection"}:
        yield Breach("/task", "views have one answer: a classification or a regression")


def _values(said: Fields) -> Iterator[Breach]:
    """Require of every self-test what stands beside its image."""
    keys = {each.key for each in said.variables}
    for place, test in enumerate(said.selftests):
        where = f"/selftests/{place}/values"
        if set(test.values) != keys:
            yield Breach(where, f"each self-test needs 'values' of just these keys: {sorted(keys)}")
            return
        for each in said.variables:
            try:
                each.number(test.values[each.key])
            except ValueError as error:
                yield Breach(f"{where}/{each.key}", str(error))


def _runtime(said: Fields) -> Iterator[Breach]:
    """Require what the chosen runtime loads."""
    if said.runtime == "torch" and said.architecture is None:
        yield Breach("/architecture", "runtime 'torch' needs 'architecture'")
    if said.runtime == "torch" and said.image.layout == "NHWC":
        yield Breach(
            "/inputs/0/layout", "layout NHWC is for the runtimes 'onnx' and 'remote' alone"
        )
    if (said.runtime == "remote") != (said.remote is not None):
        yield Breach("/remote", "runtime 'remote' needs 'remote', and no other runtime has it")
    wanted = LOADED.get(said.runtime)
    if wanted and not any((file.role, file.format) == wanted for file in said.files):
        role, form = wanted
        yield Breach(
            "/files", f"runtime '{said.runtime}' needs a file of role '{role}', format '{form}'"
        )
    known = {file.path for file in said.files}
    for place, test in enumerate(said.selftests):
        if missing := [path for path in test.paths if path not in known]:
            yield Breach(
                f"/selftests/{place}/input",
                f"self-test inputs must be listed under 'files': {missing}",
            )


def _task(said: Fields) -> Iterator[Breach]:
    """Require what the task puts out, and nothing else."""
    output, task = said.outputs[0], said.task
    wrong = _misnamed(output, task)
    if wrong is not None:
        yield wrong
        return
    decodings = DECODINGS.get(task, ("logits",))
    if output.decoding not in decodings:
        words = " or ".join(f"'{each}'" for each in decodings)
        yield Breach("/outputs/0/decoding", f"an output of task '{task}' needs decoding {words}")
    if task == "reconstruction" and len(output.values) > 1:
        yield Breach("/outputs/0/values", "a reconstruction has one error: name one of 'values'")
    if output.event and bool(output.event.horizons) != (output.decoding != "log_hazard"):
        yield Breach(
            "/outputs/0/event/horizons",
            "an 'event' of decoding 'hazards' or 'masses' needs its 'horizons', and of"
            " 'log_hazard' has none",
        )
    if said.named and all(each.not_for_use is not None for each in said.named):
        named = NAMED.get(task, "classes")
        yield Breach(f"/outputs/0/{named}", f"at least one of the {named} must be for use")
    if said.calibration and not task.startswith("classification"):
        yield Breach("/calibration", "'calibration' is for classifications alone")


def _misnamed(output: Output, task: str) -> Breach | None:
    """Return what is wrong with what an output names, by its task."""
    told = {"classes": output.classes, "values": output.values, "event": output.event}
    content = [name for name, each in told.items() if each]
    if task == "embedding":
        what = "an output of task 'embedding' is its vector: name nothing of it"
        return Breach(f"/outputs/0/{content[0]}", what) if content else None
    named = NAMED.get(task, "classes")
    if content == [named]:
        return None
    others = [each for each in content if each != named]
    return Breach(
        f"/outputs/0/{others[0] if named in content else named}",
        f"an output of task '{task}' needs '{named}', and they alone",
    )


def _keys(said: Fields) -> Iterator[Breach]:
    """Require keys that differ and are no words of targets, and classes that have a rival."""
    named = NAMED.get(said.task, "classes")
    listed, field = ("event/horizons", "time") if named == "event" else (named, "key")
    keys = [each.key for each in said.named]
    for place in _repeated(keys):
        yield Breach(f"/outputs/0/{listed}/{place}/{field}", f"keys of {named} must differ")
    for place, key in enumerate(keys):
        if key in {TOP1, ABOVE_THRESHOLD, REST}:
            yield Breach(
                f"/outputs/0/{listed}/{place}/{field}",
                f"targets have a meaning of their own for '{key}': choose another key",
            )
    if said.task == "classification-multiclass" and len(keys) == 1:
        yield Breach(
            "/task",
            "one class excludes no other: two outcomes of one logit are a task"
            " 'classification-multilabel' with one class",
        )


def _activation(said: Fields) -> Iterator[Breach]:
    """Require of self-tests the numbers that the network puts out."""
    if said.activation == "probabilities" and not said.decides:
        yield Breach(
            "/activation",
            "'activation: probabilities' is for classifications, segmentations, and the hazards"
            " or masses of an event; how scores of boxes are read stands in 'boxes'",
        )
    (other,) = {"logits", "probabilities"} - {said.activation}
    for place, test in enumerate(said.selftests):
        if getattr(test, other) or not test.expected:
            yield Breach(
                f"/selftests/{place}/{other if getattr(test, other) else said.activation}",
                f"each self-test needs '{said.activation}', as 'activation' says, and they alone",
            )


def _embedding(said: Fields) -> Iterator[Breach]:
    """Require of an encoder that another image can stand beside the one explained."""
    if said.task != "embedding":
        return
    image = said.image
    others = {
        "/inputs/0/views": bool(image.views),
        "/inputs/0/bag": image.bag is not None,
        "/inputs/0/accept/volume": image.accept.volume is not None,
        "/inputs/1": bool(said.tabular),
    }
    for pointer, there in others.items():
        if there:
            what = "an embedding is of one image alone: no views, bag, volume or values"
            yield Breach(pointer, what)


def _windows(said: Fields) -> Iterator[Breach]:
    """Require of windows that they fit the task, and have the axes of the input."""
    if said.sliding_window is None:
        return
    if said.task not in {"segmentation", "detection"}:
        yield Breach(
            "/sliding_window", "'sliding_window' is for segmentations and detections alone"
        )
    if (said.sliding_window.blend == "none") != (said.task == "detection"):
        yield Breach(
            "/sliding_window/blend",
            "'sliding_window.blend' of a detection is 'none', and of a segmentation another:"
            " boxes of windows are not blended, but suppressed together",
        )
    axes = len(said.image.layout) - 2
    if len(said.sliding_window.size) != axes:
        what = f"'sliding_window.size' needs one number for each of {axes} axes"
        yield Breach("/sliding_window/size", what)


def _members(said: Fields) -> Iterator[Breach]:
    """Require that every member is among the files, once, and can be one."""
    if said.members is None:
        return
    if said.runtime != "torch":
        yield Breach("/members", "'members' are for runtime 'torch' alone")
    if said.task in {*NAMED, "embedding"} and said.members.combine != "logits":
        what = f"members of task '{said.task}' are combined by their logits alone"
        yield Breach("/members/combine", what)
    listed = {file.path for file in said.files if (file.role, file.format) == LOADED["torch"]}
    for place, path in enumerate(said.members.weights):
        if path not in listed:
            yield Breach(
                f"/members/weights/{place}",
                f"'members' need files of role 'weights', safetensors: {path}",
            )
    for place in _repeated(said.members.weights):
        yield Breach(f"/members/weights/{place}", "every member needs weights of its own")


def _tokens(said: Fields) -> Iterator[Breach]:
    """Require that tokens lie over the one image, and of a network that is looked into."""
    if said.tokens is None:
        return
    if said.runtime == "remote":
        yield Breach("/tokens", "a server gives no layer's output: leave 'tokens' out")
    for pointer, why in said.tokens.faults(said.image, said.sliding_window):
        yield Breach(f"/tokens{pointer}", why)


def _boxes(said: Fields) -> Iterator[Breach]:
    """Require of a detection how its boxes are read, and from which score on they count."""
    boxes = said.outputs[0].boxes
    if (boxes is not None) != (said.task == "detection"):
        yield Breach(
            "/outputs/0/boxes", "an output of task 'detection' needs 'boxes', and no other has it"
        )
        return
    if boxes is None:
        for place, test in enumerate(said.selftests):
            if test.boxes:
                what = "self-tests have 'boxes' of task 'detection' alone"
                yield Breach(f"/selftests/{place}/boxes", what)
        return
    if boxes.tensors and said.runtime != "onnx":
        what = "'tensors' are outputs of a graph, of runtime 'onnx' alone"
        yield Breach("/outputs/0/boxes/tensors", what)
    if said.members is not None:
        yield Breach("/members", "the boxes of several members cannot be averaged")
    for place, each in enumerate(said.classes):
        if each.threshold is None:
            yield Breach(
                f"/outputs/0/classes/{place}/threshold",
                "each class of a detection needs the 'threshold' of its boxes",
            )
    if boxes.scores == "softmax" and boxes.background is None and len(said.classes) == 1:
        yield Breach(
            "/outputs/0/boxes/background",
            "a softmax over one class is always 1; name its 'background'",
        )
    yield from _axes(said, boxes)


def _axes(said: Fields, boxes: BoxDecoding) -> Iterator[Breach]:
    """Require of boxes that they are in an image or a volume, as the input is, and of a class."""
    rank = len(said.image.layout) - 2
    if boxes.rank != rank:
        yield Breach(
            "/outputs/0/boxes/axes",
            f"'axes' of 'boxes' names {boxes.rank} axes, and the input has {rank}: 'xy' or 'yx'"
            " are for images, 'xyz' or 'zyx' for volumes",
        )
    keys = {each.key for each in said.classes}
    for place, test in enumerate(said.selftests):
        for number, each in enumerate(test.boxes):
            where = f"/selftests/{place}/boxes/{number}"
            if each.of not in keys:
                yield Breach(
                    f"{where}/of", "the boxes of self-tests must be of the classes of 'outputs'"
                )
            if len(each.box) != 2 * rank:
                yield Breach(
                    f"{where}/box", f"the boxes of self-tests need {2 * rank} numbers each"
                )


def _files(said: Fields) -> Iterator[Breach]:
    """Require that what the trust report needs is among the files, in its form."""
    listed = {(file.path, file.role, file.format) for file in said.files}
    region, calibration = said.explain.expected_region, said.calibration
    if isinstance(region, MaskRegion) and (region.path, "region", "npy") not in listed:
        yield Breach(
            "/explain/expected_region/path",
            "the mask of 'expected_region' must be a file of role 'region', npy",
        )
    if calibration and (calibration.cases, "calibration", "safetensors") not in listed:
        what = "'calibration' needs a file of role 'calibration', safetensors"
        yield Breach("/calibration/cases", what)


def _repeated(names: Sequence[Hashable]) -> Iterator[int]:
    """Yield the place of each name that stands before it already."""
    return (place for place, each in enumerate(names) if each in names[:place])


RULES: Final[tuple[Callable[[Fields], Iterator[Breach]], ...]] = (
    _inputs,
    _bag,
    _views,
    _values,
    _runtime,
    _task,
    _keys,
    _activation,
    _embedding,
    _windows,
    _members,
    _tokens,
    _boxes,
    _files,
)
"""In this order: what a later one reads of the fields, an earlier one has held to be there."""
