"""Tokens that lie where a package says: on ONNX as on torch; and refused where they do not."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from examples.planted.inputs import inputs
from examples.planted.pictures import lit
from service.errors.models import InvalidPackage
from tests.support.engine import attribute, logits, settled
from tests.support.exported import onnx_of, uninterpreted
from tests.workers.runtimes.graph.test_models import plain_attention
from workers.architectures.base import ARCHITECTURES
from workers.methods.base import METHODS
from workers.methods.grad_cam import GradCam
from workers.passes import Ability
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.torch import TorchRuntime
from workers.tokens import Tokens

PHANTOM = Path(__file__).parents[3] / "models" / "vit-phantom"
SHAPE = (1, 24, 16)
ZEROS = torch.zeros(SHAPE)
GRID = (6, 4)
WIDTH = 16
NORM = "/blocks/blocks.1/norm/LayerNormalization_output_0"
METHODS_OF_TOKENS = [
    "ablation_cam",
    "attention_rollout",
    "eigen_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient_attention",
    "hires_cam",
    "layer_cam",
    "score_cam",
    "xgrad_cam",
]


def said(prefix: int = 1, grid: tuple[int, ...] = GRID, *, read_class: bool = True) -> Tokens:
    return Tokens(prefix, grid, 0, read_class, said=True)


class Block(nn.Module):
    """Queries, keys and values are modules of their own, as most published transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.queries, self.keys, self.values = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.after = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        parts = (each(normed)[:, None] for each in (self.queries, self.keys, self.values))
        tokens = tokens + plain_attention(*parts)[:, 0]
        return tokens + self.after(tokens)


class Transformer(nn.Module):
    """The class token first or last, and patches by rows or by columns: not all are as is said."""

    def __init__(self, *, last: bool = False, columns: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.columns = last, columns
        self.embed = nn.Conv2d(1, WIDTH, 4, 4)
        self.first = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, 25, WIDTH) / 2)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.embed(image)
        patches = patches.transpose(2, 3) if self.columns else patches
        patches = patches.flatten(2).transpose(1, 2)
        first = self.first + 0 * patches[:, :1]
        tokens = torch.cat([patches, first] if self.last else [first, patches], 1)
        tokens = self.blocks(tokens + self.places)
        return self.head(tokens[:, -1 if self.last else 0])


class Averaged(Transformer):
    """The score is read off the mean of the patches, or of every token."""

    def __init__(self, *, every: bool = False) -> None:
        super().__init__()
        self.every = every

    def forward(self, image: Tensor) -> Tensor:
        patches = self.embed(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first + 0 * patches[:, :1], patches], 1)
        tokens = self.blocks(tokens + self.places)
        return self.head(tokens[:, 0 if self.every else 1 :].mean(1))


def transformer(**options: bool) -> nn.Module:
    return Transformer(**options).eval().requires_grad_(requires_grad=False)


@cache
def graph(**options: bool) -> bytes:
    return onnx_of(transformer(**options), torch.zeros(SHAPE))


def served(content: bytes, tokens: Tokens, layers: Mapping[str, str] | None = None) -> OnnxRuntime:
    return OnnxRuntime(read_model(content), SHAPE, layers, tokens=tokens)


def image() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def bundled() -> tuple[TorchRuntime, OnnxRuntime]:
    """The bundled transformer, as it is and as a file that says nothing of itself."""
    fields = yaml.safe_load((PHANTOM / "model.yaml").read_text())
    shape = ARCHITECTURES["vit"].model_validate(fields["architecture"]["parameters"])
    network = shape.build().eval()
    network.load_state_dict(load_file(PHANTOM / "weights.safetensors"))
    own = TorchRuntime(network, (1, 64, 64), None, tokens=shape.tokens())
    content = onnx_of(network, torch.zeros(1, 64, 64))
    return own, OnnxRuntime(read_model(content), (1, 64, 64), tokens=said(grid=(8, 8)))


def test_a_file_is_explained_at_the_layer_that_is_chosen_of_its_network_in_torch(
    bundled: tuple[TorchRuntime, OnnxRuntime],
) -> None:
    own, file = (each.probed for each in bundled)
    assert [each.name for each in own.layers] == ["blocks.2.norm1"]
    (layer,) = file.layers
    assert layer.name == "/blocks/blocks.2/norm1/LayerNormalization_output_0"
    assert (layer.shape, layer.stride) == ((32, 8, 8), (8.0, 8.0))
    assert not file.refused
    assert file.attentions == own.attentions


@pytest.mark.parametrize("name", METHODS_OF_TOKENS)
def test_maps_through_a_file_are_those_of_its_network_in_torch(
    bundled: tuple[TorchRuntime, OnnxRuntime], name: str
) -> None:
    """Those of the network are held against what was planted in `tests/examples`."""
    (planted,) = inputs([lit(7_001, {"cyst": 1, "stone": 1})])
    expected, found = (
        attribute(settled(METHODS[name](), each), each, planted, logits(0, 1), chunk=1)
        for each in bundled
    )
    largest = expected.values.abs().max().item()
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=2e-5 * largest)
    assert found.affine.tolist() == expected.affine.tolist()
    scores_alone = name in {"eigen_cam", "score_cam"}
    assert bundled[1].probed.computes(METHODS[name].needs) == scores_alone


