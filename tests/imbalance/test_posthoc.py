"""Fits after training against values by hand, brute force and scikit-learn; what they may and may not change."""

import dataclasses
import io
import itertools
import math
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, recall_score
from sklearn.neighbors import NearestCentroid
from torch import nn
from torch.nn.functional import cross_entropy

from emoexp.config import option
from emoexp.config.imbalance.posthoc import Metric, Posthoc
from emoexp.imbalance import posthoc, search
from emoexp.imbalance.posthoc import Evidence, FitResult
from emoexp.models.heads import AdjustedLogits, CosineClassifier, NearestClassMean, unit_length

CONF = Path(__file__).parents[2] / "conf" / "imbalance" / "posthoc"
KEYS = {"metric": "macro_f1", "step": 0.05, "most": 4.0, "rounds": 20}


def scored(metric: str, target: torch.Tensor, logits: torch.Tensor) -> float:
    """The metric by scikit-learn."""
    said, truth = logits.argmax(1).numpy(), target.numpy()
    recall = [(said[truth == c] == c).mean() for c in np.unique(truth)]
    return {
        "macro_f1": lambda: f1_score(truth, said, labels=range(logits.shape[1]), average="macro", zero_division=0),
        "balanced_accuracy": lambda: recall_score(truth, said, labels=np.unique(truth), average="macro"),
        "accuracy": lambda: (said == truth).mean(),
        "worst_recall": lambda: min(recall),
    }[metric]()


def never() -> torch.Tensor:
    raise AssertionError("only nearest_class_mean may ask for the class means")


def evidence(count=(60, 25, 8), seed=0, spread=1.0, features=6, prior=None, **other) -> Evidence:
    """A linear model of overlapping classes that leans to the frequent ones, as training on them makes it."""
    torch.manual_seed(seed)
    classes, count_C = len(count), torch.tensor(count)
    target = torch.repeat_interleave(torch.arange(classes), count_C)[torch.randperm(int(count_C.sum()))]
    feature = torch.randn(len(target), features).double() + 1.5 * torch.eye(classes, features).double()[target]
    prior_C = (count_C.clamp(min=1) / count_C.clamp(min=1).sum()).double() if prior is None else torch.tensor(prior)
    weight, bias = spread * torch.eye(classes, features).double(), prior_C.clamp(min=1e-3).log()
    values = {"weight_CF": weight, "prior_C": prior_C.double(), "mean_CF": never}
    return Evidence(feature @ weight.T + bias, feature, target, **(values | other))


def by_hand(logits, target, prior=(0.5, 0.5), **other) -> Evidence:
    logits = torch.tensor(logits, dtype=torch.float64)
    prior_C = torch.tensor(prior, dtype=torch.float64)
    values = {"weight_CF": None, "prior_C": prior_C, "mean_CF": never}
    return Evidence(logits, logits, torch.tensor(target), **(values | other))


def with_means(**keys) -> Evidence:
    found = evidence(**keys)
    direction = unit_length(found.feature_VF)
    classes = found.logits_VC.shape[1]
    mean = torch.stack([direction[found.target_V == c].mean(0) for c in range(classes)])
    return dataclasses.replace(found, mean_CF=lambda: mean)


FITS = {
    "none": posthoc.none,
    "logit_adjustment": partial(posthoc.logit_adjustment, tau=None, metric="macro_f1"),
    "tau_norm": partial(posthoc.tau_norm, tau=None, metric="macro_f1"),
    "nearest_class_mean": posthoc.nearest_class_mean,
    "offsets": partial(posthoc.offsets, **KEYS),
    "temperature": posthoc.temperature,
}
every_fit = pytest.mark.parametrize("name", FITS)
every_metric = pytest.mark.parametrize("metric", get_args(Metric))


def carried(found: Evidence, fitted: FitResult, double: bool = True) -> torch.Tensor:
    """What the head says of the evidence once it carries the fit out."""
    classes, features = found.weight_CF.shape
    classifier = nn.Linear(features, classes)
    bias_C = (found.logits_VC - found.feature_VF @ found.weight_CF.double().T)[0]
    classifier.load_state_dict({"weight": found.weight_CF, "bias": bias_C})
    head = posthoc.apply(classifier.double() if double else classifier, fitted)
    with torch.no_grad():
        return head(found.feature_VF if double else found.feature_VF.float())


