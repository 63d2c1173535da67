"""Methods against values by hand, library functions and each other, all from their files and through one training."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from strategies import COUNT, CPU, begun, data, experiment, fitted, loss_of, never, node, plan, row, trained, values
from torch import nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from emoexp.config import build_training, options
from emoexp.data.normalisation import Normalisation
from emoexp.imbalance import ledger, mixing, sampling
from emoexp.models import heads
from emoexp.models.network import Output
from emoexp.training import loop, posthoc_fit, sharpness, step
from emoexp.training.augment import Policy
from emoexp.training.batches import Target, TrainingSamples, load_batch
from emoexp.training.sharpness import Sharpness

N = (90, 9, 1)
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.2, 0.1], [-1.0, 3.0, 0.0]])
TARGET = torch.tensor([0, 2, 1])
FEATURE = torch.tensor([[0.5, 0.0, 1.5], [2.0, -0.3, 0.1], [0.2, 0.2, 0.0]])
CE = functional.cross_entropy(LOGITS, TARGET, reduction="none")
every_loss = pytest.mark.parametrize("name", options.listed("imbalance/loss"))


def loss(name, count=N, **keys):
    return loss_of({"loss": node("loss", name, **keys)}, count)


def valued(name, count=N, logits=LOGITS, target=TARGET, **keys):
    return values(loss(name, count, **keys), logits, target, FEATURE[: len(logits)], count)


def sloped(value, logits):
    """The gradient of a sum."""
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(value(logits).sum(), logits)[0]


def same(one, other, logits=LOGITS):
    """Equal values and gradients of two functions of logits."""
    torch.testing.assert_close(one(logits), other(logits), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sloped(one, logits), sloped(other, logits), rtol=1e-5, atol=1e-6)


# focal losses


def test_focal_by_hand():
    np.testing.assert_allclose(valued("focal"), [0.0041443, 0.6672770, 0.00026784], rtol=2e-5)
    assert float(valued("focal").mean()) == pytest.approx(0.223896, abs=1e-6)
    same(
        lambda z: valued("focal", logits=z, gamma=0.0), lambda z: functional.cross_entropy(z, TARGET, reduction="none")
    )


@pytest.mark.parametrize(("p", "ratio"), [(0.5, 1 / 4), (0.9, 1 / 100), (0.968, 1 / 976.6)])
def test_focal_ratios_of_the_paper(p, ratio):
    logits = torch.tensor([[p, 1 - p]], dtype=torch.float64).log()
    value = valued("focal", (1, 1), logits, torch.tensor([0]), gamma=2.0)
    assert float(value) / -math.log(p) == pytest.approx(ratio, rel=1e-3)


def test_focus_is_of_the_unweighted_probability():
    logits = torch.tensor([[0.9, 0.1]]).log()
    target = Target(torch.tensor([0]))
    made = loss("focal", (1, 1))
    constants = made.constants(torch.tensor([1, 1]), torch.full((2,), 0.5), torch.tensor([2.0, 1.0]), CPU)
    value = step.mean_loss(made.formula, constants, Output(logits, logits), target, 0.5)
    assert float(value) == pytest.approx(0.0021072, rel=1e-4)  # not 0.0076070


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_against_the_rest_is_torchvisions(gamma):
    hot = functional.one_hot(TARGET, 3).float()

    def theirs(z):
        return sigmoid_focal_loss(z - math.log(2), hot, alpha=-1, gamma=gamma).sum(1)

    same(lambda z: valued("focal_ovr", logits=z, gamma=gamma), theirs)
    if gamma == 0:
        plain = functional.binary_cross_entropy_with_logits(LOGITS - math.log(2), hot, reduction="none").sum(1)
        torch.testing.assert_close(valued("focal_ovr", gamma=0.0), plain)


def test_a_network_that_says_nothing_gives_each_class_its_part():
    value = valued("focal_ovr", logits=torch.zeros(1, 3), target=torch.tensor([1]), gamma=0.0)
    assert float(value) == pytest.approx(-math.log(1 / 3) - 2 * math.log(2 / 3))


def test_squared_hinge_by_hand():
    value = valued("squared_hinge", logits=torch.tensor([[0.5, -2.0, 0.0]]), target=torch.tensor([0]))
    assert float(value) == pytest.approx(0.5**2 + 0 + 1)


# margins


def cosines(count, scale, **keys):
    """LDAM of two cosines, 0.6 and 0.2, through its own head."""
    made = experiment({"loss": node("loss", "ldam", scale=scale, **keys)})
    assert made.imbalance.head().plain() == {"kind": "normalised", "scale": scale}
    head = heads.CosineClassifier(2, 2, scale=scale)
    head.load_state_dict({"weight": torch.tensor([[3.0, 4.0], [0.4, math.sqrt(3.84)]])})
    logits = head(torch.tensor([[7.0, 0.0]] * 2)).detach()
    return valued("ldam", count, logits, torch.tensor([0, 1]), scale=scale, **keys), logits


def test_ldam_by_hand():
    torch.testing.assert_close(loss("ldam", (16, 1), scale=1.0).margin_C, torch.tensor([0.25, 0.5]).double())
    np.testing.assert_allclose(cosines((16, 1), 1.0)[0], [0.6209570, 1.241154], rtol=1e-6)
    np.testing.assert_allclose(cosines((16, 1), 30.0)[0], [0.011048, 27.0000], rtol=1e-4)
    long_tailed = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    margin_C = loss("ldam", long_tailed).margin_C / 30
    assert float(margin_C[0]) == pytest.approx(0.158114, abs=1e-6) and float(margin_C[9]) == 0.5


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_ldam_without_a_margin_is_cross_entropy_of_the_scaled_cosines(scale):
    value, logits = cosines((16, 1), scale, margin=0.0)
    cosine = torch.tensor([[0.6, 0.2]] * 2)
    torch.testing.assert_close(logits, scale * cosine)
    torch.testing.assert_close(value, functional.cross_entropy(scale * cosine, torch.tensor([0, 1]), reduction="none"))


# shifts and temperatures

PRIOR_LOSSES = [("balanced_softmax", {}), ("logit_adjusted", {"tau": 1.0}), ("vs", {"gamma": 0.0, "tau": 1.0})]


@pytest.mark.parametrize(("name", "keys"), PRIOR_LOSSES)
def test_balanced_softmax_is_logit_adjustment_is_vector_scaling(name, keys):
    shifted = torch.tensor(N).log()  # a constant more than the log of the prior
    same(
        lambda z: valued(name, logits=z, **keys),
        lambda z: functional.cross_entropy(z + shifted, TARGET, reduction="none"),
    )
    np.testing.assert_allclose(
        valued(name, (3, 1), torch.zeros(2, 2), torch.tensor([0, 1]), **keys), [0.2876821, 1.3862944], rtol=1e-6
    )
    slope = sloped(lambda z: valued(name, logits=z, target=torch.tensor([2]), **keys), torch.zeros(1, 3))
    np.testing.assert_allclose(slope[0], [0.90, 0.09, -0.99], atol=1e-6)


def test_cross_entropys_slope_beside_it():
    slope = sloped(lambda z: valued("cross_entropy", logits=z, target=torch.tensor([2])), torch.zeros(1, 3))
    np.testing.assert_allclose(slope[0], [1 / 3, 1 / 3, -2 / 3], atol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_logit_adjusted_loss_is_its_other_form(tau):
    prior = torch.tensor(N) / 100
    expected = [
        math.log(1 + sum((prior[j] / prior[y]) ** tau * math.exp(z[j] - z[y]) for j in range(3) if j != y))
        for z, y in zip(LOGITS.tolist(), TARGET.tolist(), strict=True)
    ]
    np.testing.assert_allclose(valued("logit_adjusted", tau=tau), expected, rtol=1e-5, atol=1e-6)


def test_vector_scaling_by_hand():
    made = loss("vs", (16, 1), gamma=0.25, tau=1.0)
    np.testing.assert_allclose(made.scale_C, [1, 0.5])
    np.testing.assert_allclose(made.shift_C, [-0.060625, -2.833213], atol=1e-6)
    both, ones = torch.tensor([0, 1]), torch.ones(2, 2)
    np.testing.assert_allclose(
        valued("vs", (16, 1), ones, both, gamma=0.25, tau=1.0), [0.0372073, 3.3097960], rtol=1e-5
    )
    np.testing.assert_allclose(valued("cdt", (16, 1), ones, both, gamma=0.25), [0.4740770, 0.9740770], rtol=1e-6)
    np.testing.assert_allclose(valued("vs", gamma=0.0, tau=0.0), CE)
    torch.testing.assert_close(valued("vs", gamma=0.3, tau=0.0), valued("cdt", gamma=0.3))
    torch.testing.assert_close(valued("vs", gamma=0.0, tau=1.7), valued("logit_adjusted", tau=1.7))


def test_balanced_softmax_takes_the_prior_that_mixing_leaves():
    (stage,) = plan({"loss": "balanced_softmax", "mix": "balanced_mixup"}, N, epochs=1).per_epoch
    np.testing.assert_allclose(stage.loss.shift_C.exp(), np.array(N) / 100 * 5 / 6 + 1 / 18, rtol=1e-5)
    np.testing.assert_allclose(ledger.effective_prior(stage), 1 / 3)


@pytest.mark.parametrize("sampler", ["inverse", "class_aware"])
def test_a_balanced_sampler_leaves_balanced_softmax_nothing_to_do(sampler):
    made = loss_of({"loss": "balanced_softmax", "sampling": sampler}, N)
    same(lambda z: values(made, z, TARGET), lambda z: functional.cross_entropy(z, TARGET, reduction="none"))


def test_a_square_root_sampler_leaves_balanced_softmax_half():
    made = loss_of({"loss": "balanced_softmax", "sampling": "sqrt"}, N)
    torch.testing.assert_close(values(made, LOGITS, TARGET), valued("logit_adjusted", tau=0.5))


# smoothing and influence


@pytest.mark.parametrize(("shape", "middle"), [("concave", 0.212132), ("linear", 0.15), ("convex", 0.087868)])
def test_label_aware_smoothing_by_hand(shape, middle):
    found = loss(
        "label_aware_smoothing", (199, 100, 1), frequent=0.3, rare=0.0, shape=shape
    ).smoothing_C  # 100 is midway
    np.testing.assert_allclose(found, [0.3, middle, 0.0], atol=1e-6)


def test_label_aware_smoothing_alike_is_torchs_label_smoothing():
    def theirs(z):
        return functional.cross_entropy(z, TARGET, reduction="none", label_smoothing=0.2)

    same(lambda z: valued("label_aware_smoothing", logits=z, frequent=0.2, rare=0.2), theirs)
    same(lambda z: valued("cross_entropy", logits=z, smoothing=0.2), theirs)


def test_label_aware_smoothing_by_class_is_torchs_of_each():
    smoothing_C = loss("label_aware_smoothing").smoothing_C.tolist()
    assert smoothing_C[0] > smoothing_C[1] > smoothing_C[2] == 0
    expected = [
        float(functional.cross_entropy(LOGITS[k], TARGET[k], label_smoothing=smoothing_C[TARGET[k]])) for k in range(3)
    ]
    np.testing.assert_allclose(valued("label_aware_smoothing"), expected, rtol=1e-6)


def test_influence_balanced_by_hand():
    made = loss("influence_balanced", (1, 1), alpha=1.0, epsilon=1e-9)
    value = values(made, torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[-0.5, 1.5]]), (1, 1))
    assert float(value) == pytest.approx(0.346574, abs=1e-6)


@pytest.mark.parametrize("detach", [False, True])
def test_influence_balanced_is_the_papers_in_values_and_slopes(detach):
    made = loss("influence_balanced", alpha=1000.0, detach=detach, epsilon=1e-3)
    z, h = LOGITS.clone().requires_grad_(), FEATURE.clone().requires_grad_()
    ours = torch.autograd.grad(values(made, z, TARGET, h, N).sum(), (z, h), allow_unused=detach)
    gap = (z.softmax(1) - functional.one_hot(TARGET, 3)).abs().sum(1)
    factor = 1 / (gap * h.abs().sum(1) + 1e-3)
    if detach:
        factor = factor.detach()
    theirs = 1000 * factor * functional.cross_entropy(z, TARGET, reduction="none")
    torch.testing.assert_close(values(made, z, TARGET, h, N), theirs)
    expected = torch.autograd.grad(theirs.sum(), (z, h), allow_unused=detach)
    torch.testing.assert_close(ours[0], expected[0])
    assert (ours[1] is None) == detach == (expected[1] is None)
    assert detach or (torch.testing.assert_close(ours[1], expected[1]) is None and bool(ours[1].any()))


def test_slopes_of_influence_on_features_are_those_of_its_values():
    made = loss("influence_balanced", alpha=1.0)
    feature = FEATURE.clone().requires_grad_()
    slope = torch.autograd.grad(values(made, LOGITS, TARGET, feature, N).sum(), feature)[0]
    for place in ((0, 0), (1, 1), (2, 0)):  # away from the kink at 0
        apart = torch.zeros(3, 3)
        apart[place] = 1e-2
        ends = [values(made, LOGITS.double(), TARGET, FEATURE.double() + s * apart, N).sum() for s in (-1, 1)]
        assert float((ends[1] - ends[0]) / 2e-2) == pytest.approx(float(slope[place]), rel=1e-2)


# weights and their reductions


def weight_of(name, count=N, sampler="uniform", **keys):
    stage = plan({"weights": node("weights", name, **keys), "sampling": sampler}, count).per_epoch[-1]
    return stage.weight_C


def test_weights_by_hand():
    from sklearn.utils.class_weight import compute_class_weight

    np.testing.assert_allclose(weight_of("inverse"), [0.370370, 3.703704, 33.333333], atol=1e-6)
    label = np.repeat([0, 1, 2], N)
    np.testing.assert_allclose(weight_of("inverse"), compute_class_weight("balanced", classes=np.arange(3), y=label))
    np.testing.assert_allclose(weight_of("sqrt"), [0.781572, 2.471546, 7.414639], atol=1e-6)
    np.testing.assert_allclose(weight_of("none"), 1)
    scaled = weight_of("effective_number", (1, 2, 3), beta=0.9)
    np.testing.assert_allclose(scaled * 3 / scaled.sum(), [1.582847, 0.833077, 0.584076], atol=1e-6)
    long_tailed = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    found = weight_of("effective_number", long_tailed)  # 0.9999 is the file's
    published = [0.050611, 0.076900, 0.121134, 0.195037, 0.318805, 0.524590, 0.868349, 1.442627, 2.409223, 3.992724]
    np.testing.assert_allclose(found * 10 / found.sum(), published, atol=1e-6)


@pytest.mark.parametrize("column", ["weights", "sampling"])
def test_effective_numbers_at_their_limits(column):
    if column == "weights":
        nothing, inverse = weight_of("none"), weight_of("inverse")
    else:
        nothing, inverse = share_of("uniform"), share_of("inverse")

    def found(beta):
        stage = plan({column: node(column, "effective_number", beta=beta)}, N).per_epoch[-1]
        return stage.weight_C if column == "weights" else stage.share_C

    torch.testing.assert_close(found(0.0), nothing)
    torch.testing.assert_close(found(1 - 1e-9), inverse, rtol=1e-6, atol=0)


def reduced(name, weight, logits=LOGITS, target=None, **keys):
    """The mean loss of a batch with these weights."""
    made = loss(name, **keys)
    constants = made.constants(torch.tensor(N), torch.tensor(N) / 100, torch.tensor(weight), CPU)
    target = target or Target(TARGET)
    return step.mean_loss(made.formula, constants, Output(FEATURE, logits), target, 0.5)


def test_reductions_by_hand():
    assert float(reduced("cross_entropy", [1.0, 1, 1])) == pytest.approx(0.505276, abs=1e-6)
    assert float(reduced("cross_entropy", [1.0, 10, 100])) == pytest.approx(42.946194, abs=1e-5)
    soft = values(loss("cross_entropy"), LOGITS, functional.one_hot(TARGET, 3).float())
    assert float((soft * torch.tensor([1.0, 100, 10])).mean()) == pytest.approx(42.946194, abs=1e-5)
    smooth = reduced("cross_entropy", [1.0, 10, 100], smoothing=0.1) * 3 / 111  # over the sum of weights
    assert float(smooth) == pytest.approx(1.168215, abs=1e-6)
    assert float(reduced("cross_entropy", [1.0, 10, 100]) * 3 / 111) == pytest.approx(1.160708, abs=1e-6)


# mixing

OTHER, SHARE = torch.tensor([1, 0, 0]), torch.tensor([0.7, 0.2, 1.0])


@every_loss
def test_a_mixed_image_has_both_labels_losses_each_with_its_weight(name):
    weight = [0.5, 2.0, 7.0]
    mixed = Target(TARGET, OTHER, SHARE)
    one, other = (
        values(loss(name), LOGITS, target, FEATURE, N) * torch.tensor(weight)[target] for target in (TARGET, OTHER)
    )
    expected = (SHARE * one + (1 - SHARE) * other).mean()
    torch.testing.assert_close(reduced(name, weight, target=mixed), expected)
    soft = SHARE[:, None] * functional.one_hot(TARGET, 3) + (1 - SHARE[:, None]) * functional.one_hot(OTHER, 3)
    mean_weight = (values(loss(name), LOGITS, soft, FEATURE, N) * (soft @ torch.tensor(weight))).mean()
    assert abs(float(mean_weight - expected)) > 1e-3  # which is another thing


def test_remix_by_hand():
    mix = plan({"mix": "remix"}, N).columns.mix
    assert (mix.kappa, mix.tau) == (3, 0.5)
    table = [(300, 100, 0.4, 0), (300, 100, 0.6, 0.6), (100, 300, 0.6, 1), (100, 300, 0.4, 0.4), (299, 100, 0.4, 0.4)]
    for count, other, lam, expected in table:
        found = mix.label_lam(torch.tensor(lam).double(), torch.tensor(count), torch.tensor(other))
        assert float(found) == pytest.approx(expected)


def test_remix_at_equal_counts_is_mixup():
    equal = data((9, 9, 9, 9))
    one, other = (trained(experiment({"mix": name}), equal) for name in ("remix", "mixup"))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_mixup_that_keeps_all_of_the_image_is_no_mixing(monkeypatch):
    plain = trained(experiment({"weights": "inverse"}))
    assert not torch.equal(trained(experiment({"weights": "inverse", "mix": "mixup"}))[1], plain[1])
    monkeypatch.setattr(mixing.Mix, "quantile", lambda mix, u: torch.ones_like(u))
    kept = trained(experiment({"weights": "inverse", "mix": "mixup"}))
    assert all(torch.equal(a, b) for a, b in zip(kept, plain, strict=True))


def test_the_ends_of_a_run_are_not_mixed():
    stages = plan({"mix": node("mix", "cmo", edge=0.2)}, N, epochs=10).per_epoch
    assert [stage.mix is not None for stage in stages] == [False] * 2 + [True] * 6 + [False] * 2
    with pytest.raises(ValueError, match="mixes in none of the 2 epochs"):
        plan({"mix": node("mix", "cmo", edge=0.3)}, N, epochs=2)


def pictures(columns, count=(6, 6), size=48, draws=400):
    """Batches of images of one colour a class: black for the first, white for the second."""
    worked = dataclasses.replace(plan(columns, count), epoch_size=draws)
    image = torch.zeros(sum(count), 1, size, size, dtype=torch.uint8)
    image[count[0] :] = 255
    none = Policy()
    return TrainingSamples(image, torch.arange(sum(count)), worked, none, none, False, seed=0, device=CPU)


def whole_epoch(made, epoch):
    """All images of an epoch, in 0..1, and their target."""
    return load_batch(made.image_NCHW, Normalisation(0.0, 1.0), CPU, made.epoch_samples(epoch), slice(None))


@pytest.mark.parametrize("name", [n for n in options.listed("imbalance/mix") if n != "none"])
def test_labels_are_the_shares_of_the_pixels(name):
    made = pictures({"mix": name})
    image, target = whole_epoch(made, 1)
    label_B = target.share_B * target.label_B + (1 - target.share_B) * target.other_B
    torch.testing.assert_close(image.mean((1, 2, 3)), label_B, rtol=0, atol=1e-5)
    assert ((target.label_B != target.other_B) & (target.share_B < 1) & (target.share_B > 0)).any()
    one = image[target.label_B == target.other_B]
    torch.testing.assert_close(one, one[:, :, :1, :1].expand_as(one).clone())  # a colour mixed with itself
    if made.strategy.columns.mix.paste:
        assert set(image.unique().tolist()) == {0.0, 1.0}


def test_a_paste_on_small_images_is_whole_pixels_and_counts_them():
    made = pictures({"mix": "cutmix"}, size=8)
    image, target = whole_epoch(made, 0)
    label_B = target.share_B * target.label_B + (1 - target.share_B) * target.other_B
    torch.testing.assert_close(image.mean((1, 2, 3)), label_B, rtol=0, atol=1e-6)
    torch.testing.assert_close((target.share_B * 64).round(), target.share_B * 64, rtol=0, atol=1e-4)


def test_the_rarer_label_stands_for_a_remixed_picture():
    made = pictures({"mix": "remix"}, count=(30, 3), draws=2000)
    image, target = whole_epoch(made, 0)
    white_B = image.mean((1, 2, 3))
    label_B = target.share_B * target.label_B + (1 - target.share_B) * target.other_B
    unlike = target.label_B != target.other_B
    assert unlike.any() and bool((label_B[unlike & (white_B > 0.5)] == 1).all())  # 1: the rarer
    torch.testing.assert_close(
        label_B[unlike & (white_B < 0.49)], white_B[unlike & (white_B < 0.49)], rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1.0, 0.2), (0.3, 1.0), (0.4, 0.7)])
def test_the_weight_of_an_image_is_drawn_from_beta(a, b):
    from scipy.stats import beta

    mix, u = mixing.Mix(alpha=a, beta=b), torch.linspace(0.001, 0.999, 99).double()
    np.testing.assert_allclose(mix.quantile(u), beta(a, b).ppf(u), rtol=1e-9)
    count = torch.ones(2000, dtype=torch.int64)
    lam_E = mixing.draw(mix, count, count, (8, 8), seed=0, epoch=0).lam_E
    assert float(lam_E.mean()) == pytest.approx(a / (a + b), abs=0.03)


# sampling


def share_of(name, count=N, epochs=3, epoch=-1, **keys):
    return plan({"sampling": node("sampling", name, **keys)}, count, epochs=epochs).per_epoch[epoch].share_C


def test_shares_by_hand():
    np.testing.assert_allclose(share_of("sqrt"), [0.703414, 0.222439, 0.074146], atol=1e-6)
    np.testing.assert_allclose(share_of("uniform"), [0.9, 0.09, 0.01])
    np.testing.assert_allclose(share_of("inverse"), 1 / 3)
    np.testing.assert_allclose(share_of("power"), np.array(N) ** 0.25 / (np.array(N) ** 0.25).sum())
    np.testing.assert_allclose(share_of("power", exponent=1.0), share_of("uniform"))
    repeated = np.array([0.9, 0.09 * math.sqrt(1 / 3 / 0.09), 0.01 * math.sqrt(1 / 3 / 0.01)])
    np.testing.assert_allclose(share_of("repeat_factor"), repeated / repeated.sum())
    np.testing.assert_allclose(share_of("repeat_factor", threshold=0.01), share_of("uniform"))


def test_progressive_goes_from_natural_to_balanced():
    shares = [share_of("progressive", epochs=99, epoch=epoch) for epoch in (0, 49, 98)]
    np.testing.assert_allclose(shares[1], [0.616667, 0.211667, 0.171667], atol=1e-6)  # the middle of the 50th of 99
    np.testing.assert_allclose(shares[0] + shares[2], 2 * shares[1])  # linear
    np.testing.assert_allclose(sampling.progressive(torch.tensor(N), 0.0, exponent=0.0), share_of("uniform"))
    np.testing.assert_allclose(sampling.progressive(torch.tensor(N), 1.0, exponent=0.0), share_of("inverse"))


def test_how_many_different_images_an_epoch_draws():
    worked = plan({"sampling": "inverse"}, N)
    told = [line["unique"] for line in ledger.rows(worked, "abc")]
    exact = [n * (1 - (1 - 1 / n) ** (100 / 3)) for n in N]  # of exactly 100/3 draws each
    np.testing.assert_allclose(exact, [27.986, 8.823, 1], atol=5e-4)
    np.testing.assert_allclose(
        told, [n * (1 - (1 - 1 / n / 3) ** 100) for n in N], atol=0.005
    )  # as many as chance has it
    drawn = [worked.label_P[worked.order(0, seed).unique()] for seed in range(400)]
    seen = np.mean([torch.bincount(label, minlength=3).numpy() for label in drawn], axis=0)
    np.testing.assert_allclose(seen, told, atol=0.5)


def items_by_class(worked, epochs, seed=0):
    """The items of each class in the order of their draws, epoch after epoch."""
    items = [worked.order(epoch, seed) for epoch in epochs]
    assert all(len(of) == worked.epoch_size for of in items)
    return [[of[worked.label_P[of] == c].tolist() for of in items] for c in range(len(worked.count_C))]


@pytest.mark.parametrize("count", [(12, 6, 3), (11, 5, 3), (90, 9, 1), (40, 40, 2, 1)])
def test_all_images_of_a_class_are_drawn_before_one_is_drawn_again(count):
    """Within each n_c draws of a class, counted from the beginning of the run, no image comes twice."""
    worked = plan({"sampling": "class_aware"}, count, epochs=6)
    for number, of in zip(count, items_by_class(worked, range(6)), strict=True):
        items = [item for epoch in of for item in epoch]
        passes = [items[k : k + number] for k in range(0, len(items), number)]
        assert all(len(set(of_pass)) == len(of_pass) for of_pass in passes)
        assert number == 1 or len(passes) < 4 or len({tuple(of_pass) for of_pass in passes}) > 1  # shuffled again


@pytest.mark.parametrize("count", [(12, 6, 3), (11, 5, 3), (90, 9, 1), (6, 6, 6)])
def test_classes_take_turns_once_a_round(count):
    worked = plan({"sampling": "class_aware"}, count)
    label = worked.label_P[worked.order(1, 0)]
    rounds = label.split(len(count))
    assert all(sorted(of.tolist()) == list(range(len(count))) for of in rounds if len(of) == len(count))
    assert len({tuple(of.tolist()) for of in rounds}) > 1


def test_draws_without_replacement_begin_with_the_second_stage():
    worked = plan("crt", (12, 6, 3), epochs=10)
    assert worked.second_stage_start == 8
    for number, (early, *late) in zip((12, 6, 3), items_by_class(worked, (0, 8, 9)), strict=True):
        assert sorted(early) == sorted(set(early)) and len(early) == number  # natural: each once
        items = [item for epoch in late for item in epoch]
        assert all(len(set(items[k : k + number])) == len(items[k : k + number]) for k in range(0, len(items), number))


def test_draws_with_replacement_repeat_images():
    worked = plan({"sampling": node("sampling", "class_aware", replacement=True)}, (12, 6, 3))
    assert any(len(set(of[0][:6])) < len(of[0][:6]) for of in items_by_class(worked, [0]))


# sharpness-aware minimisation


def derive(model, parameters, rho, tail_C, forward, loss_of):
    """Gradients of sharpness-aware minimisation, as a step leaves them."""
    output = forward()
    kwargs = {"rho": rho, "tail_C": tail_C, "model": model, "parameters": parameters}
    sharpness.backward(output, loss_of(output, None), forward=forward, loss_of=loss_of, **kwargs)


class Bowl(nn.Module):
    """½ Σ c·w², at weights of 1."""

    def __init__(self, *curvature):
        super().__init__()
        self.weight, self.curvature = nn.Parameter(torch.ones(len(curvature)).double()), torch.tensor(curvature)

    def slope(self, rho, tail=None):
        def forward():
            return Output(self.weight, self.weight)

        def loss_of(output, tail_C):
            return (self.curvature * output.feature_BF**2).sum() / 2

        derive(self, [self.weight], rho, tail, forward, loss_of)
        return self.weight.grad


def test_sharpness_by_hand():
    bowl = Bowl(1.0)
    optimizer = torch.optim.SGD(bowl.parameters(), lr=0.1)
    torch.testing.assert_close(bowl.slope(0.1), torch.tensor([1.1]).double())
    assert bowl.weight.tolist() == [1.0]  # back where it was
    optimizer.step()
    assert bowl.weight.tolist() == [pytest.approx(0.89)]
    np.testing.assert_allclose(Bowl(1.0, 4.0).slope(0.1), [1.024254, 4.388057], atol=1e-6)


def sharp(name, **keys):
    return experiment({"optimizer": node("optimizer", name, **keys), "weights": "sqrt"})


def bits(made, sharpened=None, images=None):
    """The weights that a training ends with."""
    recipe, state = begun(made, images)
    if sharpened is not None:
        step_setup = dataclasses.replace(recipe.step_setup, sharpness_rho=sharpened.rho)
        recipe = dataclasses.replace(recipe, step_setup=step_setup, tail_C=sharpened.tail_C)
    list(loop.fit(recipe, state, never))
    return state.model.state_dict()


def equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", options.listed("optimizer"))
def test_no_radius_is_the_optimizer_itself(name):
    nothing, usual = sharp(name, rho=0.0, tail=None), sharp("adamw" if "sam" in name else name)
    assert equal(bits(nothing), bits(usual)) and not equal(bits(sharp(name, rho=0.3, tail=None)), bits(usual))


def test_a_tail_of_all_classes_is_plain_sharpness_and_one_of_none_the_optimizer():
    whole = bits(sharp("sam", rho=0.3))
    assert equal(bits(sharp("sam_tail", rho=0.3, tail=1e6)), whole)
    assert equal(bits(sharp("sam"), Sharpness(0.3, torch.ones(4))), whole)
    assert equal(bits(sharp("sam"), Sharpness(0.3, torch.zeros(4))), bits(sharp("adamw")))


def test_a_batch_without_the_tail_takes_the_optimizers_step():
    absent = data((36, 12, 5, 0))
    worked = Sharpness(0.3, torch.tensor([0.0, 0, 0, 1]))
    assert equal(bits(sharp("sam"), worked, absent), bits(sharp("adamw"), None, absent))


def test_the_tail_is_what_lies_below_a_part_of_the_mean():
    sam_tail = experiment({"optimizer": "sam_tail"}).optimizer
    found = build_training.sharpness_of(sam_tail, torch.tensor([36, 12, 5, 1]))
    assert found.rho == 0.05 and found.tail_C.tolist() == [0, 0, 1, 1]  # the mean is 13.5
    with pytest.raises(ValueError, match=r"optimizer\.tail=0\.5: no class"):
        build_training.sharpness_of(sam_tail, torch.tensor([9, 9, 9]))


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["sam", "sam_tail"])
def test_a_batch_is_counted_once(name):
    recipe, state = begun(experiment({"optimizer": name}))
    plain = copy.deepcopy(state.model)
    stops = iter([False, True])
    with pytest.raises(loop.Interrupted):
        list(loop.fit(recipe, state, lambda *ignored: next(stops, True) or True))
    plan, step_setup = recipe.plan_epoch(begun(experiment({"optimizer": name}))[1]), recipe.step_setup
    image, _ = load_batch(step_setup.image_NCHW, step_setup.normalisation, CPU, plan.samples, plan.rows(0))
    plain.train().features(image)
    for one, other in zip(norms(state.model), norms(plain), strict=True):
        assert torch.equal(one.running_mean, other.running_mean) and torch.equal(one.running_var, other.running_var)
        assert one.num_batches_tracked == 1 and one.track_running_stats and bool(one.running_mean.any())


def test_the_tails_gradient_is_taken_uphill_and_the_heads_here():
    """Against the paper's two passes written out, without what is drawn and without batch norms."""
    torch.manual_seed(0)
    net, image, label = nn.Linear(5, 3), torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 2, 1])
    tail_C, theirs = torch.tensor([0.0, 0.0, 1.0]), copy.deepcopy(net)

    def mean(out, factor_C):
        value_B = functional.cross_entropy(out[1], label, reduction="none")
        return (value_B if factor_C is None else value_B * factor_C[label]).mean()

    def forward(model):
        return Output(image, model(image))

    derive(net, [*net.parameters()], 0.2, tail_C, lambda: forward(net), mean)
    head = torch.autograd.grad(mean(forward(theirs), 1 - tail_C), [*theirs.parameters()])
    uphill = torch.autograd.grad(mean(forward(theirs), tail_C), [*theirs.parameters()])
    length = torch.cat([slope.flatten() for slope in uphill]).norm()
    with torch.no_grad():
        for parameter, slope in zip(theirs.parameters(), uphill, strict=True):
            parameter += 0.2 * slope / length
    tail = torch.autograd.grad(mean(forward(theirs), tail_C), [*theirs.parameters()])
    for parameter, one, other in zip(net.parameters(), head, tail, strict=True):
        torch.testing.assert_close(parameter.grad, one + other)


