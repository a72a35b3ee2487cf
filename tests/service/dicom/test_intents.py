"""What the pixels of a digital X-ray are meant for, of real files and of made ones."""

import pydicom
import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from service.acceptance import choose_instance, left_out
from service.dicom.header import read_header
from service.dicom.intents import intent_of
from service.domain.inputs import Accept
from tests.support import corpus
from tests.support.parcels import instance, study

LIMIT = 1 << 28


@pytest.mark.parametrize(
    ("said", "uid", "intent"),
    [
        ("", DigitalXRayImageStorageForProcessing, "FOR PROCESSING"),
        ("", DigitalMammographyXRayImageStorageForPresentation, "FOR PRESENTATION"),
        ("FOR PROCESSING", DigitalXRayImageStorageForPresentation, "FOR PROCESSING"),
        ("UNKNOWN", DigitalMammographyXRayImageStorageForProcessing, "FOR PROCESSING"),
        ("", ComputedRadiographyImageStorage, ""),
    ],
)
def test_the_object_counts_before_its_class(said, uid, intent):
    assert intent_of(said, uid) == intent


TWINS = {
    DigitalXRayImageStorageForPresentation: DigitalXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation: (
        DigitalMammographyXRayImageStorageForProcessing
    ),
}


@pytest.mark.skipif(not corpus.FILES, reason=corpus.REASON)
def test_of_a_real_image_that_was_sent_raw_as_well_the_one_to_be_shown_is_chosen(tmp_path):
    real = [each for each in corpus.FILES if each.name in {"dx_image.dcm", "GH133.dcm"}]
    assert real
    for number, path in enumerate(real):
        shown = read_header(path, max_samples=LIMIT)
        assert shown.presentation_intent == "FOR PRESENTATION"
        data = pydicom.dcmread(path)
        data.SOPClassUID = TWINS[data.SOPClassUID]
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        if "PresentationIntentType" in data:
            data.PresentationIntentType = "FOR PROCESSING"
        file = tmp_path / f"{number}.dcm"
        data.save_as(file)
        raw = read_header(file, max_samples=LIMIT)
        assert raw.presentation_intent == "FOR PROCESSING"
        twins = study(
            instance(id="in_0001", **raw.model_dump()), instance(id="in_0002", **shown.model_dump())
        )
        colors = (shown.photometric_interpretation,)
        accept = Accept(modalities=(shown.modality,), photometric_interpretations=colors)
        chosen = choose_instance(twins, accept, None)
        assert chosen.id == "in_0002"
        (left,) = left_out(twins, accept, [chosen])
        assert left.reasons == ("presentation_intents",)