# logit adjustment


def test_logit_adjustment_by_hand():
    found = by_hand([[2.0, 0.5]], [1], prior=(0.9, 0.1))
    fitted = posthoc.logit_adjustment(found, tau=1.0, metric="accuracy")
    after = found.logits_VC + fitted.shift_C
    torch.testing.assert_close(after[0].tolist(), [2.105361, 2.802585], rtol=0, atol=1e-6)
    assert found.logits_VC.argmax() == 0 and after.argmax() == 1
    assert fitted.report == {"tau": 1.0, "metric": "accuracy", "before": 0.0, "after": 1.0}


@every_metric
def test_logit_adjustment_takes_the_best_of_its_grid_and_of_equals_the_smallest(metric):
    found = evidence()
    fitted = posthoc.logit_adjustment(found, tau=None, metric=metric)
    grid = [round(0.05 * k, 2) for k in range(41)]
    values = [scored(metric, found.target_V, found.logits_VC - tau * found.prior_C.log()) for tau in grid]
    best = next(tau for tau, value in zip(grid, values, strict=True) if value >= max(values) - 1e-12)
    assert fitted.report["tau"] == best
    assert fitted.report["before"] == pytest.approx(values[0]) and fitted.report["after"] == pytest.approx(max(values))
    given_it = posthoc.logit_adjustment(found, tau=best, metric=metric)
    assert torch.equal(given_it.shift_C, fitted.shift_C) and given_it.report == fitted.report
    if metric in ("macro_f1", "balanced_accuracy"):
        assert best > 0 and max(values) > values[0]  # there was something to find


@pytest.mark.parametrize("tau", [None, 0.0, 1.0, 2.0])
def test_equal_priors_leave_nothing_to_adjust(tau):
    found = evidence(prior=(1 / 3, 1 / 3, 1 / 3))
    fitted = posthoc.logit_adjustment(found, tau=tau, metric="macro_f1")
    assert torch.equal(carried(found, fitted).argmax(1), found.logits_VC.argmax(1))
    torch.testing.assert_close(carried(found, fitted).softmax(1), found.logits_VC.softmax(1))
    assert tau is not None or fitted.report["tau"] == 0


def test_logit_adjustment_needs_each_class_to_have_been_drawn():
    with pytest.raises(ValueError, match=r"logit_adjustment .* classes \[1\] have prior 0.*offsets"):
        posthoc.logit_adjustment(evidence(prior=(0.5, 0.0, 0.5)), tau=1.0, metric="macro_f1")


# tau-norm


@pytest.mark.parametrize(
    ("tau", "weight"),
    [
        (1.0, [[0.6, 0.8], [0.0, 1.0]]),
        (0.5, [[1.341641, 1.788854], [0.0, 1.0]]),
        (0.0, [[3.0, 4.0], [0.0, 1.0]]),
    ],
)
def test_tau_norm_by_hand(tau, weight):
    given_weight = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    found = by_hand([[1.0, 0.0]], [0], weight_CF=given_weight)
    fitted = posthoc.tau_norm(found, tau=tau, metric="accuracy")
    torch.testing.assert_close(fitted.weight_CF.tolist(), weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        carried(found, fitted), found.feature_VF @ torch.tensor(weight).double().T, rtol=0, atol=1e-6
    )  # the bias is dropped


@every_metric
def test_tau_norm_takes_the_best_of_its_grid(metric):
    weight = torch.diag(torch.tensor([2.0, 1.2, 0.7])).double() @ torch.eye(3, 6).double()
    found = evidence(weight_CF=weight)
    found = dataclasses.replace(found, logits_VC=found.feature_VF @ weight.T)
    fitted = posthoc.tau_norm(found, tau=None, metric=metric)
    grid = [round(0.1 * k, 1) for k in range(21)]
    length = weight.norm(dim=1, keepdim=True)
    values = [scored(metric, found.target_V, found.feature_VF @ (weight / length**tau).T) for tau in grid]
    assert fitted.report["tau"] == next(t for t, v in zip(grid, values, strict=True) if v >= max(values) - 1e-12)
    assert fitted.report["after"] == pytest.approx(max(values)) and fitted.report["before"] == pytest.approx(values[0])
    if metric in ("balanced_accuracy", "worst_recall"):
        assert max(values) > values[0]  # there was something to find


