import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from service.domain.boxes import BoxWindows
from service.domain.explanation import Check
from service.domain.grid import Grid, scaling
from service.domain.parity import WORDS as PARITY_WORDS
from service.domain.parity import MapParity, Pair, Parity
from service.domain.trust import STATEMENTS, Flag, Grade, TrustReport, statements
from tests.support.sheets import MODEL, REPORT, TARGET, blob
from workers.drawing import picture as picture_module
from workers.drawing.legend import BARS, CAUTION, WARNING, Legend, _font, _stack, legible
from workers.drawing.overlay import Scale, overlay, scale_of
from workers.drawing.palettes import FAINT, OPAQUE, diverging, sequential, weights
from workers.drawing.picture import DEGENERATE, OWN_FULL, OWN_SCALE, Words, draw
from workers.drawing.resample import to_source

SHAPE = (600, 500)
GRAY = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def words(**changes):
    known = {
        "target": TARGET,
        "method": "Grad-CAM",
        "model": MODEL,
        "checks": (),
        "trust": REPORT,
        "parity": MapParity(),
        "degenerate": False,
    }
    return Words(**known | changes)


def picture(values, *, display=GRAY, grid=None, scale=None, **changes):
    grid = grid or Grid.partition(values.shape[1:], display.shape[:2])
    return draw(display, values, grid, words(**changes), scale)


PAIR = Pair(
    key=TARGET.key,
    outcome=Parity.MATCHED,
    scale="logit",
    observed=2.6,
    found=2.5,
    tolerance=0.2,
    observed_positive=None,
    found_positive=None,
)


BANK = Check(
    name="probe_bank",
    version=1,
    outcome="pass",
    values={"p": 0.0078125},
    passes=25,
    meaning="It is so.",
)


@pytest.mark.parametrize(
    ("flag", "grade", "said"),
    [
        (
            Flag.CERTIFICATE_FAILED,
            Grade.NOT_SUPPORTED,
            "Map: NOT SUPPORTED because its method failed on known cases",
        ),
        (
            Flag.CERTIFICATE_WEAK,
            Grade.WEAK,
            "Map: WEAK because its method was not clear on known cases",
        ),
        (
            Flag.UNCERTIFIED,
            Grade.WEAK,
            "Map: WEAK because its method was not measured on known cases",
        ),
    ],
)
def test_what_outweighs_the_evidence_is_named_by_the_grade_and_said_once(
    legends, flag, grade, said
):
    report = TrustReport(
        grade=grade, flags=(flag,), statements=statements(Grade.SUPPORTED, (flag,))
    )
    picture(blob((8, 8)), scale=Scale(1, signed=False), trust=report, checks=(BANK,))
    (legend,) = legends
    assert legend.grade == f"{said} (this image alone: p = 0.008, 25 places hidden in turn)"
    assert legend.grave == (STATEMENTS[flag],)
    assert legend.lines[0] == STATEMENTS[Grade.SUPPORTED]
    assert STATEMENTS[flag] not in (*legend.lines, *legend.warnings)


def test_a_grade_that_the_evidence_gives_names_no_other_reason(legends):
    flags = (Flag.CERTIFICATE_FAILED,)
    report = TrustReport(
        grade=Grade.NOT_SUPPORTED, flags=flags, statements=statements(Grade.NOT_SUPPORTED, flags)
    )
    picture(blob((8, 8)), scale=Scale(1, signed=False), trust=report)
    assert legends[0].grade == "Map: NOT SUPPORTED"
    assert legends[0].grave == (STATEMENTS[Flag.CERTIFICATE_FAILED],)


def test_grave_words_stand_next_to_the_grade_in_the_color_of_warnings():
    legend = Legend("Nodule", "logit 2.5", "Map: WEAK", ("Quiet.",), ("Loud.",), ("Grave.",))
    lines, _ = _stack(legend, (900, 900), 0, 13)
    colors = {line.text: line.color for line in lines}
    order = [line.text for line in lines]
    assert order[order.index("Map: WEAK") + 1] == "Grave."
    assert colors["Grave."] == colors["Loud."] == WARNING != colors["Quiet."]


