"""Every failure of the house: whose move is next, a stable code, a safe text.

A :class:`WhylightError` may be shown to anyone. Its texts are written for the
person who must act, and are made only of words of ours, names out of the
catalog and numbers; never of values out of a study, a file name or another
exception's text. An exception that is no `WhylightError` is a bug and is
never shown.
"""

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue
from typing_extensions import override


class Kind(StrEnum):
    """Whose move is next after a failure."""

    CALLER = "caller"  # the request must change
    WAIT = "wait"  # the same request may succeed later
    DATA = "data"  # the study cannot be explained as it is
    OURS = "ours"  # a fault in the service


class Failure(BaseModel):
    """A failure as a record: what a job keeps and a problem document shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    code: str
    title: str
    detail: str
    facts: dict[str, JsonValue] = {}


class WhylightError(Exception):
    """Base of every failure that the service foresees.

    Parameters
    ----------
    detail
        What is wrong here and what to do, in our own words.
    pointer
        JSON Pointer to the offending field of the request, if there is one.
    facts
        Machine-readable particulars: limits, observed numbers, valid names.
    """

    kind: ClassVar[Kind] = Kind.OURS
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The service failed"

    def __init__(self, detail: str, *, pointer: str | None = None, **facts: JsonValue) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.facts = facts

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind is Kind.WAIT

    def failure(self) -> Failure:
        """Return this failure as a record."""
        return Failure(
            kind=self.kind,
            code=self.code,
            title=self.title,
            detail=self.detail,
            facts=self.facts,
        )


class JobFailure(WhylightError):
    """A failure read back from a record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.facts = failure.facts
        self.record = failure

    @override
    def failure(self) -> Failure:
        """Return the record as it was read."""
        return self.record


# ---------------------------------------------------------------- the request


class InvalidRequest(WhylightError):
    """A field of the request is missing, misspelt or out of range."""

    kind = Kind.CALLER
    code = "invalid_request"
    title = "The request is not valid"


class MalformedBody(WhylightError):
    """The body cannot be read as what its content type says."""

    kind = Kind.CALLER
    code = "malformed_body"
    title = "The body cannot be read"


class UnknownModel(WhylightError):
    """No such model, or no such version of it."""

    kind = Kind.CALLER
    code = "unknown_model"
    title = "No such model"


class UnknownMethod(WhylightError):
    """No worker knows this method."""

    kind = Kind.CALLER
    code = "unknown_method"
    title = "No such method"


class UnknownFormat(WhylightError):
    """No worker can write this artifact format."""

    kind = Kind.CALLER
    code = "unknown_format"
    title = "No such artifact format"


class InvalidParameter(WhylightError):
    """A method's parameter is unknown or out of range."""

    kind = Kind.CALLER
    code = "invalid_parameter"
    title = "A method parameter is not valid"


class InvalidTarget(WhylightError):
    """The model has no such target."""

    kind = Kind.CALLER
    code = "invalid_target"
    title = "The model has no such target"


class MissingAbility(WhylightError):
    """The method needs something that this model's runtime cannot give."""

    kind = Kind.CALLER
    code = "method_not_applicable"
    title = "The model cannot serve this method"


class MethodUncertified(WhylightError):
    """The method's certificate for this model failed: its maps do not show what it learned."""

    kind = Kind.CALLER
    code = "method_uncertified"
    title = "The method failed its certificate for this model"


class PrecisionNotOffered(WhylightError):
    """The method's maps of this model are not known to be near enough in this precision."""

    kind = Kind.CALLER
    code = "precision_not_offered"
    title = "The precision is not offered for this method and model"


class NotFound(WhylightError):
    """No such resource, or it is another tenant's."""

    kind = Kind.CALLER
    code = "not_found"
    title = "No such resource"


class Gone(WhylightError):
    """The resource was purged."""

    kind = Kind.CALLER
    code = "gone"
    title = "The resource was removed"


class NotReady(WhylightError):
    """The result does not exist yet."""

    kind = Kind.CALLER
    code = "result_not_ready"
    title = "The result is not ready"

    @property
    @override
    def retryable(self) -> bool:
        """Whether the same request may succeed later: once the job has ended."""
        return True


class Conflict(WhylightError):
    """The resource is in a state that forbids this."""

    kind = Kind.CALLER
    code = "conflict"
    title = "The resource's state forbids this"


