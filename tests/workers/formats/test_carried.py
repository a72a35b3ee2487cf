"""What of patient and study is carried over whole, or left out and told."""

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.support.dciodvfy import complaints
from tests.support.sheets import blob, sheet
from workers.sheets import write

DOCUMENTS = ("dicom_sr", "dicom_ko")
FORMATS = ("dicom_sc", "dicom_seg", *DOCUMENTS)
LEFT_OUT = {"PatientSexNeutered"}
OF_SERIES = {"AnatomicalOrientationType"}
"""What series of documents do not have."""


def item(**elements):
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def coded(value="113100"):
    return item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning="Basic Profile")


CANINE = {
    "CodeValue": "448771007",
    "CodingSchemeDesignator": "SCT",
    "CodeMeaning": "Canis familiaris",
}
DOG = item(**CANINE)
NAMED = item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
IDENTIFIED = {
    "TypeOfPatientID": "TEXT",
    "PatientBirthTime": "101010",
    "QualityControlSubject": "NO",
    "IssuerOfPatientIDQualifiersSequence": [
        item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
    ],
    "OtherPatientIDsSequence": [item(PatientID="OLD", TypeOfPatientID="TEXT")],
    "IssuerOfAccessionNumberSequence": [item(LocalNamespaceEntityID="HOSPITAL")],
}
ANIMAL = {
    "PatientSpeciesDescription": "CANINE",
    "PatientSpeciesCodeSequence": [DOG],
    "PatientBreedDescription": "BEAGLE",
    "PatientSexNeutered": "ALTERED",
    "ResponsiblePerson": "Owner^Olga",
    "ResponsiblePersonRole": "OWNER",
    "AnatomicalOrientationType": "QUADRUPED",
}
PERSON = item(
    PersonIdentificationCodeSequence=[
        item(CodeValue="9", CodingSchemeDesignator="99L", CodeMeaning="Ref")
    ],
    InstitutionName="Clinic",
)
STUDY = {
    "ProcedureCodeSequence": [coded("1"), coded("2")],
    "ReasonForPerformedProcedureCodeSequence": [coded("3")],
    "RequestingServiceCodeSequence": [coded("4")],
    "ReferringPhysicianIdentificationSequence": [PERSON],
    "ConsultingPhysicianName": "Con^Sult",
    "PhysiciansOfRecord": ["A^B", "C^D"],
    "PhysiciansOfRecordIdentificationSequence": [PERSON, PERSON],
    "NameOfPhysiciansReadingStudy": "Read^Er",
    "AdmissionID": "V1",
    "IssuerOfAdmissionIDSequence": [item(LocalNamespaceEntityID="HIS")],
    "ServiceEpisodeID": "E1",
}
TRIAL = {
    "ClinicalTrialTimePointID": "T1",
    "ClinicalTrialSponsorName": "Sponsor",
    "ClinicalTrialProtocolID": "P1",
    "ClinicalTrialSubjectID": "S1",
}
REMOVED = {
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethodCodeSequence": [coded()],
}


@pytest.fixture
def drawn(source, tmp_path):
    def of(**elements):
        return sheet(source(**elements), tmp_path / "work", blob((12, 10)))

    return of


@pytest.mark.parametrize(
    "said",
    [IDENTIFIED, STUDY, ANIMAL, TRIAL, REMOVED],
    ids=["ids", "study", "animal", "trial", "removed"],
)
def test_what_is_valid_is_carried_over_whole(drawn, tmp_path, said):
    made = drawn(**said)
    assert not [each for each in made.record.facts.warnings if each.startswith("left_out")]
    for artifact, file in write(made, FORMATS, tmp_path)[0]:
        ds = pydicom.dcmread(file)
        told = set(said) - (OF_SERIES if artifact.format in DOCUMENTS else set())
        assert {keyword: ds[keyword].value for keyword in told} == {
            each: said[each] for each in told
        }
        assert complaints(artifact.format, file) == []


