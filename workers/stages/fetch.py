"""Fetch: what the job names, brought into its scratch folder."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from service import paths
from service.acceptance import (
    choose_frame,
    choose_instance,
    choose_series,
    has_unread,
    left_out,
    narrowed,
)
from service.bags import choose_bag, views_of
from service.domain.inputs import Input
from service.domain.manifest import Manifest
from service.domain.request import ExplanationRequest
from service.domain.study import Instance, Study
from service.domain.view import View
from service.errors.jobs import DamagedObject
from service.errors.requests import Gone
from service.queue.base import Lease
from service.store.base import BlobStore
from service.views import choose_views
from workers.parcels import Fetched, SourceFile

SOURCE: Final = "source"
"""Folder of the objects as they were sent."""


def fetch(
    lease: Lease,
    manifest: Manifest,
    store: BlobStore,
    scratch: Path,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Fetched:
    """Bring the study's one image, its one series, its views or its bag, that fit the model.

    Parameters
    ----------
    on_progress
        Called after each object with the share that is done; what it raises
        ends the work.

    Raises
    ------
    Gone
        The study was removed after the job was accepted.
    NotAcceptedByModel, TooFewSlices, TooFewImages, MissingView, AmbiguousStudy, NotFound,
    InvalidRequest
        Nothing fits, or several do, or what is named does not exist.
    DamagedObject
        The stored bytes are not those that were taken in.
    StoreUnavailable
        The store does not answer.
    """
    job = lease.job
    request = ExplanationRequest.model_validate_json(job.request)
    accept = manifest.image.accept
    folder = scratch / SOURCE
    folder.mkdir()
    sources = []
    try:
        study = Study.model_validate_json(store.get(paths.study_record(job.tenant, request.study)))
        instances, views = _chosen(study, manifest.image, request)
        frame = 1 if accept.volume or views else choose_frame(instances[0], request.frame)
        for count, instance in enumerate(instances, 1):
            sources.append(_bring(instance, store, folder))
            on_progress(count / len(instances))
        named = {str(each.instance) for each in request.segments}
        marks = [each for each in study.instances if each.is_segmentation and each.id in named]
        segmentations = {each.id: _bring(each, store, folder) for each in marks}
        asked = [each for each in study.instances if each.id in request.references]
        references = [_bring(each, store, folder) for each in asked]
    except FileNotFoundError:
        raise Gone("The study was removed before it was explained; send it again.") from None
    fetched = Fetched(
        lease=lease,
        request=request,
        manifest=manifest,
        instance=sources[0].instance,
        file=sources[0].file,
        scratch=scratch,
        frame=frame,
        series=() if accept.volume is None else tuple(sources),
        left_out=left_out(study, accept, instances, several=bool(views)),
        unread=has_unread(study),
        segmentations=segmentations,
    )
    fetched = replace(
        fetched, references=tuple(_held_against(fetched, each) for each in references)
    )
    apart = zip(views, sources, strict=False)
    return replace(fetched, views=tuple(_alone(fetched, *each, instances) for each in apart))


def _chosen(
    study: Study, image: Input, request: ExplanationRequest
) -> tuple[tuple[Instance, ...], tuple[View, ...]]:
    """Return what is explained; of several images that are seen at once, which is which."""
    if image.views:
        by_view = choose_views(study, image.accept, image.views, request)
        return tuple(by_view.values()), image.views
    if image.images is not None:
        bag = choose_bag(study, image.accept, image.images, request)
        return bag, views_of(bag)
    if image.accept.volume is not None:
        return choose_series(study, image.accept, request).instances, ()
    asked = narrowed(study, request.series)
    return (choose_instance(asked, image.accept, request.instance),), ()


def _alone(
    fetched: Fetched, view: View, source: SourceFile, every: tuple[Instance, ...]
) -> Fetched:
    """Return one view by itself, with a folder of its own."""
    folder = fetched.scratch / f"view_{view.key}"
    folder.mkdir()
    return replace(
        fetched,
        instance=source.instance,
        file=source.file,
        scratch=folder,
        view=view,
        seen_with=every,
    )


def _held_against(fetched: Fetched, source: SourceFile) -> Fetched:
    """Return an image that the one explained is held against, with a folder of its own."""
    folder = fetched.scratch / f"reference_{source.instance.id}"
    folder.mkdir()
    return replace(
        fetched, instance=source.instance, file=source.file, scratch=folder, frame=1, left_out=()
    )


def _bring(instance: Instance, store: BlobStore, folder: Path) -> SourceFile:
    """Copy one object, and hold it against its digest."""
    file = folder / f"{instance.id}.dcm"
    store.fetch(instance.path, file)
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != instance.sha256:
            raise DamagedObject("The stored image is damaged; send the study again.")
    return SourceFile(instance, file)