class StudyFull(WhylightError):
    """Explanations have added, or would add, as much to the study as they may."""

    kind = Kind.CALLER
    code = "study_full"
    title = "The study has as many explanations as it may have"


class KeyReused(WhylightError):
    """The same Idempotency-Key came with another body."""

    kind = Kind.CALLER
    code = "idempotency_key_reused"
    title = "The idempotency key belongs to another request"


class Unauthenticated(WhylightError):
    """No key, or a wrong, expired or revoked one."""

    kind = Kind.CALLER
    code = "unauthenticated"
    title = "A valid API key is needed"


class Forbidden(WhylightError):
    """The key lacks the scope."""

    kind = Kind.CALLER
    code = "forbidden"
    title = "The API key does not allow this"


class TooLarge(WhylightError):
    """A body, archive or count is over its limit."""

    kind = Kind.CALLER
    code = "too_large"
    title = "The request is over a limit"


class ArchiveTooLarge(TooLarge):
    """A zip archive expands too far: beyond the allowed ratio, or to too many bytes."""

    code = "archive_too_large"
    title = "The archive expands too far"


class UnsafeArchive(WhylightError):
    """A zip archive that could harm: path escape, link, encryption, an archive within."""

    kind = Kind.CALLER
    code = "unsafe_archive"
    title = "The archive was refused"


class UnsupportedMediaType(WhylightError):
    """The body's content type is not one we read."""

    kind = Kind.CALLER
    code = "unsupported_media_type"
    title = "The content type is not supported"


class NotAcceptable(WhylightError):
    """None of the accepted content types can be given."""

    kind = Kind.CALLER
    code = "not_acceptable"
    title = "None of the accepted types can be given"


class InvalidPackage(WhylightError):
    """A model package whose manifest or files do not hold."""

    kind = Kind.CALLER
    code = "invalid_package"
    title = "The model package is not valid"


# ------------------------------------------------------------------ the study


class SeveralStudies(WhylightError):
    """An upload holds images of more than one study, maybe of more than one patient."""

    kind = Kind.CALLER
    code = "several_studies"
    title = "The upload holds images of several studies"


class SeveralPatients(WhylightError):
    """An upload holds images of one study that name different patients."""

    kind = Kind.CALLER
    code = "several_patients"
    title = "The upload holds images of several patients"


class ContradictoryObjects(WhylightError):
    """An upload holds different objects under one SOP Instance UID."""

    kind = Kind.CALLER
    code = "contradictory_objects"
    title = "The upload holds different objects of one identity"


class StudyContradicted(WhylightError):
    """The study is held already, with another patient or other objects of the same identity."""

    kind = Kind.CALLER
    code = "study_contradicted"
    title = "The study contradicts one that is held"


class NotDicom(WhylightError):
    """The bytes are not a DICOM object."""

    kind = Kind.DATA
    code = "not_dicom"
    title = "Not a DICOM object"


class TruncatedDicom(WhylightError):
    """The DICOM object ends before its data does."""

    kind = Kind.DATA
    code = "truncated"
    title = "The DICOM object is truncated"


class NoPixelData(WhylightError):
    """The DICOM object holds no image."""

    kind = Kind.DATA
    code = "no_pixel_data"
    title = "The DICOM object holds no image"


class AbsurdDimensions(WhylightError):
    """The image's declared numbers are impossible or over the limit."""

    kind = Kind.DATA
    code = "absurd_dimensions"
    title = "The declared image size is impossible or over the limit"


class UnsupportedTransferSyntax(WhylightError):
    """The pixels are compressed in a way that no maintained decoder reads."""

    kind = Kind.DATA
    code = "unsupported_transfer_syntax"
    title = "The transfer syntax is not supported"


class UnsupportedImage(WhylightError):
    """An image of a form that is not read yet (multi-frame, palette, ...)."""

    kind = Kind.DATA
    code = "unsupported_image"
    title = "This form of image is not supported"


class UndecodablePixels(WhylightError):
    """The decoder failed, crashed or hung on the pixels."""

    kind = Kind.DATA
    code = "undecodable_pixels"
    title = "The pixels cannot be decoded"


class NothingUsable(WhylightError):
    """Not one of several objects that were sent could be kept."""

    kind = Kind.DATA
    code = "nothing_usable"
    title = "No object could be kept"


