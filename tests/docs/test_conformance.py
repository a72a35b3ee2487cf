"""The conformance statement lists every private code that an object can bear."""

import re
import tomllib
from pathlib import Path

import numpy as np
from pydicom import charset
from pydicom.uid import UID

from service.domain.boxes import PatientBox
from service.domain.certificate import Similarity
from service.domain.explanation import Check, InstanceShare, Restriction
from service.domain.grid import Grid, scaling
from service.domain.trust import CalibrationRef, CertificateRef, Flag
from service.domain.variable import VariableShare
from service.domain.view import ViewShare
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.sheets import REPORT, TARGET, blob, sheet
from tests.support.volumes import volume_sheet
from workers.formats.derived import Source
from workers.formats.plane import planes_of
from workers.formats.statements import CERTIFIED, CHECKED, evaluations, measurements

STATEMENT = Path("docs/dicom-conformance.md")
PLACED = {
    "FrameOfReferenceUID": "2.25.4",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.5],
    "SliceThickness": "3",
}
BOX = {
    "kind": "detection",
    "quantity": "log odds of the box",
    "box": (1.0, 2.0, 30.0, 40.0),
    "overlap": 0.8,
}
DEEP_BOX = {
    "kind": "detection",
    "box": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
    "patient": PatientBox(center=(1.0, 2.0, 3.0), size=(9.0, 2.4, 2.1)),
}
VALUE = {"value": 3.0, "unit": "mo", "reference": 1.0, "view": "in_0001"}


def listed():
    _, _, rest = STATEMENT.read_text().partition("## Private codes\n")
    table, _, _ = rest.partition("\n## ")
    return set(re.findall(r"`([a-z_0-9]+)`", table))


def checks():
    """Checks that told every number."""
    named = {check: {} for check, _ in CHECKED}
    for check, value in CHECKED:
        named[check][value] = 0.5
    return tuple(
        Check(name=name, version=1, outcome="pass", values=each, meaning="")
        for name, each in named.items()
    )


def image(tmp_path, **target):
    """Everything that can be said of a map of an image."""
    path = tmp_path / "source.dcm"
    path.write_bytes(encoded(of_pixels(np.zeros((64, 48), np.uint16), **PLACED)))
    alike = Similarity(value=0.1, low=0.0, high=0.2, pairs=24)
    certificate = CertificateRef(outcome="passed", similarities=dict.fromkeys(CERTIFIED, alike))
    said = {"certificate": certificate, "calibration": CalibrationRef(maps=24, supported=0.9)}
    restriction = Restriction(
        to="ultrasound_regions", regions=((0, 0, 64, 48),), outside_share=0.0, outside_sum=0.0
    )
    return sheet(
        path,
        tmp_path / "work",
        blob((8, 8)),
        Grid((8, 8), scaling((4, 6), (1.5, 2.5))),  # the upper half
        target=TARGET.model_copy(update=target),
        view=ViewShare(key="left", label="Left", share=0.5, together=True, full=1.0),
        instances=(InstanceShare(instance="in_0001", relevance=0.5),),
        variables=(VariableShare(key="sex", label="Sex", relevance=1.0),),
        restriction=restriction,
        padding_share=0.3,
        checks=checks(),
        trust=REPORT.model_copy(update={**said, "flags": tuple(Flag)}),
    )


def codes(drawn):
    planes = planes_of(Source.read(drawn.header_file), drawn.record)
    numbers = {each.name for each in measurements(drawn, planes)}
    words = {each.name for each in evaluations(drawn.record)}
    return {each.value for each in numbers | words if each.scheme_designator == "99WHYLIGHT"}


def test_every_private_code_is_listed(tmp_path):
    found = codes(image(tmp_path, **VALUE)) | codes(image(tmp_path, **BOX))
    deep = TARGET.model_copy(update=DEEP_BOX)
    found |= codes(volume_sheet(tmp_path / "volume", target=deep))
    assert {"peak_slice", "region_area", "region_volume", "box_top", "logit", "score"} <= found
    assert found - listed() == set()
    assert listed() - found == {"salient_region", "relevance", "peak_image"}


def test_the_statement_is_of_this_version_and_names_what_the_standard_does():
    text = STATEMENT.read_text()
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    assert f"| Version of the product and of this statement | {version} |" in text
    classes = re.findall(r"^\| (.+?) \| (1\.2\.840\.10008\.5\.[0-9.]+) \|$", text, re.MULTILINE)
    assert len(classes) > 20
    assert [name for name, uid in classes if not UID(uid).name.startswith(name)] == []
    _, _, sets = text.partition("## Character sets\n")
    terms = set(re.findall(r"`((?:ISO|GB)[A-Z0-9_ ]*)`", sets.partition("\n## ")[0]))
    misspelt = {"ISO 2022 GBK", "ISO 2022 58"}
    assert terms == {*charset.python_encoding} - misspelt - {""}
