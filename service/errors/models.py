"""What fails in a model: its package, its server, its passes, its methods."""

from service.errors.base import Kind, WhylightError


class InvalidPackage(WhylightError):
    """A model package whose manifest or files do not hold."""

    kind = Kind.CALLER
    code = "invalid_package"
    title = "The model package is not valid"


class ModelUnavailable(WhylightError):
    """The model's package is damaged, or its self-test failed."""

    kind = Kind.OURS
    code = "model_unavailable"
    title = "The model cannot be loaded"


class ModelDoesNotFit(ModelUnavailable):
    """The model takes more memory than the worker may use."""

    code = "model_does_not_fit"
    title = "The model does not fit the worker's memory"


class ModelCrashed(ModelUnavailable):
    """Workers ended while they loaded the model, more often than is allowed."""

    code = "model_crashed"
    title = "Workers ended while they loaded the model"


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


class ModelError(WhylightError):
    """The model raised an error on this job's rows."""

    kind = Kind.OURS
    code = "model_error"
    title = "The model failed"


class RemoteError(WhylightError):
    """The server refused or failed to answer a request that is as the protocol says."""

    kind = Kind.OURS
    code = "remote_error"
    title = "The model's server failed"


class RemoteMalformed(RemoteError):
    """What the server sent is no answer by the protocol."""

    code = "remote_malformed"
    title = "The server's answer cannot be read"


class NonFiniteScore(WhylightError):
    """The model's score is not a finite number on this image."""

    kind = Kind.DATA
    code = "non_finite_score"
    title = "The model's score is not finite"


class SurrogateDisagrees(WhylightError):
    """The network that stands in for the model says something else than the model here."""

    kind = Kind.DATA
    code = "surrogate_disagrees"
    title = "The substitute says something else than the model"


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