class NotAcceptedByModel(WhylightError):
    """No image of the study is what the model was made for."""

    kind = Kind.DATA
    code = "not_accepted_by_model"
    title = "The study is not what the model was made for"


class SingleImageModel(WhylightError):
    """A volume was named, and the model takes single images."""

    kind = Kind.CALLER
    code = "single_image_model"
    title = "The model takes single images"


class AmbiguousStudy(WhylightError):
    """More than one image fits and the request names none."""

    kind = Kind.CALLER
    code = "ambiguous_study"
    title = "More than one image fits"


class TooFewSlices(WhylightError):
    """The series has fewer slices than the model needs."""

    kind = Kind.DATA
    code = "too_few_slices"
    title = "Too few slices"


class NoSliceGeometry(WhylightError):
    """A slice does not say where it lies in the patient."""

    kind = Kind.DATA
    code = "no_slice_geometry"
    title = "The slices have no place in the patient"


class MixedSlices(WhylightError):
    """The slices differ in orientation, spacing, size or frame of reference."""

    kind = Kind.DATA
    code = "mixed_slices"
    title = "The slices do not form one volume"


class DuplicateSlices(WhylightError):
    """Several slices lie at one place."""

    kind = Kind.DATA
    code = "duplicate_slices"
    title = "Several slices lie at one place"


class MissingSlices(WhylightError):
    """The steps from slice to slice are multiples of the least: some lack."""

    kind = Kind.DATA
    code = "missing_slices"
    title = "Slices are missing"


class IrregularSlices(WhylightError):
    """The slices are not evenly spaced; nothing is averaged."""

    kind = Kind.DATA
    code = "irregular_slices"
    title = "The slices are not evenly spaced"


class ShearedVolume(WhylightError):
    """The slices are shifted against each other, and the model was not made for that."""

    kind = Kind.DATA
    code = "sheared_volume"
    title = "The slices lie aslant"


class NonFiniteScore(WhylightError):
    """The model's score is not a finite number on this image."""

    kind = Kind.DATA
    code = "non_finite_score"
    title = "The model's score is not finite"


class ParityMismatch(WhylightError):
    """The model says something else on this image than the issuing AI was observed to say."""

    kind = Kind.DATA
    code = "parity_mismatch"
    title = "Not the observed result"


class MissingValue(WhylightError):
    """A number that the model takes beside the image is nowhere given, or off its range."""

    kind = Kind.DATA
    code = "missing_value"
    title = "The model lacks a value beside the image"


class SurrogateDisagrees(WhylightError):
    """The network that stands in for the model says something else than the model here."""

    kind = Kind.DATA
    code = "surrogate_disagrees"
    title = "The substitute says something else than the model"


class FormatNotApplicable(WhylightError):
    """The map, or its source image, cannot be written in this format; others can."""

    kind = Kind.DATA
    code = "format_not_applicable"
    title = "The format does not suit this map"


class NothingToExplain(WhylightError):
    """No output is above its threshold."""

    kind = Kind.DATA
    code = "nothing_above_threshold"
    title = "No finding is above its threshold"


# ------------------------------------------------------------------- capacity


class QueueUnavailable(WhylightError):
    """Redis does not answer."""

    kind = Kind.WAIT
    code = "queue_unavailable"
    title = "The queue does not answer"


class StoreUnavailable(WhylightError):
    """The object store does not answer."""

    kind = Kind.WAIT
    code = "store_unavailable"
    title = "The object store does not answer"


class NoWorker(WhylightError):
    """No worker is alive that could serve the request."""

    kind = Kind.WAIT
    code = "no_worker"
    title = "No worker is alive"


class QueueFull(WhylightError):
    """More work waits than is allowed."""

    kind = Kind.WAIT
    code = "queue_full"
    title = "The queue is full"


class Draining(WhylightError):
    """The process is shutting down."""

    kind = Kind.WAIT
    code = "draining"
    title = "The service is shutting down"


class ModelSilent(WhylightError):
    """The server that a model runs on does not answer, or not yet."""

    kind = Kind.WAIT
    code = "model_silent"
    title = "The model's server does not answer"


class RemoteUnreachable(ModelSilent):
    """No connection, no answer in time, or one that says to try again later."""

    code = "remote_unreachable"


