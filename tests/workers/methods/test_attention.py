"""Attention rollout and gradient x attention: by hand, and whatever computes the attention."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.errors.models import MethodError, UnservablePass
from tests.support.engine import attribute, logits, settled, small_runtime, through
from workers.architectures.monai_vit import MonaiVit
from workers.architectures.vit import Vit
from workers.methods.attention_rollout import AttentionRollout
from workers.methods.base import METHODS, Method, ModelFacts
from workers.methods.gradient_attention import GradientAttention
from workers.methods.saliency import Saliency
from workers.passes import Ability, Forward, Step, Tap
from workers.rows import Clean
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.tokens import Tokens
from workers.union import work_of

SIZES = {1: (24,), 2: (12, 8), 3: (8, 4, 12)}
HEADS = 2
PAIR = [AttentionRollout(), GradientAttention()]


def vit(axes: int = 2, *, class_token: bool = True) -> Vit:
    return Vit(
        classes=5,
        image=SIZES[axes],
        patch=4,
        width=8,
        depth=3,
        heads=HEADS,
        class_token=class_token,
    )


def strong(model: nn.Module) -> nn.Module:
    """Return the model in float64 with weights that make attention uneven."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.double().eval()


def runtime_of(shape: Vit) -> TorchRuntime:
    torch.manual_seed(8)
    return TorchRuntime(strong(shape.build()), (1, *shape.image), None, tokens=shape.tokens())


def image_of(axes: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, *SIZES[axes], generator=generator, dtype=torch.float64)


def by_blocks(model: nn.Module, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the scores and each block's weights ``(heads, tokens, tokens)``, in the graph."""
    patches = model.embed(image[None]).flatten(2)[0].T
    tokens = torch.cat([model.first, patches]) + model.positions
    found = []
    for block in model.blocks:
        projected = block.attention.queries_keys_values(block.norm1(tokens))
        query, key, value = projected.reshape(len(tokens), 3, HEADS, -1).permute(1, 2, 0, 3)
        weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)
        weights = weights.requires_grad_()
        found.append(weights)
        mixed = (weights @ value).permute(1, 0, 2).flatten(1)
        tokens = tokens + block.attention.mixed(mixed)
        tokens = tokens + block.perceptron(block.norm2(tokens))
    tokens = model.norm(tokens)
    return model.head(tokens[0] if len(model.first) else tokens.mean(0)), found


def read(relevance: Tensor, prefix: int) -> Tensor:
    return relevance[0, 1:] if prefix else relevance.mean(0)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("class_token", [True, False], ids=["class", "mean"])
def test_rollout_is_the_product_of_all_blocks(class_token: bool, axes: int) -> None:
    runtime, image = runtime_of(vit(axes, class_token=class_token)), image_of(axes)
    maps = attribute(settled(AttentionRollout(), runtime), runtime, image, logits(0, 4))
    _, found = by_blocks(runtime.model, image)
    product = torch.eye(found[0].shape[-1], dtype=torch.float64)
    for weights in found:
        mean = sum(weights[head] for head in range(HEADS)) / HEADS
        product = (0.5 * mean + 0.5 * torch.eye(len(mean))) @ product
    expected = read(product, int(class_token)).detach().reshape(maps.values.shape[2:])
    for values in maps.values:
        torch.testing.assert_close(values[0], expected)
    assert maps.affine.diagonal().tolist() == [4.0] * axes + [1.0]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("class_token", [True, False], ids=["class", "mean"])