# two stages


def stages(columns, **keys):
    """The model's state where the second stage begins, after its first step, and at the end; and the recipe."""
    recipe, state = begun(experiment(columns, **keys))
    seen = []

    def watch(number, steps):
        first = recipe.samples.strategy.second_stage_start
        if (state.epoch, number) in ((first - 1, steps), (first, 1)):
            seen.append(copy.deepcopy(state.model.state_dict()))
        return False

    list(loop.fit(recipe, state, watch))
    return *seen, copy.deepcopy(state.model.state_dict()), recipe


def retrained(retrain, **keys):
    return {"sampling": "class_aware", "schedule": node("schedule", "two_stage", retrain=retrain, **keys)}


@pytest.mark.parametrize("statistics", ["update", "frozen"])
@pytest.mark.parametrize("retrain", ["fresh", "kept", "scale", "both"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "sam"])
def test_features_are_frozen_in_the_second_part(retrain, statistics, optimizer):
    columns = retrained(retrain, norms=statistics) | {"optimizer": optimizer}
    before, _, after, recipe = stages(columns)
    assert recipe.samples.strategy.second_stage_start == 2
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    buffers = {key for key in before if "running_" in key or "num_batches" in key}
    assert (moved & buffers) == (buffers if statistics == "update" else set())
    classifier = {key for key in before if key.startswith("classifier.")}
    learnt = {
        "scale": {"classifier.scale_C"},
        "both": {"classifier.scale_C", "classifier.inner.weight", "classifier.inner.bias"},
    }.get(retrain, {"classifier.weight", "classifier.bias"})
    assert moved - buffers == learnt <= classifier