def test_tau_norm_refuses_a_head_that_is_not_linear_and_keeps_weights_of_zeros():
    with pytest.raises(ValueError, match=r"tau_norm .* linear last layer"):
        posthoc.tau_norm(evidence(weight_CF=None), tau=1.0, metric="macro_f1")
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    fitted = posthoc.tau_norm(by_hand([[1.0, 0.0]], [0], weight_CF=weight), tau=1.0, metric="accuracy")
    torch.testing.assert_close(fitted.weight_CF.tolist(), [[0.0, 0.0], [0.6, 0.8]])


@pytest.mark.parametrize(("lead", "tau"), [(3.7, 1.7), (4.3, 2.0), (4.5, 0.0)])  # log 9 is 2.197
def test_the_grid_of_logit_adjustment_ends_at_two(lead, tau):
    found = by_hand([[9.0, 0.0], [lead, 0.0]], [0, 1], prior=(0.9, 0.1))
    assert posthoc.logit_adjustment(found, tau=None, metric="accuracy").report["tau"] == tau


@pytest.mark.parametrize(("share", "tau"), [(0.4, 1.5), (0.126, 2.0), (0.124, 0.0)])  # 8^(1-tau) has to be below
def test_the_grid_of_tau_norm_ends_at_two(share, tau):
    weight = torch.tensor([[4.0, 0.0], [0.0, 0.5]])
    found = by_hand([[1.0, 0.01], [1.0, share]], [0, 1], weight_CF=weight)
    assert posthoc.tau_norm(found, tau=None, metric="accuracy").report["tau"] == tau


# nearest class mean


def test_nearest_class_mean_decides_like_nearest_centroids():
    found = with_means()
    direction = unit_length(found.feature_VF).numpy()
    said = carried(found, posthoc.nearest_class_mean(found)).argmax(1).numpy()
    oracle = NearestCentroid().fit(direction, found.target_V.numpy())
    assert np.array_equal(said, oracle.predict(direction))
    assert (said != found.logits_VC.argmax(1).numpy()).any()


def test_nearest_class_mean_has_usable_probabilities():
    found = with_means()
    fitted = posthoc.nearest_class_mean(found)
    logits = carried(found, fitted)
    assert fitted.scale == pytest.approx(1 / fitted.report["temperature"]) and fitted.scale > 3
    assert log_loss(found.target_V, logits.softmax(1)) == pytest.approx(fitted.report["after"])
    assert fitted.report["after"] < fitted.report["before"] - 0.1


def test_nearest_class_mean_needs_images_of_each_class():
    found = dataclasses.replace(evidence(), mean_CF=lambda: torch.tensor([[1.0] * 6, [math.nan] * 6, [0.0] * 6]))
    with pytest.raises(ValueError, match=r"nearest_class_mean .* classes \[1\] have none"):
        posthoc.nearest_class_mean(found)


# temperature


@pytest.mark.parametrize("spread", [0.2, 1.0, 5.0])
def test_temperature_is_the_best_of_a_fine_grid_and_changes_no_decision(spread):
    found = evidence(spread=spread)
    fitted = posthoc.temperature(found)
    grid = np.geomspace(0.02, 50, 4001)
    values = [float(cross_entropy(found.logits_VC / t, found.target_V)) for t in grid]
    best = int(np.argmin(values))
    assert 0 < best < 4000 and fitted.report["temperature"] == pytest.approx(grid[best], rel=3e-3)
    assert fitted.report["after"] <= min(values) + 1e-12 and fitted.report["before"] >= fitted.report["after"]
    assert fitted.report["before"] == pytest.approx(log_loss(found.target_V, found.logits_VC.softmax(1)))
    assert "note" not in fitted.report
    assert torch.equal(carried(found, fitted).argmax(1), found.logits_VC.argmax(1))


def test_temperature_undoes_a_scale():
    found = evidence()
    warm = posthoc.temperature(found).report["temperature"]
    hot = posthoc.temperature(dataclasses.replace(found, logits_VC=7 * found.logits_VC)).report["temperature"]
    assert hot == pytest.approx(7 * warm, rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        ([[5.0, 0.0], [0.0, 1.0]], [0, 1], 1e-3),  # all right: the sharper the better
        ([[5.0, 0.0], [0.0, 1.0]], [1, 0], 1e3),  # all wrong: the flatter the better
        ([[2.0, 2.0], [1.0, 1.0]], [0, 1], 1.0),  # says nothing at any temperature
    ],
)
def test_temperature_stays_in_its_range(logits, target, expected):
    fitted = posthoc.temperature(by_hand(logits, target))
    assert fitted.report["temperature"] == pytest.approx(expected)
    assert ("note" in fitted.report) == (expected != 1.0)
    assert math.isfinite(fitted.report["after"]) and fitted.report["after"] <= fitted.report["before"]