def test_gradient_attention_follows_the_papers_update(class_token: bool, axes: int) -> None:
    runtime, image = runtime_of(vit(axes, class_token=class_token)), image_of(axes)
    maps = attribute(settled(GradientAttention(), runtime), runtime, image, logits(0, 4))
    scores, found = by_blocks(runtime.model, image)
    for values, target in zip(maps.values, (0, 4), strict=True):
        gradients = torch.autograd.grad(scores[target], found, retain_graph=True)
        relevance = torch.eye(found[0].shape[-1], dtype=torch.float64)
        for weights, gradient in zip(found, gradients, strict=True):
            raised = sum((gradient[h] * weights[h]).clamp(min=0) for h in range(HEADS)) / HEADS
            relevance = relevance + raised @ relevance
        expected = read(relevance, int(class_token)).detach().reshape(values.shape[1:])
        torch.testing.assert_close(values[0], expected)
    assert not torch.allclose(maps.values[0], maps.values[1])


TOKENS = Tokens(prefix=1, grid=(2,), width=4, reads_class=True)
FIRST = [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]
SECOND = [[0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
FACTS = ModelFacts(attentions=("attention:0", "attention:1"), tokens=TOKENS)


def finished(method: Method, step: Step) -> Tensor:
    plan = method.settled(FACTS).plan(torch.zeros(1, 8), logits(0))
    plan.send(None)
    with pytest.raises(StopIteration) as stop:
        plan.send(step)
    values: Tensor = stop.value.value.values
    return values


def test_two_blocks_of_three_tokens_by_hand() -> None:
    """R1 = [[.75, .25, 0], [0, 1, 0], [0, .25, .75]]; row 0 of R2 R1 = [.375, .4375, .1875]."""
    weights = torch.tensor([FIRST, SECOND])[:, None, None]
    taps = {Tap(place): each for place, each in zip(FACTS.attentions, weights, strict=True)}
    values = finished(AttentionRollout(), Step(0, 1, taps=taps))
    torch.testing.assert_close(values, torch.tensor([[[0.4375, 0.1875]]]))


def test_two_blocks_with_gradients_by_hand() -> None:
    """The first block raises by .5 and .25, the second by .5 and 0: 1 + ... in row 0."""
    weights = torch.tensor([FIRST, SECOND])[:, None, None]
    first = torch.tensor([[1.0, 1.0, 1.0], [0.0, -1.0, 0.0], [0.0, 0.5, 0.0]])
    second = torch.tensor([[1.0, 1.0, -2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    gradients = torch.stack([first, second])[:, None, None, None]
    step = Step(
        0,
        1,
        activations=dict(zip(FACTS.attentions, weights, strict=True)),
        gradients=dict(zip(FACTS.attentions, gradients, strict=True)),
    )
    # after block one: [[1.5, .5, 0], [0, 1, 0], [0, .25, 1]]; block two adds half of row one
    torch.testing.assert_close(
        finished(GradientAttention(), step), torch.tensor([[[0.5 + 0.5, 0.0]]])
    )


class Modules(nn.Module):
    """The same blocks with torch's own attention module, tokens first or rows first."""

    def __init__(self, twin: nn.Module, *, batch_first: bool) -> None:
        super().__init__()
        self.twin = twin
        self.batch_first = batch_first
        self.attentions = nn.ModuleList()
        for block in twin.blocks:
            attention = nn.MultiheadAttention(8, HEADS, batch_first=batch_first).double()
            with torch.no_grad():
                attention.in_proj_weight.copy_(block.attention.queries_keys_values.weight)
                attention.in_proj_bias.copy_(block.attention.queries_keys_values.bias)
                attention.out_proj.load_state_dict(block.attention.mixed.state_dict())
            self.attentions.append(attention)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.twin.embed(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.twin.first.expand(len(image), -1, -1), patches], 1)
        tokens = tokens + self.twin.positions
        for block, attention in zip(self.twin.blocks, self.attentions, strict=True):
            normed = block.norm1(tokens)
            normed = normed if self.batch_first else normed.transpose(0, 1)
            mixed = attention(normed, normed, normed, need_weights=not self.batch_first)[0]
            tokens = tokens + (mixed if self.batch_first else mixed.transpose(0, 1))
            tokens = tokens + block.perceptron(block.norm2(tokens))
        return self.twin.head(self.twin.norm(tokens)[:, 0])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("method", PAIR, ids=lambda each: each.name)
def test_torchs_attention_module_gives_the_same_maps(method: Method, batch_first: bool) -> None:
    image = image_of()
    plain = runtime_of(vit())
    torch.manual_seed(8)
    model = Modules(strong(vit().build()), batch_first=batch_first)
    modules = TorchRuntime(model, (1, *SIZES[2]), (), tokens=vit().tokens())
    with torch.no_grad():
        torch.testing.assert_close(modules.model(image[None]), plain.model(image[None]))
    ours, theirs = (
        attribute(settled(method, runtime), runtime, image, logits(1, 2))
        for runtime in (modules, plain)
    )
    torch.testing.assert_close(ours.values, theirs.values)


@pytest.mark.parametrize("method", PAIR, ids=lambda each: each.name)
def test_merged_with_another_image_equals_alone_and_leaves_others_fused(method: Method) -> None:
    runtime, images = runtime_of(vit()), (image_of(), image_of(seed=5))
    method = settled(method, runtime)
    fused = attribute(Saliency(), runtime, images[0], logits(0)).values
    alone = [attribute(method, runtime, image, logits(0, 3)).values for image in images]
    plans = [method.plan(image, logits(0, 3)) for image in images]
    *merged, plain = through(
        Scheduler(), runtime, *plans, Saliency().plan(images[0].clone(), logits(0))
    )
    for ours, expected in zip(merged, alone, strict=True):
        torch.testing.assert_close(ours.values, expected, rtol=0, atol=1e-12)
    assert torch.equal(plain.values, fused)
    runtime.check()


def test_both_share_one_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, image = runtime_of(vit()), image_of()
    alone = [attribute(settled(each, runtime), runtime, image, logits(1)).values for each in PAIR]
    calls: list[int] = []
    forward = runtime.forward

    def counted(*asked: Any) -> Any:
        calls.append(1)
        return forward(*asked)

    monkeypatch.setattr(runtime, "forward", counted)
    merged = through(
        Scheduler(), runtime, *(settled(each, runtime).plan(image, logits(1)) for each in PAIR)
    )
    assert calls == [1]
    for ours, expected in zip(merged, alone, strict=True):
        torch.testing.assert_close(ours.values, expected)


class Written(nn.Module):
    """The same blocks; attention is written out in some and fused in the others."""

    def __init__(self, twin: nn.Module, written: tuple[bool, ...]) -> None:
        super().__init__()
        self.twin = twin
        self.written = written

    def forward(self, image: Tensor) -> Tensor:
        patches = self.twin.embed(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.twin.first.expand(len(image), -1, -1), patches], 1)
        tokens = tokens + self.twin.positions
        for block, written in zip(self.twin.blocks, self.written, strict=True):
            parts = block.attention.queries_keys_values(block.norm1(tokens))
            query, key, value = parts.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            if written:
                weights = torch.einsum("bhxd,bhyd->bhxy", query, key) / query.shape[-1] ** 0.5
                mixed = nn.Softmax(dim=3)(weights) @ value
            else:
                mixed = nn.functional.scaled_dot_product_attention(query, key, value)
            tokens = tokens + block.attention.mixed(mixed.transpose(1, 2).flatten(2))
            tokens = tokens + block.perceptron(block.norm2(tokens))
        return self.twin.head(self.twin.norm(tokens)[:, 0])


@pytest.mark.parametrize("written", [(True, True, True), (False, True, False), (True, False, True)])
@pytest.mark.parametrize("method", PAIR, ids=lambda each: each.name)
def test_attention_that_is_written_out_gives_the_same_maps(
    method: Method, written: tuple[bool, ...]
) -> None:
    image, plain = image_of(), runtime_of(vit())
    torch.manual_seed(8)
    model = Written(strong(vit().build()), written)
    runtime = TorchRuntime(model, (1, *SIZES[2]), (), tokens=vit().tokens())
    ours, theirs = (
        attribute(settled(method, each), each, image, logits(1, 2)) for each in (runtime, plain)
    )
    torch.testing.assert_close(ours.values, theirs.values)


class Otherwise(Written):
    """The middle block's attention, or what the network does beside it, is another's."""

    def __init__(self, core: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__(strong(vit().build()), (True, False, True))
        self.core = core

    def forward(self, image: Tensor) -> Tensor:
        fused = nn.functional.scaled_dot_product_attention
        with pytest.MonkeyPatch.context() as patch:
            # the middle block alone asks for the fused one
            patch.setattr(nn.functional, "scaled_dot_product_attention", self.core)
            scores = super().forward(image)
        assert nn.functional.scaled_dot_product_attention is fused
        return scores


def near(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


def by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    raised = near(query, key).exp()
    return raised / raised.sum(-1, keepdim=True) @ value


def linear(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key = query.exp(), key.exp()
    return (
        query
        @ (key.transpose(-1, -2) @ value)
        / (query * key.sum(-2, keepdim=True)).sum(-1, keepdim=True)
    )


def one_by_one(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return query.sigmoid() * (key.exp() * value).sum(2, keepdim=True)


def of_patches(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mixed = value.clone()
    mixed[:, :, 1:] += value[:, :, 1:].flip(2)
    return fused_once(query, key, mixed)


def fused_once(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return near(query, key).softmax(-1) @ value


UNSEEN = {
    "by hand": by_hand,
    "logarithm": lambda q, k, v: near(q, k).log_softmax(-1).exp() @ v,
    "other axis": lambda q, k, v: near(k, q).softmax(-2).transpose(-1, -2) @ v,
    "transposed": lambda q, k, v: near(q, k).softmax(-1).transpose(-1, -2) @ v,
    "sigmoid": lambda q, k, v: near(q, k).sigmoid() @ v,
    "linear": linear,
    "one by one": one_by_one,
    "changed weights": lambda q, k, v: near(q, k).softmax(-1).roll(1, -1) @ v,
    "constant": lambda q, k, v: fused_once(q, k, v) + v.mean(2, keepdim=True),
    "patches alone": of_patches,
}


@pytest.mark.parametrize("core", UNSEEN.values(), ids=UNSEEN)
def test_one_block_whose_attention_is_not_seen_is_not_passed_over(
    core: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    runtime = TorchRuntime(Otherwise(core), (1, *SIZES[2]), (), tokens=vit().tokens())
    assert "in another way" in runtime.probed.unable[Ability.ATTENTION]


def test_the_same_network_with_that_block_seen_is_served() -> None:
    runtime = TorchRuntime(Otherwise(fused_once), (1, *SIZES[2]), (), tokens=vit().tokens())
    assert len(runtime.probed.attentions) == 3


class InPlace(nn.Module):
    """Blocks that add their tokens in place, and gate each by itself."""

    def __init__(self, *, class_token: bool, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.twin = strong(vit(class_token=class_token).build())
        self.read = read

    def forward(self, image: Tensor) -> Tensor:
        patches = self.twin.embed(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.twin.first.expand(len(image), -1, -1), patches], 1)
        tokens += self.twin.positions
        for block in self.twin.blocks:
            tokens = block.attention(block.norm1(tokens)).add_(tokens)
            lifted = block.norm2(tokens)
            tokens = (block.perceptron(lifted) * lifted.sigmoid()).add_(tokens)
        return self.twin.head(self.read(self.twin.norm(tokens)))


@pytest.mark.parametrize(
    ("class_token", "read", "served"),
    [
        (True, lambda tokens: tokens[:, 0], True),
        (True, lambda tokens: tokens.mean(1), False),
        (False, lambda tokens: tokens.mean(1), True),
        (False, lambda tokens: tokens[:, 0], False),
        (False, lambda tokens: tokens.amax(1), False),
    ],
    ids=["class", "mean for class", "mean", "first for mean", "largest for mean"],
)
def test_scores_are_read_as_the_layout_says_or_it_is_refused(
    class_token: bool, read: Callable[[Tensor], Tensor], served: bool
) -> None:
    model = InPlace(class_token=class_token, read=read)
    tokens = vit(class_token=class_token).tokens()
    probed = TorchRuntime(model, (1, *SIZES[2]), (), tokens=tokens).probed
    assert (Ability.ATTENTION in probed.abilities) == served
    assert served or "not read off" in probed.unable[Ability.ATTENTION]


@pytest.mark.parametrize("class_token", [True, False], ids=["class", "mean"])
def test_as_many_tokens_as_a_token_has_numbers_are_told_apart(class_token: bool) -> None:
    shape = vit(class_token=class_token)
    shape = shape.model_copy(update={"width": shape.tokens().count, "heads": 1})
    assert len(runtime_of(shape).probed.attentions) == 3


@pytest.mark.parametrize("axes", [2, 3])
def test_monais_attention_is_what_monai_says_that_it_is(axes: int) -> None:
    size = SIZES[axes]
    shape = MonaiVit(
        in_channels=1,
        num_classes=5,
        img_size=size,
        patch_size=(4,) * axes,
        hidden_size=24,
        mlp_dim=8,
        num_layers=3,
        num_heads=HEADS,
        spatial_dims=axes,
    )
    torch.manual_seed(8)
    model = strong(shape.build())
    runtime = TorchRuntime(model, (1, *size), None, tokens=shape.tokens())
    ours = attribute(settled(AttentionRollout(), runtime), runtime, image_of(axes), logits(1))
    for block in model.blocks:
        block.attn.save_attn = True
    model(image_of(axes)[None])
    whole = torch.eye(runtime.probed.tokens.count, dtype=torch.float64)
    for block in model.blocks:
        whole = (block.attn.att_mat[0].mean(0) + torch.eye(len(whole))) / 2 @ whole
    torch.testing.assert_close(ours.values[0, 0].flatten(), whole[0, 1:])


class Unfused(nn.Module):
    """Attention that is written out row by row: nobody can tell heads from rows."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = strong(vit().build())

    def forward(self, image: Tensor) -> Tensor:
        return torch.stack([by_blocks_quietly(self.twin, each) for each in image])


def by_blocks_quietly(model: nn.Module, image: Tensor) -> Tensor:
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        return by_blocks(model, image)[0]


class Masked(nn.Module):
    """Attention that may not look everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Linear(8, 8)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.width(image.reshape(len(image), 1, -1, 8))
        seen = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True)
        return seen.flatten(1)[:, :5]


@pytest.mark.parametrize(
    ("model", "tokens", "reason"),
    [
        (Unfused(), vit().tokens(), "form that cannot"),
        (Masked().double(), Tokens(0, (4, 3), 8, reads_class=False), "form that cannot"),
        (strong(vit().build()), None, "not known"),
        (strong(vit().build()), Tokens(0, (3, 2), 8, reads_class=False), "no attention of all"),
    ],
    ids=["row by row", "masked", "no layout", "wrong layout"],
)
def test_attention_that_cannot_be_seen_is_refused_with_the_reason(
    model: nn.Module, tokens: Tokens | None, reason: str
) -> None:
    runtime = TorchRuntime(model, (1, *SIZES[2]), (), tokens=tokens)
    assert Ability.ATTENTION not in runtime.probed.abilities
    assert reason in runtime.probed.unable[Ability.ATTENTION]
    ask = Forward(Clean(image_of()), logits(0), taps=(Tap("attention:0"),))
    with pytest.raises(UnservablePass):
        runtime.group(work_of([ask]))


@pytest.mark.parametrize("method", PAIR, ids=lambda each: each.name)
def test_they_cannot_be_planned_before_the_model_is_known(method: Method) -> None:
    with pytest.raises(MethodError):
        method.plan(image_of(), logits(0)).send(None)
    assert not METHODS[method.name].needs <= small_runtime().probed.abilities
