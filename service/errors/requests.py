"""What is wrong with a request: its fields, its body, its key, or what it asks of whom."""

from typing_extensions import override

from service.errors.base import Kind, WhylightError


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
    """None of the accepted content types can be given, or a format does not suit the map."""

    kind = Kind.CALLER
    code = "not_acceptable"
    title = "This cannot be given in the form that was asked for"
