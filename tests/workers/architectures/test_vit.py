import pytest
import torch
from pydantic import ValidationError

from workers.architectures.base import ARCHITECTURES

SHAPE = {"classes": 3, "image": [12, 8], "patch": 4, "width": 8, "depth": 2, "heads": 2}


def network(**changes):
    torch.manual_seed(0)
    return ARCHITECTURES["vit"].model_validate({**SHAPE, **changes}).build().eval().double()


def by_hand(net, image, heads=2):
    """The forward pass in loops over rows, heads and tokens, from the paper's equations."""
    patches = [image[:, i : i + 4, j : j + 4] for i in (0, 4, 8) for j in (0, 4)]
    kernel = net.embed.weight.flatten(1)
    tokens = [net.first[0]] + [kernel @ patch.flatten() + net.embed.bias for patch in patches]
    tokens = torch.stack(tokens) + net.positions
    for block in net.blocks:
        seen = block.attention.queries_keys_values(block.norm1(tokens))
        width = tokens.shape[1]
        mixed = torch.zeros_like(tokens)
        for head in range(heads):
            at = slice(head * width // heads, (head + 1) * width // heads)
            q, k, v = (seen[:, part * width : (part + 1) * width][:, at] for part in range(3))
            for row in range(len(tokens)):
                weights = torch.stack([q[row] @ each for each in k]) / (width / heads) ** 0.5
                mixed[row, at] = weights.softmax(0) @ v
        tokens = tokens + block.attention.mixed(mixed)
        tokens = tokens + block.perceptron(block.norm2(tokens))
    return net.head(net.norm(tokens)[0])


def test_it_is_the_papers_transformer():
    net = network()
    images = torch.randn(2, 1, 12, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([by_hand(net, image) for image in images])
        torch.testing.assert_close(net(images), expected)


@pytest.mark.parametrize("image", [[16], [12, 8], [8, 4, 12]])
@pytest.mark.parametrize("class_token", [True, False])
def test_its_tokens_lie_where_it_says(image, class_token):
    """A patch that is lit changes its own token at the first block, and no other."""
    shape = {**SHAPE, "image": image, "class_token": class_token}
    vit = ARCHITECTURES["vit"].model_validate(shape)
    net, tokens = vit.build().eval(), vit.tokens()
    dark = torch.zeros(1, 1, *image)
    cell = tuple(size - 1 for size in tokens.grid)
    lit = dark.clone()
    lit[(0, 0, *(slice(4 * place, 4 * place + 4) for place in cell))] = 1
    seen = []
    net.blocks[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    assert net(dark).shape == net(lit).shape == (1, 3)
    assert all(tokens.fit(each) for each in seen)
    change = tokens.on_grid(seen[1] - seen[0]).abs().sum(1)[0]
    assert change[cell] > 0
    assert change.count_nonzero() == 1


def test_what_are_no_tokens_stays_as_it_is():
    tokens = ARCHITECTURES["vit"].model_validate(SHAPE).tokens()
    other = torch.zeros(2, 7, 24)
    assert tokens.on_grid(other) is other


def test_without_a_class_token_the_score_is_read_off_the_mean():
    net = network(class_token=False)
    image = torch.randn(1, 1, 12, 8, dtype=torch.float64)
    kept = []
    net.norm.register_forward_hook(lambda _module, _args, out: kept.append(out))
    logits = net(image)
    torch.testing.assert_close(logits, net.head(kept[0].mean(1)))


@pytest.mark.parametrize(
    "wrong",
    [{"image": [10, 8]}, {"heads": 3}, {"image": []}, {"image": [4, 4, 4, 4]}, {"tall": 1}],
)
def test_arguments_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ValidationError):
        ARCHITECTURES["vit"].model_validate({**SHAPE, **wrong})
