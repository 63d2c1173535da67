"""Heads against values by hand, torch and scikit-learn; in every architecture, exported, folded, in bf16."""

import io
import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from test_models import ARCHITECTURES, build, settled
from torch import nn
from torch.nn import functional

from emoexp.models import folding
from emoexp.models.heads import (
    AdjustedLogits,
    CosineClassifier,
    LearnableWeightScaling,
    NearestClassMean,
    reset,
    sizes,
    unit_length,
)

FEATURES, CLASSES = 5, 3


def means(features: int = FEATURES, classes: int = CLASSES) -> NearestClassMean:
    """Class means of features of length 1, as a training part would leave them."""
    head = NearestClassMean(features, classes)
    head.mean_CF.copy_(0.8 * unit_length(torch.randn(classes, features)))
    return head


def scaled(inner: nn.Module) -> LearnableWeightScaling:
    head = LearnableWeightScaling(inner)
    with torch.no_grad():
        head.scale_C.copy_(torch.linspace(0.5, 1.5, head.out_features))
    return head


def adjusted(inner: nn.Module) -> AdjustedLogits:
    head = AdjustedLogits(inner)
    head.scale.fill_(1.7)
    head.shift_C.copy_(torch.linspace(-1, 2, head.out_features))
    return head


MADE = {
    "normalised": lambda f, c: CosineClassifier(f, c, scale=30),
    "scaled": lambda f, c: scaled(nn.Linear(f, c)),
    "scaled_normalised": lambda f, c: scaled(CosineClassifier(f, c, scale=10.0)),
    "adjusted": lambda f, c: adjusted(nn.Linear(f, c)),
    "adjusted_means": lambda f, c: adjusted(means(f, c)),
    "means": means,
}
every_head = pytest.mark.parametrize("kind", MADE)


def made(kind: str, features: int = FEATURES, classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return MADE[kind](features, classes)


# values


def test_normalised_is_the_scaled_cosine():
    head, feature = made("normalised"), torch.randn(8, FEATURES)
    cosine = functional.cosine_similarity(feature[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(feature), 30 * cosine)
    torch.testing.assert_close(head(7 * feature), head(feature))  # lengths do not matter
    with torch.no_grad():
        before = head(feature)
        head.weight.mul_(3)
        torch.testing.assert_close(head(feature), before)
    assert [name for name, _ in head.named_parameters()] == ["weight"]


def test_normalised_by_hand():
    head = CosineClassifier(2, 2, scale=10)
    head.load_state_dict({"weight": torch.tensor([[2.0, 0.0], [3.0, 4.0]])})
    torch.testing.assert_close(head(torch.tensor([[0.0, 5.0]])), torch.tensor([[0.0, 8.0]]))


def test_normalised_starts_with_directions_of_uniform_draws():
    torch.manual_seed(3)
    head = CosineClassifier(64, 500, scale=30)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(500))
    entries = head.weight.detach() * math.sqrt(64 / 3)  # a uniform draw from -1..1 has a mean square of 1/3
    assert entries.abs().max() < 1.4 and entries.abs().quantile(0.5) == pytest.approx(0.5, abs=0.02)
    torch.manual_seed(3)
    assert torch.equal(CosineClassifier(64, 500, scale=30).weight, head.weight)
    assert not torch.equal(CosineClassifier(64, 500, scale=30).weight, head.weight)


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf, True, "30", None])
def test_normalised_refuses_a_scale(scale):
    with pytest.raises(ValueError, match=r"head normalised: scale .* above 0.*it is"):
        CosineClassifier(2, 2, scale=scale)


def test_scaled_multiplies_the_logits_bias_included():
    inner, feature = nn.Linear(FEATURES, CLASSES), torch.randn(4, FEATURES)
    head = LearnableWeightScaling(inner)
    assert torch.equal(head(feature), inner(feature)) and head.scale_C.ndim == 1
    with torch.no_grad():
        head.scale_C.copy_(torch.tensor([2.0, 1.0, 0.5]))
    torch.testing.assert_close(head(feature), inner(feature) * torch.tensor([2.0, 1.0, 0.5]))
    assert inner.bias.any()
    names = {name for name, _ in head.named_parameters()}
    assert names == {"scale_C", "inner.weight", "inner.bias"}


def test_adjusted_is_neutral_then_scales_and_shifts():
    inner, feature = nn.Linear(FEATURES, CLASSES), torch.randn(4, FEATURES)
    head = AdjustedLogits(inner)
    assert torch.equal(head(feature), inner(feature)) and head.scale.ndim == 0
    head.scale.fill_(0.5)
    head.shift_C.copy_(torch.tensor([1.0, 0.0, -1.0]))
    torch.testing.assert_close(head(feature), inner(feature) / 2 + torch.tensor([1.0, 0.0, -1.0]))
    assert {"scale", "shift_C"} <= head.state_dict().keys()
    assert {id(p) for p in head.parameters()} == {id(p) for p in inner.parameters()}


def test_means_are_nearest_centroids_and_differ_by_distance():
    torch.manual_seed(1)
    label = torch.arange(CLASSES).repeat(40)
    feature = torch.randn(120, FEATURES) + 2 * torch.eye(CLASSES, FEATURES)[label]
    known = unit_length(feature[:60])
    head = NearestClassMean(FEATURES, CLASSES)
    head.mean_CF.copy_(torch.stack([known[label[:60] == c].mean(0) for c in range(CLASSES)]))
    oracle = NearestCentroid().fit(known.numpy(), label[:60].numpy())
    said = head(feature[60:]).argmax(1)
    assert np.array_equal(said.numpy(), oracle.predict(unit_length(feature[60:]).numpy()))
    assert 0 < (said != label[60:]).sum() < 40  # neither perfect nor useless: the oracle can disagree
    squared = torch.cdist(unit_length(feature), head.mean_CF).square() / 2
    apart = head(feature) + squared
    torch.testing.assert_close(apart, apart[:, :1].expand(-1, CLASSES), rtol=0, atol=1e-5)
    assert not list(head.parameters()) and head.state_dict().keys() == {"mean_CF"}


