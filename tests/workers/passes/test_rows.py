import pytest
import torch

from tests.support.engine import image_for
from workers.rows import (
    INPUT,
    Ablated,
    Between,
    Blend,
    Blurred,
    Clean,
    Given,
    Masked,
    Noisy,
    Patched,
    Rows,
    start_of,
)

IMAGE = image_for()
BOXES = tuple((slice(k, k + 3), slice(2 * k, 2 * k + 4)) for k in range(6))


def masks(start: int, stop: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    everything = torch.rand(6, 1, *IMAGE.shape[1:], generator=generator, dtype=IMAGE.dtype)
    return everything[start:stop]


FAMILIES = {
    "ablated": Ablated(IMAGE, "layer", (0, 2, 5)),
    "clean": Clean(IMAGE),
    "given": Given(torch.stack([IMAGE + k for k in range(6)])),
    "blend": Blend(IMAGE, -1.0, (0.0, 0.25, 0.5, 0.75, 1.0)),
    "noisy": Noisy(IMAGE, 0.3, seed=11, samples=6),
    "antithetic": Noisy(IMAGE, 0.3, seed=11, samples=6, antithetic=True),
    "between": Between(IMAGE, lambda start, stop: masks(start, stop) - 2, (0.0, 0.5, 0.25, 1.0)),
    "blurred": Blurred(IMAGE, BOXES, IMAGE.flip(1), lambda row: masks(row, row + 1)[0, :, :3, :4]),
    "masked": Masked(IMAGE, 0.5, masks, 6),
    "patched": Patched(IMAGE, BOXES, 2.0),
}


def written(rows: Rows, start: int, stop: int) -> torch.Tensor:
    out = torch.full((stop - start, *rows.shapes[INPUT]), torch.nan, dtype=IMAGE.dtype)
    rows.fill({INPUT: out}, start, stop)
    return out


@pytest.mark.parametrize("rows", FAMILIES.values(), ids=FAMILIES)
def test_a_row_is_the_same_however_rows_are_chunked(rows: Rows) -> None:
    whole = written(rows, 0, rows.count)
    singly = torch.cat([written(rows, k, k + 1) for k in range(rows.count)])
    assert torch.equal(whole, singly)
    assert torch.isfinite(whole).all()


@pytest.mark.parametrize("rows", FAMILIES.values(), ids=FAMILIES)
def test_writing_rows_leaves_the_image_alone(rows: Rows) -> None:
    before = IMAGE.clone()
    written(rows, 0, rows.count).mul_(0)
    assert torch.equal(before, IMAGE)


def test_equal_descriptions_of_one_image_are_one_row_set() -> None:
    assert Clean(IMAGE).token == Clean(IMAGE).token
    assert Blend(IMAGE, 0.0, (0.5,)).token == Blend(IMAGE, 0.0, (0.5,)).token
    assert Noisy(IMAGE, 0.1, 3, 4).token == Noisy(IMAGE, 0.1, 3, 4).token


def test_equal_values_in_two_tensors_are_two_row_sets() -> None:
    assert Clean(IMAGE).token != Clean(IMAGE.clone()).token
    assert Clean(IMAGE).token != Given(IMAGE).token
    assert Noisy(IMAGE, 0.1, 3, 4).token != Noisy(IMAGE, 0.1, 4, 4).token


def test_a_token_keeps_its_image_so_that_an_identity_is_never_reused() -> None:
    token = Clean(IMAGE.clone()).token
    others = [Clean(IMAGE.clone()).token for _ in range(50)]
    assert token not in others


def test_blend_goes_from_the_baseline_to_the_image() -> None:
    ends = written(Blend(IMAGE, -1.0, (0.0, 1.0)), 0, 2)
    assert torch.equal(ends[0], torch.full_like(IMAGE, -1.0))
    torch.testing.assert_close(ends[1], IMAGE)


def test_noise_has_the_asked_deviation_and_antithetic_pairs_cancel() -> None:
    noisy = written(Noisy(IMAGE, 0.3, seed=1, samples=40), 0, 40) - IMAGE
    assert noisy.std().item() == pytest.approx(0.3, rel=0.05)
    pairs = written(Noisy(IMAGE, 0.3, 1, 4, antithetic=True), 0, 4) - IMAGE
    torch.testing.assert_close(pairs[0], -pairs[1])
    assert not torch.equal(pairs[0], pairs[2])


@pytest.mark.parametrize("seed", [4096, 8192, 4097, 1 << 30, (1 << 31) - 1])
def test_large_seeds_give_noise_of_their_own(seed: int) -> None:
    rows = written(Noisy(IMAGE, 1.0, seed=seed, samples=8), 0, 8)
    for other in (0, 1, 4095, 12288):
        others = written(Noisy(IMAGE, 1.0, seed=other, samples=8), 0, 8)
        assert not any(torch.equal(one, two) for one in rows for two in others)


def test_no_two_seeds_begin_alike() -> None:
    """Of all numbers of bits above the twelfth, the start's last 20 bits differ."""
    lasts = {start_of(above << 12, 0) % (1 << 20) for above in range(1 << 19)}
    assert len(lasts) == 1 << 19
    assert start_of(4095, 7) == (4095 << 20) + 7
    assert start_of((5 << 12) + 9, 3) - start_of(5 << 12, 0) == (9 << 20) + 3


def test_noise_of_neighboring_seeds_has_no_row_in_common() -> None:
    first = written(Noisy(IMAGE, 1.0, seed=1, samples=8), 0, 8)
    second = written(Noisy(IMAGE, 1.0, seed=2, samples=8), 0, 8)
    assert not any(torch.equal(a, b) for a in first for b in second)


def test_a_mask_keeps_the_image_where_it_is_one() -> None:
    keep = torch.zeros(1, 1, *IMAGE.shape[1:], dtype=IMAGE.dtype)
    keep[..., :5] = 1
    row = written(Masked(IMAGE, 0.5, lambda _start, _stop: keep, 1), 0, 1)[0]
    torch.testing.assert_close(row[..., :5], IMAGE[..., :5])
    assert (row[..., 5:] == 0.5).all()


def test_a_patch_covers_its_box_and_nothing_else() -> None:
    row = written(Patched(IMAGE, BOXES, 2.0), 2, 3)[0]
    inside = torch.zeros(IMAGE.shape[1:], dtype=torch.bool)
    inside[2:5, 4:8] = True
    assert (row[:, inside] == 2.0).all()
    assert torch.equal(row[:, ~inside], IMAGE[:, ~inside])


def test_rows_between_end_at_the_reference_and_at_the_image() -> None:
    rows = Between(IMAGE, masks, (0.0, 1.0, 0.5))
    start, end, middle = written(rows, 0, 3)
    assert torch.equal(start, masks(0, 1)[0])
    torch.testing.assert_close(end, IMAGE)
    torch.testing.assert_close(middle, (masks(2, 3)[0] + IMAGE) / 2)
