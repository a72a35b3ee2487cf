"""The page on detectors, executed: the words for outputs, what is refused.

The registration itself is among those of `test_registrations`.
"""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from monai.data.box_utils import non_max_suppression

from examples.planted.dicom import plate
from examples.planted.inputs import inputs
from examples.planted.pictures import shapes
from service.domain.boxes import BoxDecoding, Detection
from service.domain.inputs import Input, SlidingWindow
from service.domain.manifest import Manifest
from service.domain.outputs import Output
from service.domain.target import DetectionTarget
from service.errors.models import ModelUnavailable
from tests.support.detector import OF_SPHERES, Exported, Sorting
from tests.support.exported import onnx_of
from tests.support.phantom_dicom import encoded
from tests.support.registrations import DETECTION, run
from tests.support.registrations import said as said_on_page
from workers.methods.base import METHODS

TITLE = "A detector as an ONNX file"
PICTURES = {
    "ordinary": shapes(4_774, {"cyst": 2, "stone": 1}),
    "inverted": shapes(4_780, {"cyst": 1, "stone": 1}),
}


def own_program(session, picture):
    """Return logits and boxes as the program that the detector was made with gives them."""
    given = {"image": inputs([picture]).numpy()}
    (boxes,), (scores,) = (
        torch.from_numpy(each) for each in session.run(["boxes", "scores"], given)
    )
    found = []
    for k, of in enumerate(("cyst", "stone")):
        (above,) = torch.where(scores[:, k] >= 0.5)
        for each in non_max_suppression(boxes[above], scores[above, k], 0.3).tolist():
            left, top, right, bottom = (2 * boxes[above][each]).tolist()
            found.append({"of": of, "box": [top, left, bottom, right]})
    return torch.logit(scores.amax(0)).tolist(), found


def write_package(network, answer=None, **words):
    """Do what the page says; `words` replace some of its ``boxes``, `answer` the self-tests'."""
    image = torch.zeros(1, 64, 64)
    Path("detector.onnx").write_bytes(onnx_of(network, image, outputs=("boxes", "scores")))
    session = onnxruntime.InferenceSession("detector.onnx")
    Path("package").rmdir()
    assert run(TITLE, "import") == 3
    fields = yaml.safe_load(Path("package/model.yaml").read_text()) | said_on_page(TITLE)
    fields["outputs"][0]["boxes"] |= words
    for test in fields["selftests"]:
        picture = PICTURES[test["title"]]
        made = plate(picture, test["title"], "KIDNEY")
        if test["title"] == "inverted":
            made.PhotometricInterpretation = "MONOCHROME1"
            made.PixelData = (4095 - picture.stored).astype("<u2").tobytes()
        Path("package", test["input"]).write_bytes(encoded(made))
        logits, found = answer or own_program(session, picture)
        test |= {"logits": [*logits], "boxes": [*found]}
    Path("package/model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))


@pytest.mark.parametrize(
    ("words", "said", "facts"),
    [
        ({"axes": "yx"}, "other boxes", {"selftest": "ordinary"}),
        ({"background": "last"}, "another shape", {"expected": [-1, 7], "found": [1024, 6]}),
        ({"tensors": ["boxes", "logits"]}, "no such output", {"missing": ["logits"]}),
    ],
)
def test_words_that_do_not_fit_the_file_are_told(desk, words, said, facts):
    write_package(Exported().eval(), **words)
    assert run(TITLE, "seal") == 0
    failure = desk().failure
    assert failure.code == ModelUnavailable.code
    assert said in failure.detail
    assert failure.facts | facts == failure.facts


def test_a_file_that_sorts_its_boxes_itself_is_refused(desk):
    write_package(Sorting().eval(), answer=([0.0, 0.0], []))
    assert run(TITLE, "seal") == 0
    failure = desk().failure
    assert "without suppression" in failure.detail


def test_the_words_of_the_page_are_those_of_the_manifest():
    heading, *fields = re.findall(
        r"^\| `(\w+)` \|", DETECTION.split("## What can be asked")[0], re.MULTILINE
    )
    assert (heading, sorted(fields)) == ("boxes", sorted(BoxDecoding.model_fields))
    rows = re.findall(r"^\| .* \| `(\{.*\})` \|$", DETECTION, re.MULTILINE)
    assert len(rows) == 7
    for row in rows:
        BoxDecoding.model_validate(yaml.safe_load(row))


def test_a_detector_for_volumes_is_declared_as_the_page_says():
    fields = said_on_page("Volumes")
    shipped = OF_SPHERES.manifest
    assert Input.model_validate(fields["inputs"][0]).steps == shipped.image.steps
    told, own = (Output.model_validate(fields["outputs"][0]), shipped.outputs[0])
    assert told.classes == own.classes[:1]
    assert told.boxes.model_copy(update={"overlap": own.boxes.overlap}) == own.boxes


def test_what_the_page_asks_and_shows_is_what_there_is():
    rest = DETECTION.split("## How an output is read")[1]
    blocks = re.findall(r"```json\n(.*?)```", rest, re.DOTALL)
    shown, *asked = map(json.loads, blocks)
    assert len([DetectionTarget.model_validate(each) for each in asked]) == 4
    Detection.model_validate(shown | {"logit": 0, "probability": 0.5})
    low, high = np.split(np.array(shown["box"]), 2)
    spacing = np.array(shown["patient"]["size"]) / (high - low)
    np.testing.assert_allclose(spacing, (1.5, 0.8, 0.7))


def test_the_methods_that_the_page_calls_refused_are():
    (sentence,) = re.findall(r"\*\*Some methods are refused\.\*\*(.*?)often", DETECTION, re.DOTALL)
    named = set(re.findall(r"`(\w+)`", sentence))
    assert named == {name for name in METHODS if METHODS[name].marks_alike}


def test_windows_are_declared_as_the_page_says():
    windows = SlidingWindow.model_validate(said_on_page("In windows")["sliding_window"])
    manifest = OF_SPHERES.manifest.model_dump() | {"sliding_window": windows}
    assert Manifest.model_validate(manifest).sliding_window.blend == "none"
