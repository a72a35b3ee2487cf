"""What ends a job or keeps it waiting: queue, store, workers and their slots."""

from service.errors.base import Kind, WhylightError


class Cancelled(WhylightError):
    """The caller cancelled the job."""

    kind = Kind.CALLER
    code = "cancelled"
    title = "The job was cancelled"


class DeadlineExceeded(WhylightError):
    """The time of the job, or its time alone with the model, is up; the detail says which."""

    kind = Kind.CALLER
    code = "deadline_exceeded"
    title = "Time is up"


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


class QueueFull(WhylightError):
    """More work waits than is allowed."""

    kind = Kind.WAIT
    code = "queue_full"
    title = "The queue is full"


class NoWorker(WhylightError):
    """No worker is alive that could serve the request."""

    kind = Kind.WAIT
    code = "no_worker"
    title = "No worker is alive"


class Draining(WhylightError):
    """The process is shutting down."""

    kind = Kind.WAIT
    code = "draining"
    title = "The service is shutting down"


class OutOfStorage(WhylightError):
    """The store's watermark is reached."""

    kind = Kind.WAIT
    code = "out_of_storage"
    title = "The store is full"
