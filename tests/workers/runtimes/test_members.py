"""Folds that answer together, against the same answer as one graph, in float64."""

from functools import partial

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from service.domain.manifest import Manifest
from service.errors.models import InvalidPackage, UnservablePass
from service.manifests import read_manifest
from tests.support.engine import folds_of, image_for, logits, run_alone, settled, small_net
from tests.support.small_model import entry_of, model_input, network, picture, write_package
from workers.methods.base import METHODS
from workers.passes import Ability, Exclusive, Forward, Gradient, Tap
from workers.rows import INPUT, Ablated, Clean, Given, Patched
from workers.runtimes.base import RUNTIMES
from workers.runtimes.members import Members, mean, mean_sigmoid, mean_softmax
from workers.runtimes.torch import TorchRuntime
from workers.targets.scalars import LogOdds

LAYER, AXES = "features.4", 2
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
PROBABILITIES = {
    mean: lambda each: each.mean(0),
    mean_softmax: lambda each: each.softmax(2).mean(0).log(),
    mean_sigmoid: lambda each: torch.logit(each.sigmoid().mean(0)),
}


def nets():
    """Three networks of one shape."""
    return folds_of(lambda: small_net(AXES))


@pytest.fixture(params=PROBABILITIES, ids=lambda each: each.__name__)
def both(request):
    """The members as one runtime, and what they say as one graph."""
    networks = nets()
    image = image_for(AXES)
    runtimes = [TorchRuntime(each, image.shape, (LAYER,)) for each in networks]
    slow = PROBABILITIES[request.param]

    def graph(batch):
        return slow(torch.stack([each(batch) for each in networks]))

    return Members(runtimes, request.param), graph, image


def run(runtime, ask):
    def plan():
        return (yield ask)

    return run_alone(plan(), runtime)


TARGETS = (*logits(0, 3), LogOdds(2))


def test_scores_are_those_of_the_mean(both):
    runtime, graph, image = both
    rows = torch.stack([image, image * 0.3])
    step = run(runtime, Forward(Given(rows), TARGETS, outputs=True))
    close(step.outputs, graph(rows).detach())
    close(step.scores, torch.stack([each(graph(rows)) for each in TARGETS], 1).detach())


def test_gradients_are_those_of_the_mean(both):
    runtime, graph, image = both
    rows = torch.stack([image, image * 0.3]).requires_grad_()
    scores = [each(graph(rows)) for each in TARGETS]
    expected = [torch.autograd.grad(s.sum(), rows, retain_graph=True)[0] for s in scores]
    step = run(runtime, Gradient(Given(rows.detach()), TARGETS))
    close(step.gradients[INPUT], torch.stack(expected, 1))


def test_covered_boxes_are_served(both):
    runtime, graph, image = both
    rows = Patched(image, ((slice(2, 6), slice(1, 5)),), 0.7)
    batch = torch.empty(1, *image.shape, dtype=image.dtype)
    rows.fill({INPUT: batch}, 0, 1)
    close(run(runtime, Forward(rows, logits(1))).scores, graph(batch)[:, [1]].detach())


@pytest.mark.parametrize("name", ["grad_cam", "hires_cam", "saliency", "layer_cam"])
def test_a_map_is_the_mean_of_the_members_maps(name):
    image = image_for(AXES)
    runtimes = [TorchRuntime(each, image.shape, (LAYER,)) for each in nets()]
    together = Members(runtimes, mean)
    method = settled(METHODS[name](), together)
    made = run_alone(method.plan(image, logits(0, 2)), together).values
    apart = [run_alone(method.plan(image, logits(0, 2)), each).values for each in runtimes]
    close(made, torch.stack(apart).mean(0))


def test_one_member_runs_after_the_other():
    """So the memory of a batch is one member's."""
    image, order = image_for(AXES), []
    runtimes = []
    for number, net in enumerate(nets()):
        runtimes.append(TorchRuntime(net, image.shape, (LAYER,)))
        served = runtimes[-1].served
        served.forward = _noting(served, order, number)
    together = Members(runtimes, mean)
    run(together, Forward(Clean(image), logits(0)))  # all are probed at first
    order.clear()
    run(together, Forward(Given(torch.stack([image] * 4)), logits(0)))
    assert order == [0, 1, 2]


def _noting(net: nn.Module, order, number):
    forward = net.forward

    def noted(batch):
        order.append(number)
        return forward(batch)

    return noted


def test_what_is_of_one_network_alone_is_refused(both):
    runtime, _, image = both
    lost = {Ability.EXCLUSIVE, Ability.ABLATION, Ability.LINEAR_HEAD}
    assert not lost & runtime.probed.abilities
    assert runtime.probed.unable[Ability.ABLATION]
    assert METHODS["deep_lift"].needs - runtime.probed.abilities
    with pytest.raises(UnservablePass):
        run(runtime, Exclusive(lambda lease: lease.model, 1))
    with pytest.raises(UnservablePass):
        run(runtime, Forward(Ablated(image, LAYER, (0,)), logits(0)))


def test_layers_lie_side_by_side(both):
    runtime, _, image = both
    step = run(runtime, Forward(Clean(image), taps=(Tap(LAYER),)))
    assert step.taps[Tap(LAYER)].shape[1] == 3 * 8


# ------------------------------------------------------------------------- packages


def folds(folder, combine="logits"):
    """A package of two folds."""
    write_package(folder)
    models = [network(seed) for seed in (0, 7)]
    for number, each in enumerate(models):
        save_file(each.state_dict(), folder / f"fold_{number}.safetensors")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    names = ["fold_0.safetensors", "fold_1.safetensors"]
    fields["files"] = [each for each in fields["files"] if each["role"] != "weights"]
    fields["files"] += [entry_of(folder, name, "weights", "safetensors") for name in names]
    fields["members"] = {"weights": names, "combine": combine}
    return fields, models


@pytest.mark.parametrize("combine", ["logits", "probabilities"])
def test_a_package_of_folds_answers_with_their_mean(tmp_path, combine):
    fields, models = folds(tmp_path, combine)
    manifest = Manifest.model_validate(fields)
    image = model_input(picture())
    runtime = RUNTIMES["torch"]().open(manifest, tmp_path, image.shape, torch.device("cpu"))()
    said = torch.stack([each(image[None]) for each in models])
    slow = PROBABILITIES[mean if combine == "logits" else mean_sigmoid]
    step = run(runtime, Forward(Clean(image), outputs=True))
    torch.testing.assert_close(step.outputs, slow(said).detach(), rtol=1e-5, atol=1e-5)
    run(runtime, Gradient(Clean(image), logits(0)))
    runtime.check()


def test_the_digest_covers_every_fold(tmp_path):
    fields, _ = folds(tmp_path)
    before = Manifest.model_validate(fields).weights
    for each in fields["files"]:
        if each["path"] == "fold_1.safetensors":
            each["sha256"] = "0" * 64
    assert Manifest.model_validate(fields).weights != before


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"weights": ["fold_0.safetensors", "plain.dcm"]}, "'members' need files of role"),
        ({"weights": ["fold_0.safetensors"] * 2}, "weights of its own"),
        ({"weights": ["fold_0.safetensors"]}, "at least 2"),
    ],
)
def test_members_that_are_none_are_refused_by_name(tmp_path, members, sentence):
    fields, _ = folds(tmp_path)
    with pytest.raises(InvalidPackage) as caught:
        read_manifest(yaml.safe_dump({**fields, "members": members}).encode())
    assert sentence in str(caught.value.facts)