def test_a_fall_outside_of_the_region_is_told_with_its_figures(legends):
    flag = Flag.DEPENDS_OUTSIDE_EXPECTED_REGION
    report = TrustReport(
        grade=Grade.SUPPORTED, flags=(flag,), statements=statements(Grade.SUPPORTED, (flag,))
    )
    region = Check(
        name="expected_region",
        version=1,
        outcome="fail",
        values={"fall": 7.467, "share": 0.638, "share_from": 0.2},
        meaning=STATEMENTS[flag],
    )
    picture(blob((8, 8)), scale=Scale(1, signed=False), trust=report, checks=(BANK, region))
    figures = (
        "With all outside the declared region hidden the logit falls by 7.47, 0.64 of the usual"
        " distance (flagged above 0.20)."
    )
    assert legends[0].warnings[1:] == (STATEMENTS[flag], figures)


def test_a_mismatch_is_said_once_with_both_figures(legends):
    flags = (Flag.PARITY_MISMATCH,)
    report = TrustReport(
        grade=Grade.SUPPORTED, flags=flags, statements=statements(Grade.SUPPORTED, flags)
    )
    parity = MapParity(outcome=Parity.MISMATCHED, pairs=(PAIR,))
    picture(blob((8, 8)), scale=Scale(1, signed=False), trust=report, parity=parity)
    (legend,) = legends
    assert legend.grave == (
        STATEMENTS[Flag.PARITY_MISMATCH],
        "Issuing system: logit 2.6; here: 2.5 (tolerance 0.2).",
    )
    elsewhere = (*legend.lines, *legend.warnings)
    assert not {PARITY_WORDS[Parity.MISMATCHED], *legend.grave} & set(elsewhere)


def test_a_mismatch_of_another_class_is_grave_and_leaves_this_maps_own_figures(legends):
    flags = (Flag.PARITY_MISMATCH_ELSEWHERE,)
    report = TrustReport(
        grade=Grade.SUPPORTED, flags=flags, statements=statements(Grade.SUPPORTED, flags)
    )
    parity = MapParity(outcome=Parity.MATCHED, pairs=(PAIR,), elsewhere=("nodule", "effusion"))
    picture(blob((8, 8)), scale=Scale(1, signed=False), trust=report, parity=parity)
    (legend,) = legends
    assert legend.grade == "Map: SUPPORTED"
    assert legend.grave == (
        STATEMENTS[Flag.PARITY_MISMATCH_ELSEWHERE],
        "Elsewhere the two differ on nodule, effusion.",
    )
    assert PARITY_WORDS[Parity.MATCHED] in legend.lines
    assert "Issuing system: logit 2.6; here: 2.5 (tolerance 0.2)." in legend.lines


@pytest.fixture
def legends(monkeypatch):
    """The legends that are drawn, in order."""
    drawn = []
    whole = picture_module.page_with

    def kept(legend, rows, columns):
        drawn.append(legend)
        return whole(legend, rows, columns)

    monkeypatch.setattr(picture_module, "page_with", kept)
    return drawn


def lightness(colors):
    """CIE L* of 8-bit sRGB, by the formulas of IEC 61966-2-1 and CIE 15."""
    c = colors / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_evidence_grows_lighter_in_even_steps():
    steps = np.diff(lightness(sequential())[::15])
    assert (steps > 0).all()
    assert steps.max() < 2 * steps.min()


def test_for_and_against_are_equally_strong():
    colors = diverging()
    assert np.abs(lightness(colors) - lightness(colors[::-1])).max() < 6
    assert colors[0, 2] > colors[0, 0] + 60
    assert colors[-1, 0] > colors[-1, 2] + 60


def test_nothing_faint_is_drawn_and_anatomy_is_never_hidden():
    for signed in (False, True):
        weight = weights(signed=signed)
        strength = np.abs(np.linspace(-1 if signed else 0, 1, 256))
        assert not weight[strength < FAINT].any()
        assert weight.max() == OPAQUE < 256


@pytest.mark.parametrize("shape", [(14, 14), (7, 5), (600, 500), (1, 1)])
def test_a_map_is_interpolated_as_torch_does(shape):
    values = np.random.default_rng(1).random((2, *shape)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None], size=SHAPE, mode="bilinear", align_corners=False
    )
    wide = to_source(values, Grid.partition(shape, SHAPE), SHAPE)
    assert_allclose(wide, expected[0], atol=1e-4)


