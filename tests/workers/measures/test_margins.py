"""Uniform margins: how wide they are, and whether they are wider than a model's known cases'."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from service.domain.trust import STATEMENTS, Flag
from service.domain.view import View
from tests.support.parcels import manifest
from tests.workers.test_gaps import CLASSES, told
from workers.margins import known_margins, margins
from workers.measures.base import Case
from workers.measures.margins import Margins


def grain(*shape: int) -> NDArray[np.float32]:
    """An image without two values alike."""
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def bordered(width: int, level: float = 0.0) -> NDArray[np.float32]:
    """A grainy image whose last columns are even."""
    image = grain(1, 30, 40)
    image[..., 40 - width :] = level
    return image


@pytest.mark.parametrize("width", [0, 1, 13])
@pytest.mark.parametrize("level", [0.0, 1.0, 0.5])
def test_a_margin_is_found_at_its_edge_in_its_width(width: int, level: float) -> None:
    image, share = bordered(width, level), width / 40
    assert margins(image) == pytest.approx((0, 0, 0, share))
    assert margins(image[..., ::-1]) == pytest.approx((0, 0, share, 0))
    assert margins(image.swapaxes(1, 2)) == pytest.approx((0, share, 0, 0))
    assert margins(image.swapaxes(1, 2)[:, ::-1]) == pytest.approx((share, 0, 0, 0))


def test_an_image_inside_of_a_border_has_four() -> None:
    found = margins(np.pad(grain(1, 30, 40), ((0, 0), (3, 6), (5, 0))))
    assert found == pytest.approx((3 / 39, 6 / 39, 5 / 45, 0))


def test_a_margin_of_one_channel_alone_is_none() -> None:
    assert max(margins(np.concatenate([bordered(8), grain(1, 30, 40)]))) == 0


def test_even_anatomy_behind_an_uneven_line_is_no_margin() -> None:
    image = bordered(8)
    image[..., -1] = grain(1, 30)
    assert max(margins(image)) == 0


def test_an_image_of_one_value_is_all_margin() -> None:
    assert margins(np.full((1, 6, 8), 3, np.float32)) == (1, 1, 1, 1)


def test_planes_of_a_volume_are_a_margin() -> None:
    volume = grain(1, 10, 12, 14)
    volume[:, :3] = 0
    assert margins(volume) == pytest.approx((3 / 10, 0, 0, 0, 0, 0))


def test_known_margins_are_the_widest_of_the_validation_cases_by_edge(tmp_path: Path) -> None:
    images = torch.from_numpy(np.stack([bordered(2), bordered(6), bordered(4)[..., ::-1].copy()]))
    model = told(tmp_path, images, torch.zeros(3, CLASSES, dtype=torch.uint8))
    (found,) = known_margins(model, tmp_path, (1, 30, 40))
    assert found == pytest.approx((0, 0, 4 / 40, 6 / 40))
    assert known_margins(model, tmp_path, (1, 64, 64)) == ()
    assert known_margins(manifest(), tmp_path, (1, 30, 40)) == ()


def test_known_margins_of_views_are_of_each_by_itself(tmp_path: Path) -> None:
    cases = [np.stack([bordered(2), bordered(k)[..., ::-1]], axis=1) for k in (3, 6)]
    model = told(tmp_path, torch.from_numpy(np.stack(cases)), torch.zeros(2, CLASSES))
    views = model.image.model_copy(update={"views": (View(key="a", label="A"),) * 2})
    of_views = model.model_copy(update={"inputs": (views,)})
    one, other = known_margins(of_views, tmp_path, (1, 2, 30, 40))
    assert one == pytest.approx(margins(bordered(2)))
    assert other == pytest.approx(margins(bordered(6)[..., ::-1]))


def case(found: tuple[float, ...], known: tuple[float, ...] | None) -> Case:
    return Case(grain(1, 4, 4), 1.0, of_scores=False, extras={}, margins=found, known_margins=known)


def test_margins_wider_than_any_known_are_flagged() -> None:
    found, known = (0.0, 0.0, 0.1, 0.25), (0.0, 0.0, 0.3, 0.1)
    check = Margins().judge(case(found, known))
    assert check.outcome == "fail"
    assert check.flags == (Flag.WIDE_MARGINS,)
    assert check.meaning == STATEMENTS[Flag.WIDE_MARGINS]
    assert check.values == {"margins": [*found], "widest_known": [*known], "beyond": 0.02}
    assert Margins().judge(case((0.0, 0.0, 0.1, 0.11), known)).outcome == "pass"
    assert Margins().judge(case(found, None)).outcome == "not_applicable"