def test_factors_wait_for_the_second_part():
    before, first, after, _ = stages(retrained("scale"))
    assert torch.equal(before["classifier.scale_C"], torch.ones(4))
    assert not torch.equal(first["classifier.scale_C"], torch.ones(4))
    assert not torch.equal(after["classifier.scale_C"], first["classifier.scale_C"])


def recording(fresh, kept):
    def recorded(head):
        fresh(head)
        kept.append(copy.deepcopy(head.state_dict()))

    return recorded


def test_a_fresh_classifier_is_a_function_of_the_seed(monkeypatch):
    """Drawn in the second stage, whatever the first stage left, and otherwise with another seed."""
    drawn = {}
    for name, columns, keys in (
        ("one", retrained("fresh"), {"seed": 0}),
        ("other features", retrained("fresh") | {"optimizer": "sgd"}, {"seed": 0, "batch_size": 8}),
        ("other seed", retrained("fresh"), {"seed": 1}),
    ):
        kept = []
        with monkeypatch.context() as patch:
            patch.setattr(heads, "reset", recording(heads.reset, kept))
            before, *_ = stages(columns, **keys)
        assert len(kept) == 1 and not torch.equal(kept[0]["weight"], before["classifier.weight"])
        drawn[name] = kept[0]
        start = begun(experiment(columns, **keys))[1].model.classifier.state_dict()
        assert not torch.equal(start["weight"], kept[0]["weight"])  # nor the first one again
    assert equal(drawn["one"], drawn["other features"]) and not equal(drawn["one"], drawn["other seed"])