def test_keys_and_values_are_passed_over_for_the_norm_before_them() -> None:
    """Values alone would miss what goes past them: the layer is that of other transformers."""
    (layer,) = served(graph(), said()).probed.layers
    assert layer.name == NORM
    own = TorchRuntime(transformer(), SHAPE, None, tokens=said())
    assert [each.name for each in own.probed.layers] == ["blocks.1.norm"]


def test_grad_cam_is_the_tokens_weighted_by_their_mean_gradient() -> None:
    runtime = served(graph(), said())
    maps = attribute(settled(GradCam(), runtime), runtime, image(), logits(2))
    model, kept = transformer(), []
    model.blocks[1].norm.register_forward_hook(lambda _module, _args, out: kept.append(out))
    outputs = model(image()[None].requires_grad_())
    (gradient,) = torch.autograd.grad(outputs[0, 2], kept[0])
    by_hand = [token @ gradient[0, 1:].mean(0) for token in kept[0][0, 1:]]
    expected = torch.stack(by_hand).detach().reshape(GRID)
    torch.testing.assert_close(maps.values[0, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "tokens", "pointer", "told"),
    [
        ({}, said(grid=GRID[::-1]), "/tokens", "rows first"),
        ({"columns": True}, said(), "/tokens", "rows first"),
        ({"last": True}, said(), "/tokens", "'prefix'"),
        ({}, said(1, (12, 2)), "/tokens", "rows first"),
        ({}, said(21, (1, 4)), "/tokens", "'prefix'"),
        ({}, said(1, (12, 4)), "/tokens/grid", "put out 25 tokens, and 1 before a grid of 12 x 4"),
        ({}, said(0), "/tokens/prefix", "put out 25 .* 6 x 4 are 24: 'prefix' is 1"),
        ({}, said(2), "/tokens/prefix", "put out 25 .* 6 x 4 are 26: 'prefix' is 1"),
    ],
    ids=[
        "axes",
        "by columns",
        "class token last",
        "other cells",
        "patches before",
        "too many cells",
        "none before",
        "one more before",
    ],
)
def test_a_layout_that_would_shift_or_turn_maps_is_refused(
    options: dict[str, bool], tokens: Tokens, pointer: str, told: str
) -> None:
    with pytest.raises(InvalidPackage, match=told) as refused:
        _ = served(graph(**options), tokens).probed
    assert refused.value.pointer == pointer
    with pytest.raises(InvalidPackage, match=told):
        _ = TorchRuntime(transformer(**options), SHAPE, None, tokens=tokens).probed


@pytest.mark.parametrize(
    ("options", "tokens", "layers"),
    [
        ({}, said(), ["norm"]),
        ({}, said(grid=GRID[::-1]), []),
        ({"columns": True}, said(), []),
        ({"last": True}, said(), []),
    ],
    ids=["as it is", "axes", "by columns", "class token last"],
)
def test_so_it_is_where_onnxruntime_alone_runs_the_graph(
    options: dict[str, bool], tokens: Tokens, layers: list[str]
) -> None:
    runtime = served(uninterpreted(graph(**options)), tokens, {"norm": NORM})
    assert [each.name for each in runtime.probed.layers] == layers
    if not layers:
        assert "do not lie over the image as 'tokens' says" in runtime.probed.refused["norm"]
        return
    whole = served(graph(), tokens, {"norm": NORM})
    for name in ("eigen_cam", "score_cam"):
        found, expected = (
            attribute(settled(METHODS[name](), each), each, image(), logits(0), chunk=1)
            for each in (runtime, whole)
        )
        assert found.values.shape == (1, 1, *GRID)
        torch.testing.assert_close(found.values, expected.values)


def test_layers_that_are_no_tokens_keep_their_own_grid() -> None:
    tensors = {"patches": "/embed/Conv_output_0", "norm": NORM}
    for content in (graph(), uninterpreted(graph())):
        probed = served(content, said(), tensors).probed
        assert [(each.name, each.shape) for each in probed.layers] == [
            ("patches", (WIDTH, *GRID)),
            ("norm", (WIDTH, *GRID)),
        ]


