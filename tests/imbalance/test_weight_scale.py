"""The scale of class weights: as in the papers, against numbers of the authors' code at CIFAR-10-LT, factor 100."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from composing import checked, tiny
from strategies import COUNT, ROWS_WITH_WEIGHTS, experiment, labelled, trained
from torch import nn

from emoexp.config import naming
from emoexp.config.build_strategy import build_strategy
from emoexp.config.schema import Experiment
from emoexp.imbalance import ledger, losses, weights
from emoexp.models.network import Output
from emoexp.training import run, step
from emoexp.training.batches import Target

CIFAR = tuple(int(5000 * 0.01 ** (c / 9)) for c in range(10))
COUNT_C = torch.tensor(CIFAR)
NATURAL_C = COUNT_C.double() / COUNT_C.sum()
CUI_C = weights.effective_number(COUNT_C, beta=0.9999)


@pytest.mark.parametrize(
    ("weight_C", "ratio"),
    [(weights.power(COUNT_C, exponent=1.0), 6.1665), (CUI_C, 5.8481)],
    ids=["influence_balanced", "class_balanced_focal"],
)
def test_weights_that_sum_to_the_classes_are_so_much_smaller(weight_C, ratio):
    authors_C = weight_C / weight_C.sum() * 10  # as Cui et al. write it down
    ours_C = weights.scaled(weight_C, NATURAL_C, "sum_to_classes")
    torch.testing.assert_close(ours_C, authors_C)
    assert float(ours_C.sum()) == pytest.approx(10)
    mean1_C = weights.scaled(weight_C, NATURAL_C, "mean1")
    torch.testing.assert_close(mean1_C / ours_C, torch.full_like(mean1_C, ratio), rtol=1e-4, atol=0)


def test_the_authors_alpha_of_influence_balancing():
    """1000 for weights that sum to the number of classes is 162.2 for weights of mean 1."""
    inverse_C = weights.power(COUNT_C, exponent=1.0)
    ratio = weights.scaled(inverse_C, NATURAL_C, "sum_to_classes")[0] / weights.scaled(inverse_C, NATURAL_C, "mean1")[0]
    assert float(1000 * ratio) == pytest.approx(162.2, abs=0.05)


def test_the_shares_of_classes_where_a_batch_is_divided_by_its_weights():
    mean1 = NATURAL_C * weights.scaled(CUI_C, NATURAL_C, "mean1")
    share_C = weights.shares_in_batches(weights.scaled(CUI_C, NATURAL_C, "batch"), NATURAL_C, 128)
    assert [round(float(mean1[c]), 3) for c in (0, 9)] == [0.119, 0.094]
    assert [round(float(share_C[c]), 3) for c in (0, 9)] == [0.124, 0.082]
    drawn_RC = np.random.default_rng(0).multinomial(128, NATURAL_C.numpy(), size=100_000) * CUI_C.numpy()
    by_chance_C = (drawn_RC / drawn_RC.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(share_C.numpy(), by_chance_C, atol=5e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 16, 1024])
def test_shares_in_batches_are_between_the_exposure_and_its_product_with_the_weight(batch_size):
    weight_C = weights.scaled(CUI_C, NATURAL_C, "batch")
    share_C = weights.shares_in_batches(weight_C, NATURAL_C, batch_size)
    assert float(share_C.sum()) == pytest.approx(1)
    if batch_size == 1:  # of one image the weight cancels
        torch.testing.assert_close(share_C, NATURAL_C, rtol=1e-3, atol=1e-4)
    assert NATURAL_C[9] - 1e-4 <= share_C[9] <= NATURAL_C[9] * weight_C[9]
    if batch_size == 1024:
        torch.testing.assert_close(share_C, NATURAL_C * weight_C, rtol=0.05, atol=0)


def loss_of_a_batch(divide: bool, mixed: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    logits_BC = torch.randn(12, 3, generator=generator, dtype=torch.float32)
    label_B, other_B = (torch.randint(0, 3, (12,), generator=generator) for _ in range(2))
    share_B, weight_C = torch.rand(12, generator=generator), torch.tensor([0.5, 2.0, 7.0])
    target = Target(label_B, other_B, share_B) if mixed else Target(label_B)
    constants = losses.Constants(torch.ones(3), torch.ones(3) / 3, weight_C)
    output = Output(logits_BC=logits_BC, feature_BF=logits_BC)
    found = step.mean_loss(losses.softmax, constants, output, target, 0.0, divide_by_weights=divide)
    return found, logits_BC, label_B, other_B, share_B, weight_C


def test_the_scale_batch_is_torchs_weighted_cross_entropy():
    found, logits_BC, label_B, *_, weight_C = loss_of_a_batch(divide=True, mixed=False)
    torch.testing.assert_close(found, nn.functional.cross_entropy(logits_BC, label_B, weight_C))
    assert not torch.isclose(found, loss_of_a_batch(divide=False, mixed=False)[0])


def test_of_mixed_images_both_labels_weigh():
    found, logits_BC, label_B, other_B, share_B, weight_C = loss_of_a_batch(divide=True, mixed=True)
    loss_BC = -logits_BC.log_softmax(1)
    pairs = [(label_B, share_B), (other_B, 1 - share_B)]
    total = sum(share * weight_C[label] * loss_BC.gather(1, label[:, None])[:, 0] for label, share in pairs)
    weight = sum(share * weight_C[label] for label, share in pairs)
    torch.testing.assert_close(found, total.sum() / weight.sum())


# ---- the contract over all rows


def on_scale(name: str, scale: str, **keys: int) -> Experiment:
    """A small experiment of a row, with its weights on a scale."""
    made = experiment(name, **keys)
    return dataclasses.replace(made, imbalance=dataclasses.replace(made.imbalance, weight_scale=scale))


@pytest.mark.parametrize("scale", ["sum_to_classes", "batch"])
@pytest.mark.parametrize("name", ROWS_WITH_WEIGHTS)
def test_every_row_with_weights_takes_every_scale(name, scale):
    usual, other = (build_strategy(on_scale(name, scale_of), labelled(COUNT)) for scale_of in ("mean1", scale))
    for before, after in zip(usual.per_epoch, other.per_epoch, strict=True):
        np.testing.assert_allclose(after.weight_C / after.weight_C.max(), before.weight_C / before.weight_C.max())
        prior_C = ledger.effective_prior(after)
        assert float(prior_C.sum()) == pytest.approx(1) and bool((prior_C > 0).all())
        if scale == "sum_to_classes":
            np.testing.assert_allclose(prior_C, ledger.effective_prior(before))
    last = other.per_epoch[-1]
    assert (last.divided_batch is None) == (scale != "batch")
    assert ledger.periods(other)
    probabilities, _ = trained(on_scale(name, scale, epochs=2))
    assert bool(torch.isfinite(probabilities).all())


def test_the_rows_with_weights_are_some():
    assert {"drw", "class_balanced_focal", "influence_balanced", "weighted_loss"} <= set(ROWS_WITH_WEIGHTS)


def test_without_weights_a_scale_does_nothing_and_is_refused():
    with pytest.raises(ValueError, match=r"weight_scale=batch does nothing where imbalance/weights is none; choose"):
        checked("imbalance=sampler", "imbalance.weight_scale=batch")
    with pytest.raises(ValueError, match="weight_scale is one of mean1, sum_to_classes, batch; it is sum"):
        checked("imbalance=drw", "imbalance.weight_scale=sum")


def test_a_scale_is_part_of_the_name_and_the_default_is_not():
    usual, other = (checked("imbalance=drw", *words)[0] for words in ([], ["imbalance.weight_scale=batch"]))
    assert naming.strategy(usual.imbalance) == "drw" and naming.strategy(other.imbalance) == "drw.weight_scale_batch"
    assert naming.name(usual) != naming.name(other)
    assert "weight_scale" not in json.dumps(naming.choices(usual))
    assert naming.choices(other)["imbalance"]["weight_scale"] == "batch"


def test_the_ledger_tells_the_scale(tmp_path, blank_figures):
    run.train(*tiny(tmp_path, "imbalance=weighted_loss", "imbalance.weight_scale=batch", "epochs=1"))
    (folder,) = (tmp_path / "outputs").iterdir()
    assert json.loads((folder / "ledger.json").read_text())["weight_scale"] == "batch"
    assert "weights are on the scale batch: their mean over samples is 1, and" in (folder / "run.log").read_text()