def test_the_second_optimizer_remembers_nothing():
    """One step from zeroed moments: Adam moves each weight by its rate, at weight decay 0."""
    optimizer = node("optimizer", "adam", weight_decay=0.0, decay="all")
    before, after, *_ = stages(retrained("kept") | {"optimizer": optimizer})
    moved = (after["classifier.bias"] - before["classifier.bias"]).abs()
    torch.testing.assert_close(moved, torch.full((4,), 0.02), rtol=1e-3, atol=0)


def test_a_second_part_has_a_rate_of_its_own():
    def rates(**keys):
        schedule = node("schedule", "two_stage", **keys)
        recipe, _ = begun(experiment({"schedule": schedule, "sampling": "inverse"}, epochs=5, scheduler=onecycle))
        return [recipe.lr_factor(epoch, []) for epoch in range(5)]

    from composing import checked

    onecycle = checked("scheduler=onecycle")[0].scheduler
    one = rates()
    assert one[4] == pytest.approx(0.04) == one[0]  # the cycle begins anew
    assert rates(rate=0.1)[:4] == one[:4] and rates(rate=0.1)[4] == pytest.approx(0.1 * one[4])
    assert rates(retrain="none")[4] == onecycle.build()(4, 5, [])  # else it goes on


# fits after training


def test_a_fit_takes_the_prior_of_the_best_epoch():
    """A sampler that comes late: images are drawn as they are in the first two epochs, by class in the third."""
    adjustment = node("posthoc", "logit_adjustment", tau=1.0)
    deferred = node("schedule", "deferred", late=["sampling"])
    made = experiment({"sampling": "inverse", "schedule": deferred, "posthoc": adjustment})
    recipe, state = begun(made)
    for epoch, count in ((1, COUNT), (2, COUNT), (3, (1, 1, 1, 1))):
        prior_C = torch.tensor(count) / sum(count)
        shift_C = fitted(recipe, data(), made, state.model, epoch).classifier.shift_C
        torch.testing.assert_close(shift_C, -prior_C.log())