@pytest.mark.parametrize("size", [(24,), (8, 4, 12)], ids=["1-d", "3-d"])
def test_tokens_of_lines_and_volumes_are_tried_as_those_of_images(size: tuple[int, ...]) -> None:
    shape = ARCHITECTURES["vit"].model_validate(
        {"classes": 2, "image": size, "patch": 2, "width": 12, "depth": 2, "heads": 2}
    )
    torch.manual_seed(1)
    network, grid = shape.build(), tuple(each // 2 for each in size)
    (layer,) = TorchRuntime(network, (1, *size), None, tokens=said(1, grid)).probed.layers
    assert (layer.name, layer.shape) == ("blocks.1.norm1", (12, *grid))
    if len(grid) > 1:
        with pytest.raises(InvalidPackage, match="rows first"):
            _ = TorchRuntime(network, (1, *size), None, tokens=said(1, grid[::-1])).probed


@pytest.mark.parametrize("averaged", [False, True])
def test_a_score_that_is_read_the_other_way_is_refused(averaged: bool) -> None:
    model = Averaged() if averaged else Transformer()
    content, read_class = onnx_of(model.eval(), ZEROS), averaged
    with pytest.raises(InvalidPackage, match="give 'read: ") as refused:
        _ = served(content, said(read_class=read_class)).probed
    assert refused.value.pointer == "/tokens/read"
    assert served(content, said(read_class=not read_class)).probed.attentions


def test_a_score_of_all_tokens_leaves_attention_alone() -> None:
    content = onnx_of(Averaged(every=True).eval(), ZEROS)
    for read_class in (False, True):
        probed = served(content, said(read_class=read_class)).probed
        assert probed.layers
        assert "not read off the class token" in probed.unable[Ability.ATTENTION]


SWIN = {"channels": 1, "classes": 3, "image": [16, 16], "width": 8, "patch": 2, "window": 4}
PLATE = (1, 16, 16)


class Merging(nn.Module):
    """Tokens that are rolled and back, and then merged by two, as in a Swin."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed, self.mixed = nn.Conv2d(1, 8, 2, 2), nn.Linear(8, 8)
        self.merged, self.head = nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.embed(image).permute(0, 2, 3, 1)
        rolled = self.mixed(tokens.roll((1, 1), (1, 2)))
        tokens = tokens + rolled.roll((-1, -1), (1, 2)).tanh()
        pairs = tokens.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).transpose(2, 3)
        return self.head(self.merged(pairs.flatten(3)).mean((1, 2)))


@cache
def merging() -> bytes:
    return onnx_of(Merging(), torch.zeros(PLATE))


def of_stages(*grids: tuple[int, ...]) -> Tokens:
    stages = tuple((*each, 0) for each in grids)
    return Tokens(0, grids[-1], 0, reads_class=False, stages=stages, said=True)


def test_stages_of_which_no_block_fits_are_refused() -> None:
    """The patches have 24 tokens, and every block one more: maps would be made before them all."""
    with pytest.raises(InvalidPackage, match="goes on with 25 others") as refused:
        _ = served(graph(), of_stages(GRID)).probed
    assert refused.value.pointer == "/tokens"


def test_of_patches_that_overlap_the_limit_is_told() -> None:
    model = Transformer()
    model.embed = nn.Conv2d(1, WIDTH, 8, 4, 2)
    with pytest.raises(InvalidPackage, match="patches that overlap") as refused:
        _ = served(onnx_of(model.eval(), ZEROS), said()).probed
    assert refused.value.pointer == "/tokens"


def test_of_shifted_windows_the_last_norm_is_explained() -> None:
    torch.manual_seed(3)
    shape = {**SWIN, "depths": [2], "heads": [1]}
    network = ARCHITECTURES["swin"].model_validate(shape).build().eval()
    with patch.object(functional, "scaled_dot_product_attention", plain_attention):
        content = onnx_of(network, torch.zeros(PLATE))
    runtime = OnnxRuntime(read_model(content), PLATE, tokens=of_stages((8, 8)))
    assert [each.shape for each in runtime.probed.layers] == [(8, 8, 8)]
    plate = torch.randn(PLATE, generator=torch.Generator().manual_seed(1))
    maps = attribute(settled(GradCam(), runtime), runtime, plate, logits(1))
    kept: list[Tensor] = []
    network.norm.register_forward_hook(lambda _module, _args, out: kept.append(out))
    (gradient,) = torch.autograd.grad(network(plate[None])[0, 1], kept[0])
    by_hand = kept[0][0].detach() @ gradient[0].flatten(0, 1).mean(0)
    torch.testing.assert_close(maps.values[0, 0], by_hand, rtol=1e-3, atol=1e-6)


def test_each_stage_has_a_layer_and_what_is_rolled_has_none() -> None:
    layers = {"rolled": "/mixed/Add_output_0", "back": "/Add_output_0"}
    for named, found in ((layers, [(8, 8, 8)]), (None, [(16, 4, 4), (8, 8, 8)])):
        tokens = of_stages((8, 8), (4, 4))
        probed = OnnxRuntime(read_model(merging()), PLATE, named, tokens=tokens).probed
        assert [each.shape for each in probed.layers] == found
        assert named is None or "do not lie over the image" in probed.refused["rolled"]


@pytest.mark.parametrize(
    ("grids", "pointer"),
    [(((8, 8), (8, 2)), "/tokens/stages/1"), (((16, 4), (4, 4)), "/tokens/stages/0")],
    ids=["last", "first"],
)
def test_a_stage_of_another_grid_is_refused(
    grids: tuple[tuple[int, ...], ...], pointer: str
) -> None:
    with pytest.raises(InvalidPackage) as refused:
        _ = OnnxRuntime(read_model(merging()), PLATE, tokens=of_stages(*grids)).probed
    assert refused.value.pointer == pointer