# offsets


@every_metric
@pytest.mark.parametrize("seed", range(3))
def test_offsets_of_two_classes_are_the_best_of_a_fine_grid(metric, seed):
    found = evidence(count=(50, 9), seed=seed)
    fitted = posthoc.offsets(found, **(KEYS | {"metric": metric}))
    grid = np.arange(-80, 81) * 0.05
    values = [scored(metric, found.target_V, found.logits_VC + torch.tensor([0.0, o])) for o in grid]
    assert fitted.report["after"] == pytest.approx(max(values), abs=1e-12)
    assert scored(metric, found.target_V, carried(found, fitted)) == pytest.approx(max(values), abs=1e-12)
    apart = float(fitted.shift_C[1] - fitted.shift_C[0])
    smallest = min(abs(o) for o, v in zip(grid, values, strict=True) if v >= max(values) - 1e-12)
    assert abs(apart) == pytest.approx(smallest)  # of equals the one nearest to nothing
    assert float(fitted.shift_C.sum()) == pytest.approx(0, abs=1e-12)


@every_metric
@given(count=st.lists(st.integers(0, 12), min_size=2, max_size=5).filter(any), seed=st.integers(0, 99))
def test_offsets_never_do_worse_than_nothing(metric, count, seed):
    found = evidence(count=count, seed=seed)
    found = dataclasses.replace(found, logits_VC=(4 * found.logits_VC).round() / 4)  # with ties
    fitted = posthoc.offsets(found, **(KEYS | {"metric": metric, "step": 0.25, "rounds": 4}))
    before = scored(metric, found.target_V, found.logits_VC)
    after = scored(metric, found.target_V, found.logits_VC + fitted.shift_C)
    assert after >= before - 1e-12
    assert (fitted.report["before"], fitted.report["after"]) == (pytest.approx(before), pytest.approx(after))
    assert fitted.report["offsets"] == fitted.shift_C.tolist()


def test_no_single_change_improves_on_the_offsets():
    found = evidence(count=(60, 25, 8, 15), seed=4)
    fitted = posthoc.offsets(found, **KEYS)
    assert fitted.report["after"] > fitted.report["before"] + 0.01
    for c, change in itertools.product(range(4), np.arange(-40, 41) * 0.05):
        moved = fitted.shift_C + change * (torch.arange(4) == c)
        assert scored("macro_f1", found.target_V, found.logits_VC + moved) <= fitted.report["after"] + 1e-12


@every_metric
@pytest.mark.parametrize("order", [(1, 2, 0), (2, 1, 0), (0, 2, 1)])
def test_relabelling_the_classes_relabels_every_fit(metric, order):
    found = with_means()
    place = torch.tensor(order)
    mean = found.mean_CF()
    other = Evidence(
        found.logits_VC[:, place],
        found.feature_VF,
        place.argsort()[found.target_V],
        found.weight_CF[place],
        found.prior_C[place],
        lambda: mean[place],
    )
    for fit in FITS.values():
        fit = partial(fit, metric=metric) if "metric" in getattr(fit, "keywords", {}) else fit
        torch.testing.assert_close(carried(other, fit(other)), carried(found, fit(found))[:, place])


def test_a_round_climbs_and_more_rounds_never_fall():
    found = evidence(count=(60, 25, 8, 15, 30), seed=2, spread=0.7)
    after = [posthoc.offsets(found, **(KEYS | {"rounds": n})).report["after"] for n in (1, 2, 3, 20)]
    assert after == sorted(after) and after[0] > scored("macro_f1", found.target_V, found.logits_VC)