def test_class_means_are_those_of_the_training_images():
    recipe, state = begun(experiment({"copies": "cap"}))
    found_CF = posthoc_fit.evidence(state.model, recipe, data(), torch.ones(4) / 4).mean_CF()
    for c in range(4):
        units = []
        for n in np.flatnonzero((data().part == 0) & (data().labels == c)):
            image = recipe.step_setup.normalisation(torch.from_numpy(data().images[n : n + 1]))
            feature = state.model.eval().features(image)[0].detach().double()
            units.append(feature / feature.norm())
        torch.testing.assert_close(found_CF[c], torch.stack(units).mean(0), rtol=1e-4, atol=1e-5)


# the ledger

NATURAL = np.array(N) / 100
CAPPED = np.array([90, 36, 4.0])
PASTED = 0.5 - 0.4 / 2 + 1 / 3 / 16  # a box of a uniform share, cut off at the border, covers that much


def effective(beta, n):
    return (1 - beta**n) / (1 - beta)


def by_hand(columns, epoch, epochs):
    """The effective prior of an epoch, q·w/e^a, from the papers' formulas and the schedule's words."""
    timing = columns["schedule"]
    first = round(timing.get("start", 0.0) * epochs)
    asleep = timing.get("early", []) if first and epoch >= first else timing.get("late", []) if first else []

    def chosen(column, nothing):
        return nothing if column in asleep else columns[column]["name"]

    n, t = CAPPED if columns["copies"]["name"] == "cap" else np.array(N, float), (epoch + 0.5) / epochs
    p, u = n / n.sum(), np.full(3, 1 / 3)
    q = {
        "uniform": p, "inverse": u, "class_aware": u, "sqrt": n**0.5, "progressive": (1 - t) * p + t * u,
        "repeat_factor": p * np.sqrt(np.maximum(1, 1 / 3 / p)),
    }[chosen("sampling", "uniform")]  # fmt: skip
    q = q / q.sum()
    mixed = chosen("mix", "none")
    if mixed == "balanced_mixup":
        q = q * 5 / 6 + u / 6
    elif mixed == "cmo":
        q = q * (1 - PASTED / 2) + u * PASTED / 2
    elif mixed == "remix":
        ratio = n[:, None] / n[None, :]
        kept = np.where(ratio >= 3, 3 / 8, np.where(ratio <= 1 / 3, 5 / 8, 1 / 2))
        q = q * (kept @ q) + q * ((1 - kept).T @ q)
    w = {"none": n**0, "inverse": 1 / n, "sqrt": n**-0.5, "effective_number": 1 / effective(0.9999, n)}
    tau = {"balanced_softmax": 1.0, "logit_adjusted": 1.0, "vs": 1.2}.get(chosen("loss", "cross_entropy"), 0.0)
    product = q * w[chosen("weights", "none")] / q**tau
    return product / product.sum()


