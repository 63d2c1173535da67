"""Strategies against hand-computed values, library functions and properties."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from strategies import experiment, node
from strategies import plan as strategy
from torch.nn import functional

from emoexp.config import build_strategy, build_training, options
from emoexp.imbalance import copies, ledger, losses, mixing, sampling, weights
from emoexp.imbalance.strategy import Columns, build

N = torch.tensor([90, 9, 1])
FER = torch.tensor([3995, 436, 4097, 7215, 4830, 3171, 4965])
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.2, 0.1], [-1.0, 3.0, 0.0]])
TARGET = torch.tensor([0, 2, 1])
FEATURE = torch.zeros(3, 4)


def labels(count: torch.Tensor) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(count)), count)


def plan(count=N, target=copies.none, share=sampling.natural, weight=weights.none, epoch_size="pool", seed=0, **others):
    epochs = others.pop("epochs", 1)
    columns = Columns(target=target, share=share, weight=weight, **others)
    return build(labels(count), len(count), columns, epochs=epochs, epoch_size=epoch_size, seed=seed)


def inverse_share(count, progress=0.0):
    return sampling.power(count, exponent=0.0)


def inverse_weight(count):
    return weights.power(count, exponent=1.0)


def cap4(count):
    return copies.cap(count, factor=4.0)


# copies


def test_targets_by_hand():
    assert copies.none(N).tolist() == [90, 9, 1]
    assert copies.equalise(N).tolist() == [90, 90, 90]
    assert cap4(N).tolist() == [90, 36, 4]
    assert cap4(FER)[1] == 1744
    assert copies.power(N, exponent=0.5).tolist() == [
        90,
        round(90 * math.sqrt(0.1)),
        round(90 * math.sqrt(1 / 90)),
    ]
    assert copies.power(N, exponent=1.0).tolist() == N.tolist()


@pytest.mark.parametrize("target", [copies.equalise, cap4, lambda n: copies.power(n, exponent=0.0)])
def test_a_class_without_images_gets_no_copies(target):
    assert target(torch.tensor([5, 0, 2]))[1] == 0


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 5))
def test_the_pool_holds_originals_and_copies(counts, seed):
    count = torch.tensor(counts)
    label = labels(count)
    target = cap4(count)
    parent, number = copies.build_pool(label, target, seed=seed)
    assert torch.bincount(label[parent], minlength=len(counts)).tolist() == target.tolist()
    assert torch.equal(parent[: len(label)], torch.arange(len(label))) and not number[: len(label)].any()
    assert len(torch.unique(torch.stack([parent, number]), dim=1)[0]) == len(parent)  # no pair twice
    for c in range(len(counts)):
        uses = torch.bincount(parent[label[parent] == c], minlength=len(label))[label == c]
        assert uses.max() - uses.min() <= 1  # parents are cycled evenly


# sampling


def test_shares_by_hand():
    np.testing.assert_allclose(sampling.power(N, exponent=0.5), [0.703414, 0.222439, 0.074146], atol=1e-6)
    np.testing.assert_allclose(sampling.natural(N), [0.9, 0.09, 0.01])
    np.testing.assert_allclose(inverse_share(N), [1 / 3] * 3)
    np.testing.assert_allclose(sampling.effective_number(N, beta=0.0), sampling.natural(N))
    np.testing.assert_allclose(sampling.effective_number(N, beta=1 - 1e-9), [1 / 3] * 3, atol=1e-6)
    assert inverse_share(torch.tensor([5, 0, 2])).tolist() == [0.5, 0.0, 0.5]


def test_effective_number_by_hand():
    np.testing.assert_allclose(sampling.effective_counts(torch.tensor([1, 2, 3]), 0.9), [1, 1.9, 2.71])


def test_natural_order_draws_each_item_once():
    label = labels(N)
    order = sampling.order(label, sampling.natural(N), size=100, seed=0, epoch=0)
    assert torch.equal(order.sort().values, torch.arange(100))
    twice = sampling.order(label, sampling.natural(N), size=250, seed=0, epoch=0)
    assert torch.bincount(twice).max() == 3 and torch.bincount(twice).min() == 2
    assert torch.equal(twice[:100], order)


def test_weighted_order_has_the_shares():
    label = labels(N)
    share = sampling.power(N, exponent=0.5)
    order = sampling.order(label, share, size=30_000, seed=1, epoch=2)
    count = torch.bincount(label[order], minlength=3).double()
    chi2 = ((count - 30_000 * share) ** 2 / (30_000 * share)).sum()
    assert chi2 < 13.8  # 0.1 % point of two degrees of freedom
    within = torch.bincount(order, minlength=100)[:90].double()
    assert ((within - within.mean()) ** 2 / within.mean()).sum() < 150  # 89 degrees of freedom


def test_order_is_a_function_of_seed_and_epoch():
    draw = [
        sampling.order(labels(N), inverse_share(N), size=64, seed=s, epoch=e)
        for s, e in [(0, 0), (0, 1), (1, 0), (0, 0)]
    ]
    assert torch.equal(draw[0], draw[3]) and not torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])


# weights


def test_weights_by_hand():
    balanced = weights.normalise(inverse_weight(N), sampling.natural(N))
    np.testing.assert_allclose(balanced, [0.370370, 3.703704, 33.333333], atol=1e-6)
    np.testing.assert_allclose(balanced, compute_class_weight("balanced", classes=np.arange(3), y=labels(N).numpy()))
    root = weights.normalise(weights.power(N, exponent=0.5), sampling.natural(N))
    np.testing.assert_allclose(root, [0.781572, 2.471546, 7.414639], atol=1e-6)
    raw = weights.effective_number(torch.tensor([1, 2, 3]), beta=0.9)
    np.testing.assert_allclose(raw / raw.sum() * 3, [1.582847, 0.833077, 0.584076], atol=1e-6)


def test_effective_number_of_long_tailed_cifar():
    count = torch.tensor([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
    raw = weights.effective_number(count, beta=0.9999)
    published = [
        0.050611,
        0.076900,
        0.121134,
        0.195037,
        0.318805,
        0.524590,
        0.868349,
        1.442627,
        2.409223,
        3.992724,
    ]
    np.testing.assert_allclose(raw / raw.sum() * 10, published, atol=1e-6)


@pytest.mark.parametrize("weight", [inverse_weight, weights.none, lambda n: weights.effective_number(n, beta=0.99)])
@pytest.mark.parametrize("share", [sampling.natural, inverse_share])
def test_mean_sample_weight_is_one(weight, share):
    assert float((share(FER) * weights.normalise(weight(FER), share(FER))).sum()) == pytest.approx(1)


def test_a_class_that_is_never_drawn_weighs_nothing():
    count = torch.tensor([5, 0, 2])
    assert weights.normalise(inverse_weight(count), sampling.natural(count))[1] == 0


# losses


def valued(loss: losses.Loss, logits=LOGITS, target=TARGET):
    constants = loss.constants(N, N / 100, torch.ones(3), torch.device("cpu"))
    return loss.formula(logits, target, FEATURE, constants, 0.5)


def cross_entropy(smoothing):
    return losses.cross_entropy(N, N / 100, smoothing=smoothing)


def focal(gamma, smoothing=0.0):
    return losses.focal(N, N / 100, gamma=gamma, smoothing=smoothing)


def test_cross_entropy_is_torchs():
    ours = valued(cross_entropy(0.0))
    assert torch.equal(ours, functional.cross_entropy(LOGITS, TARGET, reduction="none"))
    smooth = valued(cross_entropy(0.1))
    torch.testing.assert_close(smooth, functional.cross_entropy(LOGITS, TARGET, reduction="none", label_smoothing=0.1))
    torch.testing.assert_close(valued(cross_entropy(0.0), target=functional.one_hot(TARGET, 3).float()), ours)


def test_smoothing_comes_before_the_class_weight():
    weight, smooth = torch.tensor([1.0, 10.0, 100.0]), valued(cross_entropy(0.1))
    assert float((smooth * weight[TARGET]).sum() / weight[TARGET].sum()) == pytest.approx(1.168215, abs=1e-6)


def test_focal_by_hand():
    np.testing.assert_allclose(valued(focal(2.0)), [0.0041443, 0.6672770, 0.00026784], rtol=2e-5)
    torch.testing.assert_close(valued(focal(0.0)), functional.cross_entropy(LOGITS, TARGET, reduction="none"))


@pytest.mark.parametrize(("p", "ratio"), [(0.5, 1 / 4), (0.9, 1 / 100), (0.968, 1 / 976.6)])
def test_focal_ratios_of_the_paper(p, ratio):
    logits = torch.log(torch.tensor([[p, 1 - p, 1e-30]], dtype=torch.float64)).float()
    value = valued(focal(2.0), logits, torch.tensor([0]))
    assert float(value) / -math.log(p) == pytest.approx(ratio, rel=1e-3)


LOSSES = {
    "cross_entropy": lambda z, y: valued(cross_entropy(0.1), z, y),
    "focal": lambda z, y: valued(focal(2.0, 0.1), z, y),
    "focal_half": lambda z, y: valued(focal(0.5), z, y),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_permute_with_the_classes(name):
    order = torch.tensor([2, 0, 1])
    moved = LOSSES[name](LOGITS[:, order], torch.argsort(order)[TARGET])
    torch.testing.assert_close(moved, LOSSES[name](LOGITS, TARGET))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_finite_at_extremes(name):
    logits = (torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 1e4]])).requires_grad_()
    loss = LOSSES[name](logits, TARGET)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients(name):
    def wrapped(z):
        return LOSSES[name](z, functional.one_hot(TARGET, 3).double())

    assert torch.autograd.gradcheck(wrapped, LOGITS.double().requires_grad_())


# ledger

ROWS = {
    "none": (copies.none, sampling.natural, weights.none),
    "augment": (cap4, sampling.natural, weights.none),
    "sampler": (copies.none, inverse_share, weights.none),
    "weighted_loss": (copies.none, sampling.natural, inverse_weight),
    "augment_sampler": (cap4, inverse_share, weights.none),
    "augment_weighted_loss": (cap4, sampling.natural, inverse_weight),
    "sampler_weighted_loss": (copies.none, inverse_share, inverse_weight),
    "augment_sampler_weighted_loss": (cap4, inverse_share, inverse_weight),
}


@pytest.mark.parametrize("row", ROWS)
def test_effective_prior_and_over_correction(row):
    worked = plan(FER, *ROWS[row])
    effective, factor = ledger.effective_prior(worked.per_epoch[0]), ledger.over_correction(worked)
    count = FER.double()
    expected = {
        "none": count / count.sum(),
        "augment": (capped := cap4(FER).double()) / capped.sum(),
        "sampler_weighted_loss": (1 / count) / (1 / count).sum(),
        "augment_sampler_weighted_loss": (1 / capped) / (1 / capped).sum(),
    }.get(row, torch.full((7,), 1 / 7).double())
    torch.testing.assert_close(effective, expected)
    names = [f"c{k}" for k in range(7)]
    if row in ("sampler_weighted_loss", "augment_sampler_weighted_loss"):
        assert factor == pytest.approx(float(expected.max() / expected.min()))
        assert "double correction" in (ledger.warning(worked, names) or "")
    else:
        assert factor <= 1 + 1e-9 and ledger.warning(worked, names) is None


def test_equal_counts_make_every_row_the_baseline():
    equal = torch.tensor([10, 10, 10])
    for target, share, weight in ROWS.values():
        worked = plan(equal, target, share, weight)
        torch.testing.assert_close(worked.per_epoch[0].weight_C, torch.ones(3).double())
        torch.testing.assert_close(worked.per_epoch[0].share_C, torch.full((3,), 1 / 3).double())
        assert len(worked.parent_P) == 30


def test_weights_and_shares_count_the_pool_with_copies():
    worked = plan(N, copies.equalise, inverse_share, inverse_weight)
    torch.testing.assert_close(worked.per_epoch[0].weight_C, torch.ones(3).double())
    assert ledger.over_correction(worked) == pytest.approx(1)


def test_ledger_rows_by_hand():
    row = ledger.rows(plan(N, share=inverse_share), ["a", "b", "c"])[1]
    assert row["images"] == 9 and row["copies"] == 0 and row["draws"] == pytest.approx(33.33, abs=0.01)
    assert row["unique"] == pytest.approx(9 * (1 - (26 / 27) ** 100), abs=0.01)  # each of 9 drawn with 1/27
    assert row["correction"] == pytest.approx((1 / 3) / 0.09, abs=1e-3)


@pytest.mark.parametrize(("size", "draws"), [("pool", 130), ("originals", 100), (37, 37)])
def test_epoch_size(size, draws):
    assert plan(N, cap4, epoch_size=size).epoch_size == draws


@pytest.mark.parametrize("row", ["crt", "lws", "mislas", "drw", "drs", "ldam_drw", "influence_balanced"])
def test_the_table_of_a_run_in_two_parts_is_that_of_the_second(row):
    worked = strategy(row, (90, 9, 1), epochs=10)
    told, effective = ledger.rows(worked, "abc"), ledger.effective_prior(worked.per_epoch[-1])
    assert [line["effective_prior"] for line in told] == pytest.approx(effective.tolist(), abs=1e-6)
    assert told[2]["correction"] == pytest.approx(100 * float(effective[2]), abs=1e-3) and effective[2] > 0.3


@pytest.mark.parametrize("row", sorted(set(options.listed("imbalance")) - {"progressive", "remix_drw"}))
def test_the_factors_of_a_row_of_the_table_give_its_prior(row):
    told = ledger.rows(strategy(row, (90, 9, 1), epochs=10), "abc")
    met = [line.get("exposure", line["draws"]) for line in told]
    product = np.array(
        [m * line["weight"] / math.exp(line.get("shift", 0.0)) for m, line in zip(met, told, strict=True)]
    )
    np.testing.assert_allclose(product / product.sum(), [line["effective_prior"] for line in told], rtol=3e-3)


def test_what_mixing_makes_of_the_labels_stands_in_the_table_and_the_timeline():
    worked = strategy("balanced_mixup", (90, 9, 1), epochs=10)
    table, (period,) = ledger.rows(worked, "abc"), ledger.timeline(worked)
    met = worked.per_epoch[0].exposure_C.tolist()
    assert met[2] > 0.05 and period["exposure"] == met
    assert [line["exposure"] for line in table] == pytest.approx(met, abs=1e-6)
    assert "exposure" not in ledger.rows(strategy("sampler", (90, 9, 1)), "abc")[0]


@pytest.mark.parametrize("count", [(10, 8), (40, 3), (7, 20)])
def test_how_many_different_items_are_drawn_without_replacement(count):
    worked = strategy("class_aware", count, epochs=60)
    told = [line["unique"] for line in ledger.rows(worked, "ab")]
    seen = [torch.bincount(worked.label_P[worked.order(epoch, 0).unique()], minlength=2) for epoch in range(60)]
    np.testing.assert_allclose(torch.stack(seen).double().mean(0), told, atol=0.5)


@pytest.mark.parametrize("count", [(20, 20, 20), (20, 20, 19)])
def test_classes_take_turns_where_copies_make_them_equal(count):
    worked = strategy({"sampling": "class_aware", "copies": "equalise"}, count)
    assert (worked.label_P[worked.order(0, 0)].reshape(-1, 3).sort(1).values == torch.arange(3)).all()


@pytest.mark.parametrize("columns", [{"loss": "vs", "sampling": "sqrt"}, {"loss": "vs", "mix": "balanced_mixup"}])
def test_what_one_column_overdoes_is_no_double_correction(columns):
    said = ledger.warning(strategy(columns, (90, 9, 1), epochs=10), ["happy", "sad", "disgust"]) or ""
    assert said.startswith("over-correction: ") and "each strategy alone" not in said
    twice = ledger.warning(
        strategy(columns | {"weights": "inverse"}, (90, 9, 1), epochs=10), ["happy", "sad", "disgust"]
    )
    assert (twice or "").startswith("double correction: ") and "each strategy alone" not in (twice or "")


def test_a_double_correction_of_one_epoch_says_so():
    said = ledger.warning(strategy("remix_drw", (90, 9, 1), epochs=5), "abc") or ""
    assert said.startswith("double correction in epoch 5: ")


def test_heuristics_of_all_columns_are_named():
    def told(columns):
        made = experiment(columns)
        return build_strategy.heuristics(made, strategy(columns, (90, 9, 1)))

    assert told("none") == told("sampler") == told({"optimizer": "sam"}) == []
    assert told({"optimizer": "sam_tail"}) == ["sharpness is minimised for rare classes alone"]
    assert told("tau_norm") == ["tau_norm is fitted on validation after training"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"sampling": {"name": "power", "exponent": 100.0}},
            r"imbalance\.sampling\.exponent is a number from -4 to 4; it is 100",
        ),
        (
            {"weights": {"name": "inverse", "exponent": 500.0}},
            r"imbalance\.weights\.exponent is a number from -4 to 4; it is 500",
        ),
        ({"mix": {"name": "cmo", "partner": -9.0}}, r"imbalance\.mix\.partner is a number from -4 to 4"),
        ({"mix": {"name": "mixup", "alpha": 0.0, "beta": 0.0}}, r"imbalance\.mix\.alpha is a number above 0; it is 0"),
        ({"mix": {"name": "remix", "tau": 0.0}}, r"kappa=3\.0 does nothing where tau is 0"),
        ({"mix": {"name": "remix", "kappa": 0.0}}, r"tau=0\.5 does nothing where kappa is 0"),
        ({"mix": {"name": "cmo", "edge": 0.4}}, "mixes in none of the 2 epochs: lower imbalance.mix.edge"),
    ],
)
def test_what_would_silence_a_column_or_leave_all_bounds_is_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        strategy({column: node(column, **values) for column, values in keys.items()}, (90, 9, 1), epochs=2)


def test_only_classes_that_are_there_are_the_tail():
    usual = experiment({"optimizer": "sam_tail"}).optimizer
    with pytest.raises(ValueError, match="no class has fewer images than that times the mean of all, 20,"):
        build_training.sharpness_of(usual, torch.tensor([20, 20, 0]))
    found = build_training.sharpness_of(usual, torch.tensor([50, 2, 0]))
    assert found is not None and found.tail_C is not None and found.tail_C.tolist() == [0, 1, 0]


@pytest.mark.parametrize("kappa", [0.0, 3.0, 3.3])
@pytest.mark.parametrize("partner", [None, 0.0])
def test_exposure_is_that_of_every_pair_of_classes(kappa, partner):
    mix = mixing.Mix(0.7, 1.3, kappa=kappa, tau=0.4 if kappa else 0.0, partner=partner, probability=0.8)
    share_C, count = torch.tensor([0.5, 0.3, 0.15, 0.05]).double(), torch.tensor([99, 31, 30, 1])
    other_C = mix.partner_shares(count, share_C)
    u = (torch.arange(2048).double() + 0.5) / 2048
    expected = torch.zeros(4).double()
    for c, d in itertools.product(range(4), range(4)):
        label = mix.label_lam(mix.quantile(u), count[c], count[d]).mean() * 0.8 + 0.2
        expected[c] += share_C[c] * other_C[d] * label
        expected[d] += share_C[c] * other_C[d] * (1 - label)
    torch.testing.assert_close(mix.exposure(count, share_C), expected)
