"""Where things lie in the object store: one place that spells paths.

A result prefix ends in the lease token, so a worker that lost its lease can
never write over what another published.
"""

MANIFEST_NAME = "model.yaml"
DOCUMENT_NAME = "job.json"
STUDY_NAME = "study.json"


def studies(tenant: str) -> str:
    """Folder of a tenant's studies."""
    return f"{tenant}/studies"


def study(tenant: str, study_id: str) -> str:
    """Folder of one study: its record and its objects."""
    return f"{studies(tenant)}/{study_id}"


def study_record(tenant: str, study_id: str) -> str:
    """Path of a study's record."""
    return f"{study(tenant, study_id)}/{STUDY_NAME}"


def instance(tenant: str, study_id: str, instance_id: str) -> str:
    """Path of one DICOM object as it was sent."""
    return f"{study(tenant, study_id)}/{instance_id}.dcm"


def holdings(tenant: str, study_digest: str) -> str:
    """Folder of the notes of which uploads hold one study of the archive."""
    return f"{tenant}/holdings/{study_digest}"


def holding(tenant: str, study_digest: str, contents: str, study_id: str) -> str:
    """Path of the note that an upload holds a study with these contents."""
    return f"{holdings(tenant, study_digest)}/{contents}.{study_id}"


def additions(tenant: str, study_digest: str) -> str:
    """Folder of the notes of what explanations added to one study of the archive."""
    return f"{tenant}/additions/{study_digest}"


def addition(tenant: str, study_digest: str, name: str, job_id: str, objects: int) -> str:
    """Path of the note of one series to which a job adds so many objects."""
    return f"{additions(tenant, study_digest)}/{name}.{job_id}.{objects}"


def job(tenant: str, job_id: str) -> str:
    """Folder of everything that workers wrote for a job."""
    return f"{tenant}/jobs/{job_id}"


def result(tenant: str, job_id: str, token: str) -> str:
    """Prefix under which the holder of one lease writes."""
    return f"{job(tenant, job_id)}/{token}"


def document(prefix: str) -> str:
    """Path of the explanation document below a result prefix."""
    return f"{prefix}/{DOCUMENT_NAME}"


def artifact(prefix: str, name: str) -> str:
    """Path of an artifact below a result prefix."""
    return f"{prefix}/{name}"
