"""The document of a job on its way into the store and out of it: whole, or not at all."""

import json

from pydantic import ValidationError

from service.domain.explanation import Explanation, sealed, verify_seal
from service.errors.jobs import ResultDamaged


def written(explanation: Explanation, job_id: str) -> bytes:
    """Return the bytes of a document, sealed.

    Raises
    ------
    ResultDamaged
        It is not of this job, or a map in it is not.
    """
    _demand_own(explanation, job_id)
    return sealed(explanation).model_dump_json().encode()


def read(data: bytes, job_id: str) -> Explanation:
    """Return the document of a job.

    Raises
    ------
    ResultDamaged
        It was changed after it was sealed, or it is not of this job.
    """
    explanation = opened(data)
    _demand_own(explanation, job_id)
    return explanation


def opened(data: bytes) -> Explanation:
    """Return the document that these bytes are, of whatever job.

    Raises
    ------
    ResultDamaged
        It was changed after it was sealed, or it lacks a field.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or not verify_seal(document):
            raise ResultDamaged(
                "The explanation's document was changed after it was written: its seal does not"
                " hold."
            )
        return Explanation.model_validate(document)
    except ValidationError as error:
        raise ResultDamaged(_unfit(error)) from None
    except (ValueError, RecursionError):
        raise ResultDamaged("The explanation's document cannot be read any more.") from None


def _unfit(error: ValidationError) -> str:
    """Tell which fields a document lacks; what it has too much of is not repeated."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    lacking = [".".join(map(str, each["loc"])) for each in found if each["type"] == "missing"]
    if lacking:
        return f"The explanation's document lacks {', '.join(lacking)}."
    return "The explanation's document holds what no document may hold."


def _demand_own(explanation: Explanation, job_id: str) -> None:
    """Hold a document against the job that it is said to be of."""
    if explanation.id != job_id or not explanation.coherent:
        raise ResultDamaged("The explanation's document is not of this job.")