@pytest.mark.parametrize("name", options.listed("imbalance"))
def test_the_effective_prior_of_a_row(name):
    worked = plan(name, N, epochs=10)
    for epoch, stage in enumerate(worked.per_epoch):
        np.testing.assert_allclose(ledger.effective_prior(stage), by_hand(row(name), epoch, 10), rtol=2e-4)
    told = ledger.timeline(worked)
    assert [told[0]["epochs"][0], told[-1]["epochs"][1]] == [1, 10]
    factor = max(by_hand(row(name), epoch, 10)[2] / by_hand(row(name), epoch, 10)[0] for epoch in range(10))
    said = ledger.warning(worked, "abc")
    assert (name in TOO_FAR) == (factor > 1.05) == (said is not None)
    if said:
        assert ledger.over_correction(worked) == pytest.approx(factor, rel=1e-3)
        assert f"{TOO_FAR[name]}: training counts c (1 images) {factor:.3g} times what it counts a" in said


TOO_FAR = {
    "sampler_weighted_loss": "double correction",
    "augment_sampler_weighted_loss": "double correction",
    "remix_drw": "double correction in epochs 9 to 10",  # labels lean to rare classes, which are weighted as well
    "vs": "over-correction",  # a tau of 1.2
}


COMBINED = [
    ({"sampling": "inverse", "weights": "inverse"}, 90, None),
    ({"sampling": "class_aware", "weights": "inverse"}, 90, None),
    ({"sampling": "sqrt", "weights": "inverse"}, math.sqrt(90), None),
    ({"sampling": "sqrt", "weights": "sqrt"}, 1, None),
    ({"sampling": "inverse", "loss": "balanced_softmax"}, 1, None),  # it takes the sampled prior
    ({"weights": "inverse", "loss": "balanced_softmax"}, 90, None),
    ({"weights": "inverse", "loss": "vs"}, 90 * 90**0.2, None),
    ({"copies": "equalise", "sampling": "inverse", "weights": "inverse"}, 1, None),  # all count the pool
    ({"copies": "equalise", "loss": "balanced_softmax"}, 1, None),
    ({"sampling": "inverse", "weights": "inverse", "schedule": "deferred"}, 90, "in epochs 9 to 10"),
    ({"loss": "balanced_softmax", "weights": "inverse", "schedule": "deferred"}, 90, "in epochs 9 to 10"),
    ({"sampling": "class_aware", "loss": "balanced_softmax", "schedule": "two_stage"}, 1, None),
    ({"sampling": "class_aware", "weights": "inverse", "schedule": "two_stage"}, 90, "in epochs 9 to 10"),
]


@pytest.mark.parametrize(("columns", "factor", "when"), COMBINED)
def test_what_corrects_twice_is_named(columns, factor, when):
    worked = plan(columns, N, epochs=10)
    assert ledger.over_correction(worked) == pytest.approx(factor)
    said = ledger.warning(worked, ["happy", "sad", "disgust"])
    assert (said is not None) == (factor > 1.05)
    if said:
        assert f"disgust (1 images) {factor:.3g} times what it counts happy (90 images)" in said
        assert ("in epochs" in said) == (when is not None) and (when or "double correction:") in said


def test_heuristics_are_named_and_only_they():
    def told(columns):
        return ledger.heuristics(plan(columns, N, epochs=4))

    assert told("none") == told("sampler") == told("balanced_softmax") == told("drw") == told("mixup") == []
    assert "easy samples" in told("focal")[0] and "margins" in told("ldam")[0] and "scaled down" in told("cdt")[0]
    assert "influential" in told("influence_balanced")[0] and len(told("mislas")) == 2
    assert told("crt") == told("lws") and "frozen features" in told("crt")[0]