def test_what_a_crop_left_out_has_no_evidence():
    grid = Grid((4, 4), scaling((10, 10), (104.5, 204.5)))
    wide = to_source(np.ones((1, 4, 4), np.float32), grid, SHAPE)[0]
    expected = np.zeros(SHAPE)
    expected[100:140, 200:240] = 1
    assert_array_equal(wide, expected)


def test_the_overlay_is_the_blend_that_its_parts_say():
    values = blob((30, 25), signed=True)
    scale = Scale(0.8, signed=True)
    drawn = picture(values, scale=scale)[: SHAPE[0]]
    wide = to_source(values, Grid.partition((30, 25), SHAPE), SHAPE)[0]
    level = np.clip(np.floor(wide.astype(float) * 127.5 / 0.8 + 128), 0, 255).astype(int)
    weight = weights(signed=True)[level].astype(float)[..., None] / 256
    expected = diverging()[level] * weight + GRAY[..., None] * (1 - weight)
    assert np.abs(drawn - expected).max() <= 2.5  # a level is a rounding away


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (33, 47), (64, 1), (65, 501)])
@pytest.mark.parametrize("beside", [0, 1, 5])
def test_every_pixel_is_blended_in_its_place_and_none_beside_the_image(shape, beside):
    display = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    page = np.full((shape[0] + beside, shape[1] + beside, 3), 7, np.uint8)
    full = np.ones((2, 2), np.float32)
    into = page[: shape[0], : shape[1]]
    overlay(display, full, Grid.partition((2, 2), shape), Scale(1.0, signed=False), into)
    weight, shades = int(weights(signed=False)[-1]), display.astype(int)[..., None]
    blended = (sequential()[-1].astype(int) * weight + shades * (256 - weight) + 128) >> 8
    assert_array_equal(into, blended)
    assert (page[shape[0] :] == 7).all()
    assert (page[:, shape[1] :] == 7).all()


def test_where_there_is_no_evidence_the_image_is_untouched():
    values = np.zeros((1, 10, 10), np.float32)
    values[0, 7:, 7:] = 1
    drawn = picture(values, scale=Scale(1.0, signed=False))
    assert_array_equal(drawn[:330, :300], np.repeat(GRAY[:330, :300, None], 3, -1))
    assert np.ptp(drawn[500:600, 450:].astype(int), axis=-1).mean() > 20


def test_a_degenerate_map_is_never_drawn_in_color():
    flat = np.full((1, 10, 10), 0.3, np.float32)
    drawn = picture(flat, scale=None, degenerate=True)
    assert_array_equal(drawn[: SHAPE[0]], np.repeat(GRAY[..., None], 3, -1))


def test_a_degenerate_map_is_called_so(legends):
    picture(np.full((1, 10, 10), 0.3, np.float32), scale=None, degenerate=True)
    assert legends[0].warnings == (DEGENERATE,)


def test_a_map_without_evidence_has_no_scale():
    assert scale_of(np.zeros((8, 8), np.float32), signed=True) is None
    assert scale_of(np.full((8, 8), -1, np.float32), signed=False) is None
    assert scale_of(np.full((8, 8), np.nan, np.float32), signed=False) is None


def test_one_wild_cell_does_not_fade_all_others():
    detailed = np.ones((64, 64), np.float32)
    detailed[0, 0] = 1000
    assert scale_of(detailed, signed=False) == Scale(1.0, signed=False)
    coarse = np.ones((14, 14), np.float32)
    coarse[0, 0] = 1000
    assert scale_of(coarse, signed=False) == Scale(1000.0, signed=False)


def test_a_quiet_map_looks_quiet_beside_the_models_usual_ones():
    loud, quiet = blob((12, 10)), 0.2 * blob((12, 10))
    usual = float(loud.max())

    def colored(values, reference):
        scale = scale_of(values[0], signed=False, reference=reference)
        drawn = picture(values, display=np.full(SHAPE, 90, np.uint8), scale=scale)
        return np.ptp(drawn[: SHAPE[0]].astype(int), axis=-1).max()

    assert colored(quiet, usual) < 0.6 * colored(loud, usual)
    assert colored(quiet, None) == colored(loud, None)


def test_evidence_under_the_faintest_color_is_said_to_be_faint():
    scale = scale_of(blob((12, 10))[0], signed=False, reference=100.0)
    assert scale is not None
    assert scale.faint
    drawn = picture(blob((12, 10)), scale=scale)
    assert_array_equal(drawn[: SHAPE[0]], np.repeat(GRAY[..., None], 3, -1))