class RemoteNotReady(ModelSilent):
    """The server answers, and says that it or the model is not ready."""

    code = "remote_not_ready"
    title = "The model's server is not ready"


class RemoteChanged(ModelSilent):
    """The server answers for another version, or otherwise than when the model was loaded.

    It is loaded anew, with its self-tests.
    """

    code = "remote_changed"
    title = "The model on the server has changed"


class OutOfStorage(WhylightError):
    """The store's watermark is reached."""

    kind = Kind.WAIT
    code = "out_of_storage"
    title = "The store is full"


# ------------------------------------------------------------- ours and passes


class Cancelled(WhylightError):
    """The caller cancelled the job."""

    kind = Kind.CALLER
    code = "cancelled"
    title = "The job was cancelled"


class DeadlineExceeded(WhylightError):
    """The job's time is up."""

    kind = Kind.CALLER
    code = "deadline_exceeded"
    title = "The job's time is up"


class WorkerLost(WhylightError):
    """Workers died on this job more often than is allowed."""

    kind = Kind.OURS
    code = "worker_lost"
    title = "Workers died on this job"


class StageTimeout(WhylightError):
    """A stage made no progress within its limit."""

    kind = Kind.OURS
    code = "stage_timeout"
    title = "A stage made no progress"


class SlotDied(WhylightError):
    """A supervised process crashed, or needed more memory than it may have."""

    kind = Kind.OURS
    code = "slot_died"
    title = "A supervised process ended"


class DamagedObject(WhylightError):
    """A stored object is not, to the byte, what was taken in."""

    kind = Kind.OURS
    code = "damaged_object"
    title = "A stored object is damaged"


class ResultDamaged(WhylightError):
    """A map, a document or an artifact is not what was computed for this job."""

    kind = Kind.OURS
    code = "result_damaged"
    title = "The result is damaged"


class ModelUnavailable(WhylightError):
    """The model's package is damaged, or its self-test failed."""

    kind = Kind.OURS
    code = "model_unavailable"
    title = "The model cannot be loaded"


class ModelDoesNotFit(ModelUnavailable):
    """The model takes more memory than the worker may use."""

    code = "model_does_not_fit"
    title = "The model does not fit the worker's memory"


class RemoteNotAllowed(ModelUnavailable):
    """The administrator has not listed the server that the model runs on."""

    code = "remote_not_allowed"
    title = "The model's server is not on the list"


class RemoteTensorMismatch(ModelUnavailable):
    """The server's model has no such tensor, or one of another shape."""

    code = "remote_tensor_mismatch"
    title = "The server's tensors are not those of the manifest"


class RemoteWrongDatatype(ModelUnavailable):
    """The server's tensors hold numbers of another type."""

    code = "remote_wrong_datatype"
    title = "The server's tensors are of another type"


class RemoteError(WhylightError):
    """The server refused or failed to answer a request that is as the protocol says."""

    kind = Kind.OURS
    code = "remote_error"
    title = "The model's server failed"


class RemoteMalformed(RemoteError):
    """What the server sent is no answer by the protocol."""

    code = "remote_malformed"
    title = "The server's answer cannot be read"


class ModelError(WhylightError):
    """The model raised an error on this job's rows."""

    kind = Kind.OURS
    code = "model_error"
    title = "The model failed"


class UnservablePass(WhylightError):
    """A method asked for a pass that admission should have refused."""

    kind = Kind.OURS
    code = "unservable_pass"
    title = "The runtime cannot serve this pass"


class LayerNotCaptured(WhylightError):
    """The declared layer was not reached by the forward pass."""

    kind = Kind.OURS
    code = "layer_not_captured"
    title = "The layer was not reached"


class LayerAmbiguous(WhylightError):
    """The declared layer was reached more than once."""

    kind = Kind.OURS
    code = "layer_ambiguous"
    title = "The layer was reached more than once"


class NoGradientPath(WhylightError):
    """No gradient leads from the score to where it is asked."""

    kind = Kind.OURS
    code = "no_gradient_path"
    title = "No gradient path"


class DoesNotFit(WhylightError):
    """Not even one row fits the device's memory."""

    kind = Kind.DATA
    code = "does_not_fit"
    title = "The image does not fit the device"


class MethodError(WhylightError):
    """A method's plan failed by its own fault."""

    kind = Kind.OURS
    code = "method_error"
    title = "The method failed"
