import itertools

import pytest
import torch
from pydantic import ValidationError

from service.manifests import read_manifest
from tests.support.small_model import CLASSES, SIDE, model_input, network, picture, write_package
from workers.architectures.base import ARCHITECTURES
from workers.runtimes.torch_opener import TorchOpener

SHAPE = {
    "classes": 3,
    "image": [16, 8],
    "patch": 2,
    "width": 4,
    "depths": [2, 2],
    "heads": [2, 4],
    "window": 2,
}
AXES = {1: [16], 2: [16, 8], 3: [8, 4, 16]}


def swin(**changes):
    return ARCHITECTURES["swin"].model_validate({**SHAPE, **changes})


def built(**changes):
    """The network in float64, its biases of places not zero."""
    torch.manual_seed(0)
    net = swin(**changes).build().eval().double()
    for name, parameter in net.named_parameters():
        if name.endswith("biases"):
            torch.nn.init.normal_(parameter)
    return net


def attention_by_hand(attention, tokens, window, shift):
    """Each token looks at those of its window: displaced by `shift`, and cut at the edges."""
    grid, width = tokens.shape[:-1], tokens.shape[-1]
    places = list(itertools.product(*map(range, grid)))
    edges = [min(size, window) for size in grid]
    steps = [
        0 if size <= edge else shift * (edge // 2) for size, edge in zip(grid, edges, strict=True)
    ]

    def group(place):
        return [(at - step) // edge for at, step, edge in zip(place, steps, edges, strict=True)]

    def bias(place, other):
        number = 0
        for here, there, edge in zip(place, other, edges, strict=True):
            number = number * (2 * edge - 1) + here - there + edge - 1
        return attention.biases[number]

    seen = attention.queries_keys_values(tokens)
    heads, out = attention.heads, torch.zeros_like(tokens)
    for place in places:
        others = [other for other in places if group(other) == group(place)]
        for head in range(heads):
            at = slice(head * width // heads, (head + 1) * width // heads)
            query = seen[place][:width][at]
            looks = [
                query @ seen[other][width : 2 * width][at] / (width / heads) ** 0.5
                + bias(place, other)[head]
                for other in others
            ]
            shares = torch.stack(looks).softmax(0)
            for share, other in zip(shares, others, strict=True):
                out[place][at] += share * seen[other][2 * width :][at]
    return attention.mixed(out)


def by_hand(net, image, patch=2, window=2):
    """The forward pass of one image ``(C, *spatial)`` in loops over places, from the paper."""
    grid = [size // patch for size in image.shape[1:]]
    tokens = torch.zeros(*grid, net.embed.norm.normalized_shape[0], dtype=image.dtype)
    for place in itertools.product(*map(range, grid)):
        box = (slice(None), *(slice(patch * at, patch * at + patch) for at in place))
        tokens[place] = net.embed.norm(net.embed.lift(image[box].flatten()))
    for number, stage in enumerate(net.stages):
        if number:
            tokens = merged_by_hand(stage.merge, tokens)
        for odd, block in enumerate(stage.blocks):
            tokens = tokens + attention_by_hand(
                block.attention, block.norm1(tokens), window, odd % 2
            )
            tokens = tokens + block.perceptron(block.norm2(tokens))
    return net.head(net.norm(tokens).flatten(0, -2).mean(0))


def merged_by_hand(merge, tokens):
    grid = [size // 2 for size in tokens.shape[:-1]]
    out = torch.zeros(*grid, 2 * tokens.shape[-1], dtype=tokens.dtype)
    for place in itertools.product(*map(range, grid)):
        offsets = itertools.product((0, 1), repeat=len(grid))
        four = [
            tokens[tuple(2 * at + by for at, by in zip(place, offset, strict=True))]
            for offset in offsets
        ]
        out[place] = merge.lift(merge.norm(torch.cat(four)))
    return out


@pytest.mark.parametrize(
    ("image", "window"),
    [([16], 2), ([16], 4), ([16, 8], 2), ([16, 8], 4), ([8, 4, 8], 2)],
    ids=str,
)
def test_it_is_the_papers_transformer_of_shifted_windows(image, window):
    """With windows of 4 some are a whole grid along one axis, which is then not displaced."""
    net = built(image=image, window=window)
    images = torch.randn(2, 1, *image, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([by_hand(net, each, window=window) for each in images])
        torch.testing.assert_close(net(images), expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_its_tokens_lie_where_it_says(axes):
    """What is lit in the last cell changes the last token of the embedding, and no other."""
    shape = swin(image=AXES[axes])
    net, tokens = shape.build().eval(), shape.tokens()
    dark = torch.zeros(1, 1, *AXES[axes])
    lit = dark.clone()
    lit[(0, 0, *(slice(size - 2, size) for size in AXES[axes]))] = torch.randn([2] * axes)
    seen = []
    net.stages[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    stages = []
    for stage in net.stages:
        stage.register_forward_hook(lambda _module, _given, out: stages.append(out))
    assert net(dark).shape == net(lit).shape == (1, 3)
    change = tokens.on_grid(seen[1] - seen[0]).abs().sum(1)[0]
    assert change.shape == tuple(size // 2 for size in AXES[axes])
    assert change[(-1,) * axes] > 0
    assert change.count_nonzero() == 1
    assert [tokens.grid_of(each) for each in stages[:2]] == [
        tuple(size // edge for size in AXES[axes]) for edge in (2, 4)
    ]
    assert tokens.grid == tokens.grid_of(stages[1])
    assert (tokens.width, tokens.count) == (8, torch.Size(tokens.grid).numel())


def test_what_are_no_tokens_of_a_stage_stays_as_it_is():
    tokens = swin().tokens()
    other = torch.zeros(2, 4, 2, 24)
    assert tokens.on_grid(other) is other
    assert tokens.grid_of(other) == ()


def test_every_second_block_looks_across_the_windows_of_the_first():
    """In the paper's words: connections between windows that are neighbors."""
    net = built(depths=[2], heads=[2])
    tokens = torch.randn(1, 8, 4, 4, dtype=torch.float64, requires_grad=True)

    def reached(block):
        (gradient,) = torch.autograd.grad(block.attention(tokens)[0, 3, 1].sum(), tokens)
        return {tuple(place) for place in gradient[0].abs().sum(-1).nonzero().tolist()}

    first, second = net.stages[0].blocks
    assert reached(first) == {(2, 0), (2, 1), (3, 0), (3, 1)}
    assert reached(second) == {(3, 1), (3, 2), (4, 1), (4, 2)}


def test_a_package_of_it_is_opened_and_gives_the_same_logits(tmp_path):
    shape = {key: SHAPE[key] for key in ("patch", "width", "depths", "heads", "window")}
    shape |= {"classes": len(CLASSES), "image": [SIDE] * 2}
    folder = write_package(tmp_path / "package", architecture="swin", shape=shape)
    manifest = read_manifest((folder / "model.yaml").read_bytes())
    runtime = TorchOpener().open(manifest, folder, (1, SIDE, SIDE), torch.device("cpu"))()
    image = model_input(picture())[None]
    with torch.no_grad():
        expected = network(0, "swin", **shape)(image)
        torch.testing.assert_close(runtime.model(image), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": [10, 8]},
        {"heads": [2]},
        {"heads": [3, 4]},
        {"window": 3},
        {"depths": []},
        {"image": [8, 8, 8, 8]},
        {"tall": 1},
    ],
)
def test_arguments_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ValidationError):
        swin(**wrong)