def test_unit_has_length_one_or_zero():
    vector = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-9, 0.0], [3e-4, 4e-4]])
    torch.testing.assert_close(unit_length(vector), torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, 0.0], [0.6, 0.8]]))
    assert unit_length(vector.bfloat16()).dtype == torch.float32 and unit_length(vector.double()).dtype == torch.float64


# gradients, zeros, precision


@every_head
def test_gradients_are_right(kind):
    head = made(kind).double()
    feature = torch.randn(4, FEATURES, dtype=torch.float64, requires_grad=True)
    names, values = zip(*head.named_parameters(), strict=True) if list(head.parameters()) else ((), ())

    def logits(feature, *values):
        return torch.func.functional_call(head, dict(zip(names, values, strict=True)), (feature,))

    assert torch.autograd.gradcheck(logits, (feature, *values))


@every_head
def test_a_feature_of_zeros_does_no_harm(kind):
    head = made(kind)
    feature = torch.zeros(2, FEATURES)
    feature[1, 0] = 1.0
    feature.requires_grad_()
    logits = head(feature)
    functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert logits.isfinite().all() and feature.grad.isfinite().all() and feature.grad.abs().max() < 100
    assert all(p.grad.isfinite().all() for p in head.parameters())
    if kind == "normalised":
        assert not logits[0].any() and not feature.grad[0].any() and feature.grad[1].any()


@every_head
def test_autocast_stays_close(kind):
    head, feature = made(kind, 512, 7), torch.randn(64, 512)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = head(feature)
        from_bf16 = head(feature.bfloat16())
    exact = head(feature)
    assert rounded.dtype == torch.float32
    inexact = kind in ("scaled", "adjusted")  # a linear layer is as precise as autocast has it
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05 if inexact else 0)
    torch.testing.assert_close(from_bf16, exact, rtol=0, atol=0.05)
    functional.cross_entropy(rounded, torch.arange(64) % 7).backward() if list(head.parameters()) else None
    assert all(p.grad.isfinite().all() for p in head.parameters())


# in a model


@every_head
def test_state_goes_round_and_halves_move(kind):
    head, feature = made(kind), torch.randn(4, FEATURES)
    torch.manual_seed(9)
    other = MADE[kind](FEATURES, CLASSES)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(feature), head(feature))
    assert sizes(head) == (FEATURES, CLASSES)
    assert head.double()(feature.double()).dtype == torch.float64


@every_head
def test_export_keeps_the_function(kind):
    model = nn.Sequential(nn.Linear(4, FEATURES), made(kind)).eval()
    batch = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(model, (torch.randn(2, 4),), dynamic_shapes=batch)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    image = torch.randn(7, 4)
    torch.testing.assert_close(torch.export.load(file).module()(image), model(image))
    assert "autocast" not in str(program.graph)  # a program that names no device


@pytest.mark.parametrize("kind", ["normalised", "adjusted_means", "scaled"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_takes_every_head_and_is_folded(architecture, kind):
    network = build(architecture)
    image = torch.randn(5, 1, 32, 32)
    network.classifier = made(kind, *sizes(network.classifier))
    settled(network, image)
    with torch.inference_mode():
        logits = network(image).logits_BC
        assert logits.shape == (5, 7) and torch.equal(logits, network.classifier(network.features(image)))
        own = folding.fold_batch_norms(network, image[:2])
        torch.testing.assert_close(own(image).logits_BC, logits, rtol=1e-3, atol=1e-3)
    norms = any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    assert (own is not network) == norms


# a fresh start


@every_head
def test_fresh_is_a_constructor_in_place(kind):
    head = made(kind)
    kept, pointers = head.state_dict(), [value.data_ptr() for value in head.state_dict().values()]
    before = {name: value.clone() for name, value in kept.items()}
    torch.manual_seed(5)
    reset(head)
    torch.manual_seed(5)
    new = {
        "normalised": lambda: CosineClassifier(FEATURES, CLASSES, scale=30),
        "scaled": lambda: LearnableWeightScaling(nn.Linear(FEATURES, CLASSES)),
        "scaled_normalised": lambda: LearnableWeightScaling(CosineClassifier(FEATURES, CLASSES, scale=10)),
        "adjusted": lambda: AdjustedLogits(nn.Linear(FEATURES, CLASSES)),
        "adjusted_means": lambda: AdjustedLogits(NearestClassMean(FEATURES, CLASSES)),
        "means": lambda: NearestClassMean(FEATURES, CLASSES),
    }[kind]()
    for name, value in new.state_dict().items():
        assert torch.equal(head.state_dict()[name], value), name
        assert not torch.equal(before[name], value), name
    assert [value.data_ptr() for value in head.state_dict().values()] == pointers
    assert all(p.requires_grad for p in head.parameters())


def test_fresh_linear_is_torchs():
    torch.manual_seed(5)
    oracle = nn.Linear(FEATURES, CLASSES)
    head = nn.Linear(FEATURES, CLASSES)
    torch.manual_seed(5)
    reset(head)
    assert torch.equal(head.weight, oracle.weight) and torch.equal(head.bias, oracle.bias)


@pytest.mark.parametrize("function", [reset, sizes, LearnableWeightScaling, AdjustedLogits])
def test_what_is_no_head_is_refused(function):
    with pytest.raises(ValueError, match=r"last layer is one of Linear, .* it is ReLU"):
        function(nn.ReLU())