def test_the_legend_tells_grade_parity_flags_and_scale(legends):
    report = TrustReport(
        grade=Grade.SUPPORTED,
        flags=(Flag.SAME_KIND_OF_EVIDENCE,),
        statements=statements(Grade.SUPPORTED),
    )
    picture(
        blob((8, 8)),
        scale=Scale(1, signed=False),
        trust=report,
        checks=(BANK,),
        parity=MapParity(outcome=Parity.MATCHED, pairs=(PAIR,)),
    )
    (legend,) = legends
    assert legend.grade == "Map: SUPPORTED (p = 0.008, 25 places hidden in turn)"
    assert legend.lines[:4] == (
        *statements(Grade.SUPPORTED),
        PARITY_WORDS[Parity.MATCHED],
        "Issuing system: logit 2.6; here: 2.5 (tolerance 0.2).",
    )
    assert legend.warnings == (OWN_SCALE, STATEMENTS[Flag.SAME_KIND_OF_EVIDENCE])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("scale", "basis"),
    [
        ({}, "this map's alone"),
        ({"own": False}, "usual"),
        ({"own": False, "joint": True}, "all im"),
    ],
)
def test_a_picture_of_lines_has_no_color_bar_and_says_what_lines_mean(
    legends, signed, scale, basis
):
    values = blob((8, 8), signed=signed)
    grid = Grid.partition((8, 8), GRAY.shape)
    draw(GRAY, values, grid, words(), Scale(1, signed, **scale), style="contour")
    (legend,) = legends
    said = " ".join((*legend.lines, *legend.warnings))
    assert legend.scale is None
    assert "Colors are scaled" not in said
    assert "half of full" in said
    assert "Full strength is" in said
    assert basis in said
    assert ("Orange lines: evidence for" in said) is signed
    assert (OWN_FULL in legend.warnings) is (not scale)


@pytest.mark.parametrize("style", ["overlay", "contour"])
@pytest.mark.parametrize(
    ("sense", "said", "unsaid"),
    [
        ("evidence", "", "not what speaks for"),
        (
            "sensitivity",
            "how the score moves with pixel values, not what speaks for",
            "evidence for",
        ),
        ("guided", "tells neither for nor against", "evidence for"),
    ],
)
def test_a_legend_says_what_the_sign_means(legends, style, sense, said, unsaid):
    values, grid = blob((8, 8), signed=True), Grid.partition((8, 8), GRAY.shape)
    draw(GRAY, values, grid, words(sense=sense), Scale(1, signed=True), style=style)
    (legend,) = legends
    text = " ".join(legend.lines)
    assert said in text
    assert unsaid not in text
    if style == "overlay":
        bar = BARS[legend.sense][True]
        assert ("evidence" in bar) is (sense == "evidence")
    elif sense == "evidence":
        assert "Blue lines: evidence against" in text


def test_the_color_bar_is_of_what_values_mean():
    values, grid = blob((8, 8), signed=True), Grid.partition((8, 8), GRAY.shape)
    drawn = [
        draw(GRAY, values, grid, words(sense=sense), Scale(1, signed=True))
        for sense in ("evidence", "sensitivity", "guided")
    ]
    assert len({picture.tobytes() for picture in drawn}) == 3


@pytest.mark.parametrize("shape", [(2048, 2048), (600, 500), (64, 64), (1024, 256), (300, 2000)])
def test_the_image_stays_at_the_top_left_pixel_by_pixel(shape):
    display = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    drawn = picture(np.zeros((1, 8, 8), np.float32), display=display)
    assert_array_equal(drawn[: shape[0], : shape[1], 0], display)
    assert drawn.size > 3 * display.size


def ink(drawn, display):
    """Share of legend pixels that are letters or bar."""
    rows, columns = display.shape[:2]
    outside = np.ones(drawn.shape[:2], bool)
    outside[:rows, :columns] = False
    return (drawn.max(-1)[outside] > 100).mean()


@pytest.mark.parametrize("shape", [(2048, 2048), (500, 500), (64, 64), (1024, 256)])
def test_every_picture_has_a_legend_with_ink_in_it(shape):
    display = np.zeros(shape, np.uint8)
    drawn = picture(blob((8, 8)), display=display, scale=Scale(1, signed=False))
    assert ink(drawn, display) > 0.01