def test_an_animal_has_all_that_the_standard_wants_of_one(drawn, tmp_path):
    made = drawn(PatientSpeciesDescription="CANINE", ResponsiblePerson="Owner^Olga")
    assert "left_out_responsible_person" in made.record.facts.warnings  # in no role
    ((_, file),), _ = write(made, ["dicom_sc"], tmp_path)
    ds = pydicom.dcmread(file)
    for keyword in ("PatientBreedDescription", "ResponsiblePerson", "PatientSexNeutered"):
        assert ds[keyword].is_empty
    assert complaints("dicom_sc", file) == []


@pytest.mark.parametrize(
    ("directions", "kept"),
    [
        (["RT", "V"], True),
        (["CRD", "PA"], True),
        (["L", "R"], True),  # lateral and rostral
        (["RTLE", "V"], False),
        (["L", "M"], False),
        (["A", "F"], False),
    ],
)
def test_a_quadruped_has_directions_of_its_own(drawn, tmp_path, directions, kept):
    said = {"PatientOrientation": directions, "AnatomicalOrientationType": "QUADRUPED"}
    made = drawn(**ANIMAL | said)
    for artifact, file in write(made, ("dicom_sc", "dicom_seg"), tmp_path)[0]:
        ds = pydicom.dcmread(file)
        assert ds.AnatomicalOrientationType == "QUADRUPED"
        assert list(ds.PatientOrientation or []) == (directions if kept else [])
        assert complaints(artifact.format, file) == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"PatientIdentityRemoved": "YES"}, "patient_identity_removed"),
        (
            {**REMOVED, "DeidentificationMethodCodeSequence": [coded("x" * 17)]},
            "deidentification_method_code_sequence",
        ),
        ({"PatientOrientation": ["X", "Y"]}, "patient_orientation"),
        ({"PatientOrientation": ["LR", "F"]}, "patient_orientation"),
        ({"Laterality": "Q"}, "laterality"),
        ({"StudyDate": "20230231"}, "study_date"),
        ({"Manufacturer": "m" * 65}, "manufacturer"),
        ({"Manufacturer": "Maker", "StationName": "s" * 17}, "station_name"),
        (
            {"IssuerOfPatientIDQualifiersSequence": [item(UniversalEntityIDType="i/s/o")]},
            "issuer_of_patient_id_qualifiers_sequence",
        ),
        (
            {"OtherPatientIDsSequence": [item(PatientID="X", IssuerOfPatientID="H")]},
            "other_patient_ids_sequence",
        ),
        (
            {"IssuerOfPatientIDQualifiersSequence": [NAMED, NAMED]},
            "issuer_of_patient_id_qualifiers_sequence",
        ),
        (
            {"IssuerOfAccessionNumberSequence": [item(LocalNamespaceEntityID="")]},
            "issuer_of_accession_number_sequence",
        ),
        (
            {"ProcedureCodeSequence": [item(CodeValue="1", CodingSchemeDesignator="L")]},
            "procedure_code_sequence",
        ),
        (
            {"PatientSpeciesCodeSequence": [item(**CANINE, LongCodeValue="448771007")]},
            "patient_species_code_sequence",
        ),
        (
            {"ReferringPhysicianIdentificationSequence": [item(InstitutionName="Clinic")]},
            "referring_physician_identification_sequence",
        ),
        ({**ANIMAL, "PatientSexNeutered": "X"}, "patient_sex_neutered"),
        ({"ClinicalTrialSponsorName": "Sponsor"}, "clinical_trial_sponsor_name"),
        ({"ResponsiblePerson": "Owner^Olga"}, "responsible_person"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_not_is_left_out_and_told(drawn, tmp_path, said, told):
    made = drawn(**said)
    assert f"left_out_{told}" in made.record.facts.warnings
    ((_, file),), _ = write(made, ["dicom_sc"], tmp_path)
    ds = pydicom.dcmread(file)
    for keyword in set(said) - {"Manufacturer", "StationName"} - (set(ANIMAL) - LEFT_OUT):
        assert keyword not in ds or ds[keyword].is_empty
    assert complaints("dicom_sc", file) == []
