"""Which cases are chosen, and which calibration sets do not serve."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from workers.certify.cases import NotCertifiable, choose, read_cases

SHAPE = (1, 6, 5)


def manifest(classes=3, task="classification-multilabel"):
    image = SimpleNamespace(several=False)
    return SimpleNamespace(classes=(None,) * classes, task=task, image=image)


def labels(count=30, classes=3):
    """Return labels where case ``i`` shows class ``i`` modulo the classes alone."""
    return torch.eye(classes, dtype=torch.uint8).repeat(count, 1)[:count]


def images(count=30):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(3))


def written(tmp_path: Path, **tensors) -> Path:
    path = tmp_path / "cases.safetensors"
    save_file({"images": images(), "labels": labels(), **tensors}, path)
    return path


def test_classes_take_turns_and_no_case_comes_twice():
    table = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]], bool)
    assert choose(table, 4) == [(0, 0), (2, 1), (3, 2), (1, 0)]
    assert choose(table, 10) == choose(table, 4)
    assert choose(table, 2) == [(0, 0), (2, 1)]


def test_a_case_has_its_target_another_class_that_is_absent_and_all_that_are_present(tmp_path):
    table = labels()
    table[0] = torch.tensor([1, 1, 0])
    path = written(tmp_path, labels=table)
    cases = read_cases(path, manifest(), SHAPE)
    assert len(cases) == 24
    first = cases[0]
    assert (first.target, first.other, first.present) == (0, 2, (0, 1))
    assert first.explained == (0, 2, 1)
    assert torch.equal(first.image, images()[0])
    assert {case.other for case in cases if case.target == 1} == {0, 2}


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool])
def test_labels_may_be_of_any_type(tmp_path, dtype):
    path = written(tmp_path, labels=labels().to(dtype))
    assert len(read_cases(path, manifest(), SHAPE)) == 24


def test_a_model_of_one_class_has_no_other(tmp_path):
    path = written(tmp_path, labels=labels(classes=1))
    assert {case.other for case in read_cases(path, manifest(1), SHAPE)} == {None}


@pytest.mark.parametrize(
    ("task", "others"),
    [("classification-multiclass", {None}), ("classification-multilabel", {0, 1})],
)
def test_two_exclusive_classes_mirror_each_other_and_are_not_compared(tmp_path, task, others):
    path = written(tmp_path, labels=labels(classes=2))
    assert {case.other for case in read_cases(path, manifest(2, task), SHAPE)} == others


@pytest.mark.parametrize(
    "spoiled",
    [
        {"labels": labels(classes=2)},
        {"labels": labels().flatten()},
        {"labels": 2 * labels()},
        {"labels": labels().float() * float("nan")},
        {"labels": labels(29)},
        {"images": images()[..., :4].contiguous()},
        {"images": torch.full((30, *SHAPE), float("nan"))},
        {"images": torch.zeros((30, *SHAPE), dtype=torch.uint8)},
    ],
)
def test_a_set_that_does_not_fit_the_model_is_refused(tmp_path, spoiled):
    with pytest.raises(NotCertifiable) as caught:
        read_cases(written(tmp_path, **spoiled), manifest(), SHAPE)
    assert caught.value.reason == "invalid_calibration_set"


@pytest.mark.parametrize("content", [None, b"", b"no tensors"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "cases.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotCertifiable, match="invalid_calibration_set"):
        read_cases(path, manifest(), SHAPE)


def test_too_few_cases_that_show_a_class_are_said_to_be_so(tmp_path):
    table = labels()
    table[:7] = 0
    with pytest.raises(NotCertifiable, match="too_few_cases"):
        read_cases(written(tmp_path, labels=table), manifest(), SHAPE)
