"""Settings, read once from ``WHYLIGHT_*`` variables and handed down.

Nested values are written with two underscores: ``WHYLIGHT_QUEUE__URL``.
"""

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.domain.value import Name

MIB = 1024 * 1024
PREFIX = "WHYLIGHT_"


def _seconds(value: object) -> object:
    """Read a bare number as seconds; leave ISO 8601 and the rest to pydantic."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds)]
"""A span of time, written in seconds (``9``) or as ISO 8601 (``PT9S``)."""


def _address(value: str) -> str:
    """Return an address of scheme, host, port and path alone."""
    parts = urlsplit(value)
    _ = parts.port  # raises where it is no number
    strange = parts.username or parts.password or parts.query or parts.fragment
    if parts.scheme not in {"http", "https"} or not parts.hostname or strange:
        raise ValueError("it must be http://host or https://host, with a port and a path at most")
    return value.rstrip("/")


Endpoint = Annotated[str, AfterValidator(_address)]
"""The address of a server."""


class QueueSettings(BaseModel):
    """Redis and the leases."""

    url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Redis or Valkey, 6.2 or newer; also unix:///path/to/socket.",
    )
    password: SecretStr | None = Field(default=None, description="Password of Redis.")
    prefix: str = Field(default="wl", description="First part of every key.")
    lease: Duration = Field(
        default=timedelta(seconds=9),
        description="A job whose worker is silent for this long goes to another.",
    )
    renew: Duration = Field(
        default=timedelta(seconds=2), description="How often a worker renews and sweeps."
    )
    attempts: int = Field(
        default=3, ge=1, description="Lost workers after which a job is a dead letter."
    )
    capacity: Duration = Field(
        default=timedelta(hours=1),
        description="Device time that may wait in a pool before submits are refused.",
    )
    keep: Duration = Field(
        default=timedelta(days=7), description="How long an ended job's record stays in Redis."
    )


class StoreSettings(BaseModel):
    """The object store."""

    url: str = Field(
        default="file:///var/lib/whylight",
        description="file:///folder, or s3://bucket/prefix with AWS_* credentials.",
    )
    inputs_for: Duration = Field(
        default=timedelta(hours=24), description="How long a study stays after it came in."
    )
    results_for: Duration = Field(
        default=timedelta(days=7), description="How long results stay after the job ended."
    )
    reserve_bytes: int = Field(
        default=512 * MIB,
        description="Free space under which a local store takes nothing more (507).",
    )


class LimitSettings(BaseModel):
    """What one request may bring."""

    body_bytes: int = Field(default=2048 * MIB, description="Largest body of an upload.")
    scratch_bytes: int = Field(
        default=4096 * MIB, description="Disk that all uploads on their way may take together."
    )
    json_bytes: int = Field(default=64 * 1024, description="Largest JSON body.")
    instances: int = Field(default=2000, description="Most objects in one upload.")
    archive_entries: int = Field(default=20_000, description="Most entries in a zip archive.")
    archive_ratio: int = Field(
        default=100, description="Largest expansion of an entry beyond its free bytes."
    )
    archive_free_bytes: int = Field(
        default=64 * MIB,
        description="Bytes that an entry may expand to whatever its ratio: masks compress well.",
    )
    pixels: int = Field(
        default=128 * 1024 * 1024,
        description="Most samples (rows x columns x samples) in one frame.",
    )
    voxels: int = Field(
        default=256 * 1024 * 1024, description="Most voxels in a series explained as one volume."
    )
    study_series: int = Field(
        default=100,
        ge=0,
        description="Most DICOM series that explanations may add to one study, ever.",
    )
    study_objects: int = Field(
        default=5000,
        ge=0,
        description="Most DICOM objects that explanations may add to one study, ever.",
    )
    wait: Duration = Field(
        default=timedelta(seconds=60), description="Longest wait that a caller may ask for."
    )


class HttpSettings(BaseModel):
    """Where the gateway listens."""

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; loopback unless you say so."
    )
    port: int = Field(default=8080, description="Port of the API.")
    metrics_port: int = Field(default=9464, description="Prometheus port; 0 switches it off.")
    public_url: str | None = Field(
        default=None, description="Address that callers see, for links; else the request's own."
    )
    scratch: Path | None = Field(default=None, description="Folder for uploads on their way.")


class WorkerSettings(BaseModel):
    """One worker process."""

    name: str | None = Field(
        default=None, description="Stable name; a restart under it takes its own jobs back."
    )
    pool: str = Field(
        default="default",
        description="Which queue it works off. A gateway reads it too: for probes of models that"
        " are registered while no worker is alive.",
    )
    device: str = Field(default="auto", description="'auto', 'cpu' or 'cuda:0'.")
    threads: int = Field(default=1, ge=1, description="Torch threads; more collapses on CPU.")
    memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Memory of the device that models and batches may take together. Default: four"
        " fifths of what is free on a GPU at the start, or half of what host and container leave.",
    )
    slots: int = Field(default=2, ge=1, description="Supervised processes for CPU stages.")
    jobs: int = Field(default=4, ge=1, description="Jobs led at once.")
    slice: Duration = Field(
        default=timedelta(milliseconds=50),
        description="Longest batch, in device time; four times as much while a job is alone.",
    )
    fixed_rows: int | None = Field(
        default=None,
        ge=1,
        description="Deterministic mode: pad every batch to this many rows, so that a map's bits do"
        " not depend on the jobs beside it. A job alone then costs as much as a full batch.",
    )
    decode_limit: Duration = Field(
        default=timedelta(seconds=30), description="A decoder silent for this long is ended."
    )
    decode_bytes: int = Field(
        default=4096 * MIB, description="Address space of one decoding process."
    )
    job_limit: Duration = Field(
        default=timedelta(minutes=15),
        description="Time from a job's start by which its model must have answered; methods that"
        " have not ended by then give a partial map or 'deadline_exceeded'. Drawing and storing"
        " come after it and have limits of their own.",
    )
    load_limit: Duration = Field(
        default=timedelta(minutes=10),
        description="Longest time of one step of loading a model: its trial runs, or a self-test.",
    )
    grace: Duration = Field(
        default=timedelta(seconds=30), description="Time to finish jobs after SIGTERM."
    )
    metrics_port: int = Field(default=0, description="Prometheus port; 0 switches it off.")
    metrics_host: str = Field(default="127.0.0.1", description="Address of the Prometheus port.")
    scratch: Path | None = Field(default=None, description="Folder for work in hand.")


class RemoteSettings(BaseModel):
    """Inference servers that models may run on."""

    endpoints: dict[Name, Endpoint] = Field(
        default={},
        description="Inference servers that workers may send images to, by name, as JSON:"
        ' {"triton": "https://triton.example:8000"}. No other address is ever asked.',
    )
    timeout: Duration = Field(
        default=timedelta(seconds=30),
        gt=timedelta(0),
        description="Longest wait for an inference server's answer.",
    )

    def endpoint(self, wanted: str) -> tuple[str, str] | None:
        """Return the name and address of an endpoint, by either; `None` if it is not listed."""
        wanted = wanted.rstrip("/")
        return next((each for each in self.endpoints.items() if wanted in each), None)


class Settings(BaseSettings):
    """All settings of gateway, worker and command."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")

    queue: QueueSettings = QueueSettings()
    store: StoreSettings = StoreSettings()
    limits: LimitSettings = LimitSettings()
    http: HttpSettings = HttpSettings()
    worker: WorkerSettings = WorkerSettings()
    remote: RemoteSettings = RemoteSettings()
    log_level: str = Field(
        default="INFO", description="Least weighty log lines: DEBUG, INFO, WARNING or ERROR."
    )


def variable(location: tuple[int | str, ...]) -> str:
    """Return the variable that sets a field of the settings."""
    return PREFIX + "__".join(str(part) for part in location).upper()


def faults(error: ValidationError) -> list[str]:
    """Tell what is wrong with which variable, never its value: it may be a secret."""
    each = error.errors(include_url=False, include_input=False, include_context=False)
    return [f"{variable(fault['loc'])}: {fault['msg']}" for fault in each]


def settings_or_exit() -> Settings:
    """Return the environment's settings, or end the process with one line for each fault."""
    try:
        return Settings()
    except ValidationError as error:
        sys.exit("\n".join(["The settings are not valid.", *faults(error)]))