def test_a_class_without_validation_images_is_not_moved_and_one_that_is_right_needs_nothing():
    logits = [[5.0, -9.0, 0.0]] * 4 + [[-9.0, 1.5, 1.0]] * 2
    found = by_hand(logits, [0, 0, 0, 0, 2, 2], prior=(0.6, 0.1, 0.3))
    shift = posthoc.offsets(found, **(KEYS | {"step": 1.0})).shift_C
    torch.testing.assert_close((shift - shift[1]).tolist(), [0.0, 0.0, 1.0])  # not [0, -1, 0]
    right = by_hand([[3.0, 0.0], [0.0, 3.0]], [0, 1])
    assert posthoc.offsets(right, **KEYS).shift_C.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("most", "apart"), [(0.05, 0.1), (0.1, 0.2), (0.5, 0.9)])
def test_offsets_keep_their_reach(most, apart):
    lead = [i / 100 + 0.003 for i in range(90)]  # of class 0 over class 1 in images of class 1
    found = by_hand([[9.0, 0.0]] * 100 + [[x, 0.0] for x in lead], [0] * 100 + [1] * 90)
    shift = posthoc.offsets(found, **(KEYS | {"most": most})).shift_C
    assert float(shift[1] - shift[0]) == pytest.approx(apart)


def test_equal_logits_that_rounding_would_decide_the_other_way_leave_things_as_they_are():
    logits = torch.tensor([[3, 1, 1], [4, 1, 2], [4, 1, 2]]).double() * 0.05
    found = by_hand(logits.tolist(), [1, 0, 0], prior=(0.5, 0.25, 0.25))
    fitted = posthoc.offsets(found, **(KEYS | {"metric": "accuracy"}))
    assert fitted.report["after"] == scored("accuracy", found.target_V, found.logits_VC + fitted.shift_C) >= 2 / 3


def test_decisions_are_argmax_ties_included():
    rng = np.random.default_rng(0)
    logits, grid = rng.integers(-3, 4, (200, 4)).astype(float), np.arange(-3, 4.0)
    for c in range(4):
        oracle = np.stack([(logits + value * (np.arange(4) == c)).argmax(1) for value in grid])
        assert np.array_equal(search.predictions_with_offset(logits, c, grid), oracle)


def test_of_equals_the_nearest_then_the_smallest_then_the_lower():
    grid = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    rounding = 0.1 + 0.2 - 0.3
    assert search.best(grid, np.array([0.3, 0.3, 0.3 + rounding, 0.3, 0.3]), current=1.0) == 1.0
    assert search.best(grid, np.array([0.5, 0.2, 0.2, 0.2, 0.5]), current=1.0) == 2.0
    assert search.best(grid, np.array([0.2, 0.2, 0.5, 0.2, 0.5]), current=1.0) == 0.0
    assert search.best(grid, np.array([0.2, 0.5, 0.2, 0.5, 0.2]), current=0.0) == -1.0


# all of them


@every_fit
def test_a_fit_is_a_function_of_its_evidence_and_draws_nothing(name):
    found = with_means()
    before = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    copies = {key: value.clone() for key, value in before.items() if isinstance(value, torch.Tensor)}
    state, one = torch.get_rng_state(), FITS[name](found)
    first = posthoc.apply(nn.utils.skip_init(nn.Linear, 6, 3), one)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    two = FITS[name](found)
    assert one.report == two.report and one.scale == two.scale
    for key in ("shift_C", "weight_CF", "mean_CF"):
        assert (getattr(one, key) is None) == (getattr(two, key) is None)
        assert getattr(one, key) is None or torch.equal(getattr(one, key), getattr(two, key))
    assert all(torch.equal(getattr(found, key), value) for key, value in copies.items())
    assert isinstance(first, nn.Module)


@every_fit
def test_a_fit_is_stored_and_applied(name):
    found = with_means()
    fitted = FITS[name](found)
    assert posthoc.to_checkpoint(fitted).keys() == {"told", "scale", "shift_C", "weight_CF", "mean_CF"}
    file = io.BytesIO()
    torch.save(posthoc.to_checkpoint(fitted), file)
    file.seek(0)
    again = posthoc.from_checkpoint(torch.load(file, weights_only=True))
    assert again.report == fitted.report
    assert torch.equal(carried(found, again), carried(found, fitted))
    single = carried(found, fitted, double=False)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), carried(found, fitted), rtol=1e-4, atol=1e-3)
    if "after" in fitted.report and fitted.report["metric"] != "nll":
        assert scored(fitted.report["metric"], found.target_V, carried(found, fitted)) == pytest.approx(
            fitted.report["after"]
        )