def test_failed_checks_and_thresholds_lengthen_the_legend():
    values = blob((8, 8))
    scale = Scale(1, signed=False)
    check = Check(name="integrity", version=1, outcome="fail", meaning="The map holds too little.")
    early = REPORT.model_copy(update={"flags": (Flag.PARTIAL,)})
    below = REPORT.model_copy(update={"flags": (Flag.PARTIAL, Flag.BELOW_THRESHOLD)})
    heights = [
        len(picture(values, scale=scale, **changes))
        for changes in (
            {},
            {"checks": (check,)},
            {"checks": (check,), "trust": early},
            {"checks": (check,), "trust": below},
        )
    ]
    assert heights == sorted(set(heights))


def test_color_images_are_grayed_so_that_only_evidence_has_color():
    color = np.random.default_rng(3).integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
    drawn = picture(np.zeros((1, 8, 8), np.float32), display=color)[: SHAPE[0]]
    assert not np.ptp(drawn, axis=-1).any()
    luma = color @ [0.299, 0.587, 0.114]
    assert np.abs(drawn[..., 0] - luma).max() <= 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Pleural effusion", "Pleural effusion"),
        ("Épanchement pleural", "Epanchement pleural"),
        ("胸水", "effusion"),
        ("Плевральный выпот", "effusion"),
    ],
)
def test_labels_that_the_font_lacks_fall_back_to_the_key(text, shown):
    assert legible(text, "effusion") == shown


@pytest.mark.parametrize("size", [13, 34])
def test_no_word_is_lost_and_no_line_is_too_long(size):
    sentence = "Hiding the places marked by this map changed the model's score more than " * 4
    legend = Legend("Nodule", "logit 2.5", "Map: WEAK", (sentence,), scale=Scale(1, signed=False))
    beside, whole, below = 20 * size, 50 * size, 6 * size
    lines, height = _stack(legend, (beside, whole), below, size)
    said = " ".join(line.text for line in lines)
    assert said == f"Nodule logit 2.5 Map: WEAK {sentence.strip()} {CAUTION}"
    for line in lines:
        room = whole if line.top >= below else beside
        assert _font(line.size).getlength(line.text) <= room + 1
        assert line.top + line.size < height
    assert any(_font(line.size).getlength(line.text) > beside for line in lines)


@pytest.mark.parametrize("style", ["overlay", "contour"])
def test_a_box_that_is_explained_is_framed_on_the_image_alone(style):
    target = TARGET.model_copy(update={"kind": "detection", "box": (100, 50, 300, 450)})
    values = np.zeros((1, 12, 10), np.float32)
    values[0, 4, 4] = 1
    grid = Grid.partition((12, 10), SHAPE)
    pages = [
        draw(GRAY, values, grid, words(target=each), Scale(1.0, False), style=style)
        for each in (TARGET, target)
    ]
    plain, framed = (each[:600, :500].astype(int) for each in pages)
    assert (framed[100, 50:450] == 255).all()
    assert (framed[100:300, 449] == 255).all()
    assert_array_equal(framed[110:290, 60:440], plain[110:290, 60:440])
    assert_array_equal(framed[310:], plain[310:])
    assert not np.array_equal(pages[0][600:], pages[1][600 : len(pages[0])])  # the legend says so


def test_a_legend_says_how_much_of_the_image_the_model_was_given(legends):
    for share in (1.0, 0.999, 0.36):
        picture(np.eye(12, dtype=np.float32)[None], seen_share=share)
    whole, nearly, cropped = (" ".join(each.lines) for each in legends)
    assert "was given" not in whole + nearly
    assert "The model was given 36% of the image" in cropped


def test_of_a_model_that_sees_windows_the_legend_says_in_how_many_a_box_is_explained(legends):
    windows = BoxWindows(count=2, of=12, box=(0, 0, 400, 500))
    for told in (None, windows):
        target = TARGET.model_copy(update={"box": (100, 50, 300, 450), "windows": told})
        picture(np.eye(12, dtype=np.float32)[None], target=target)
    whole, part = (" ".join(each.lines) for each in legends)
    assert "windows" not in whole
    assert "explained in 2 of 12: outside of them the map is empty" in part