@every_fit
def test_a_head_with_a_fit_loads_into_one_built_from_the_checkpoint(name):
    found = with_means()
    fitted = FITS[name](found)
    trained, empty = nn.Linear(6, 3), nn.Linear(6, 3)
    head = posthoc.apply(trained, fitted)
    other = posthoc.apply(empty, posthoc.from_checkpoint(posthoc.to_checkpoint(fitted)))
    other.load_state_dict(head.state_dict())
    feature = torch.randn(9, 6)
    assert torch.equal(other(feature), head(feature))
    assert (head is trained) == (name == "none")


def test_what_apply_makes():
    linear = nn.Linear(6, 3)
    assert posthoc.apply(linear, FitResult()) is linear
    shifted = posthoc.apply(linear, FitResult(shift_C=torch.zeros(3)))
    assert isinstance(shifted, AdjustedLogits) and shifted.inner is linear
    cosine = CosineClassifier(6, 3, scale=30)
    assert posthoc.apply(cosine, FitResult(scale=2.0)).inner is cosine
    plain = posthoc.apply(linear, FitResult(weight_CF=torch.ones(3, 6).double()))
    assert isinstance(plain, nn.Linear) and plain.bias is None and plain.weight.dtype == torch.float32
    both = posthoc.apply(linear.double(), FitResult(scale=2.0, mean_CF=torch.ones(3, 6)))
    assert isinstance(both.inner, NearestClassMean) and both.inner.mean_CF.dtype == both.scale.dtype == torch.float64
    with pytest.raises(ValueError, match="last layer is one of Linear"):
        posthoc.apply(nn.ReLU(), FitResult(scale=2.0))


def test_a_stored_fit_with_other_keys_is_refused():
    with pytest.raises(ValueError, match=r"holds mean_CF, .* this one holds scale"):
        posthoc.from_checkpoint({"scale": 1.0})


def test_a_fit_that_model_or_strategy_rule_out_is_refused_before_training():
    equal = torch.full((7,), 1 / 7).double()
    for fit in FITS.values():
        posthoc.check_before_training(fit, prior_C=equal, linear=True)
    with pytest.raises(ValueError, match="linear last layer"):
        posthoc.check_before_training(FITS["tau_norm"], prior_C=equal, linear=False)
    posthoc.check_before_training(FITS["offsets"], prior_C=equal, linear=False)
    with pytest.raises(ValueError, match=r"classes \[0\] have prior 0"):
        posthoc.check_before_training(FITS["logit_adjustment"], prior_C=torch.tensor([0.0, 1.0]).double(), linear=True)


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_option_is_a_fit_that_works_as_written(file):
    fit = option.read(Posthoc, yaml.safe_load(file.read_text()), "imbalance.posthoc").build()
    assert isinstance(fit(with_means()), FitResult)


def test_the_options_are_the_fits_and_each_but_none_does_something():
    assert {file.stem for file in CONF.glob("*.yaml")} == set(FITS)
    found = with_means()
    for name, fit in FITS.items():
        same = torch.allclose(carried(found, fit(found)).softmax(1), found.logits_VC.softmax(1), atol=1e-3)
        assert same == (name == "none"), name


def test_tau_norm_keeps_the_bias_on_request():
    """At tau 0 with its bias the model is as it was trained; dropped, the bias is what is missing."""
    seen = evidence()
    bias_C = seen.prior_C.log()
    kept, dropped = (posthoc.tau_norm(seen, tau=0.0, metric="macro_f1", bias=bias) for bias in ("keep", "drop"))
    torch.testing.assert_close(kept.shift_C, bias_C)
    assert dropped.shift_C is None
    linear = nn.Linear(6, 3).double()
    with torch.no_grad():
        linear.weight.copy_(seen.weight_CF)
        linear.bias.copy_(bias_C)
    with_bias, without = (posthoc.apply(linear, result)(seen.feature_VF) for result in (kept, dropped))
    torch.testing.assert_close(with_bias, seen.logits_VC)
    torch.testing.assert_close(without, seen.logits_VC - bias_C)
    scaled = posthoc.tau_norm(seen, tau=1.0, metric="macro_f1", bias="keep")
    torch.testing.assert_close(scaled.weight_CF.norm(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(scaled.shift_C, bias_C)
