"""What every option of every column has to keep, found by its file: a new method cannot come without this.

Where an option is an exception to a rule, a table names it with the reason, and the rule is shown not to hold of it.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from strategies import (
    COLUMNS,
    COUNT,
    CPU,
    GROUPS,
    base,
    begun,
    data,
    differ,
    experiment,
    loss_of,
    node,
    nodes,
    own,
    plan,
    row,
    trained,
    values,
    words,
)
from torch import Tensor

from emoexp.config import build_training, option, options
from emoexp.config.imbalance import Posthoc
from emoexp.config.schema import Experiment, Node
from emoexp.imbalance import ledger, mixing, posthoc
from emoexp.imbalance.posthoc import Evidence
from emoexp.imbalance.schedule import TIMED
from emoexp.inference import results
from emoexp.runs import checkpoint, machine
from emoexp.training import checkpointer, conclude, loop
from emoexp.training import run as training

Option = tuple[str, str]
OPTIONS = [(column, name) for column, group in GROUPS.items() for name in options.listed(group)]
ROWS = list(options.listed("imbalance"))
every_option = pytest.mark.parametrize(("column", "name"), OPTIONS)
every_row = pytest.mark.parametrize("row_name", ROWS)
BASELINE = options.chosen("imbalance", "none") | {"optimizer": options.chosen("", "train")["optimizer"]}
SCHEDULED = {"sampling": "inverse", "weights": "sqrt", "loss": "balanced_softmax", "mix": "mixup"}
BESIDE = {"schedule": SCHEDULED}  # columns without which an option of this one has nothing to do


def every(column: str) -> Any:
    return pytest.mark.parametrize("name", options.listed(GROUPS[column]))


def options_of(*columns: str) -> Any:
    return pytest.mark.parametrize(
        ("column", "name"), [(column, name) for column, name in OPTIONS if column in columns]
    )


decides_on_draws = options_of("copies", "sampling", "mix", "schedule")
stands_in_the_plan = options_of("copies", "sampling", "mix", "schedule", "weights", "loss")


def keeps(table: dict[Option, str], column: str, name: str, kept: bool) -> None:
    """A rule is kept, or the option is named with a reason; and none is named that keeps it."""
    reason = table.get((column, name))
    (title,) = (key for key, value in globals().items() if value is table)
    assert kept or reason, f"({column!r}, {name!r}) breaks this rule: mend it, or name it with a reason in {title}"
    assert not kept or reason is None, f"({column!r}, {name!r}) keeps this rule, and {title} says: {reason}"


def row_keeps(table: dict[Option, str], name: str, kept: bool) -> None:
    """The same of a row, which is an exception where one of its columns is."""
    assert kept != any((column, row(name)[column]["name"]) in table for column in COLUMNS)


def test_every_file_is_a_case_and_every_exception_a_file():
    conf = Path(options.__file__).parents[2] / "conf"
    found = {(column, file.stem) for column, group in GROUPS.items() for file in (conf / group).glob("*.yaml")}
    assert found == set(OPTIONS) and {file.stem for file in (conf / "imbalance").glob("*.yaml")} == set(ROWS)
    assert {file.name for file in (conf / "imbalance").iterdir() if file.is_dir()} == set(COLUMNS)
    for table in (OTHER_AT_EQUAL_COUNTS, HEEDS_SIZE, NEEDS_EACH_CLASS):
        assert set(table) <= found
    assert {(column, name) for column, name, _ in KEY_BESIDE} <= found


# A killed and resumed training ends with the bits of an undisturbed one.

COMPARED = ("history.jsonl", "metrics.json", "ledger.json")
NAMES = {column: list(options.listed(group)) for column, group in GROUPS.items()}
TABLES = [
    {column: names[k % len(names)] for column, names in NAMES.items()} for k in range(max(map(len, NAMES.values())))
]
TWO_STAGES = [name for name in ROWS if options.chosen("imbalance", name).get("override schedule") == "two_stage"]


class Killed(BaseException):
    """What ends a process."""


@contextlib.contextmanager
def killed_at(epoch: int | None, steps: int) -> Iterator[None]:
    """Training is interrupted after some steps of its own, and the process dies before an epoch (from 0)."""

    @contextlib.contextmanager
    def stop_on_signal() -> Iterator[Any]:
        left = iter(range(steps - 1, -1, -1))
        yield lambda: next(left, -1) == 0

    def train_epoch(recipe: Any, state: Any, *others: Any) -> None:
        if state.epoch == epoch:
            raise Killed
        original(recipe, state, *others)

    original = loop.train_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "stop_on_signal", stop_on_signal)
        patch.setattr(loop, "train_epoch", train_epoch)
        patch.setattr(checkpointer, "MIN_INTERVAL_S", 0)
        patch.setattr(os, "fsync", lambda *ignored: None)
        patch.setattr(results, "write", lambda *ignored: None)
        patch.setattr(conclude, "draw", lambda *ignored: None)
        yield


def left_by(made: Experiment, folder: Path, *kills: tuple[int | None, int]) -> Path:
    """The folder of a training that was killed so and so, and gone on with each time."""
    place = dataclasses.replace(base()[1], outputs=str(folder / "outputs"), cache=str(folder / "cache"))
    for epoch, steps in kills:
        with killed_at(epoch, steps), pytest.raises((KeyboardInterrupt, Killed)):
            training.train(made, place, load=lambda *ignored: data())
    with killed_at(None, 10**9):
        training.train(made, place, load=lambda *ignored: data())
    (run,) = (folder / "outputs").iterdir()
    return run


@pytest.mark.parametrize(
    "columns", [*TABLES, *TWO_STAGES], ids=lambda c: c if isinstance(c, str) else "-".join(c.values())
)
def test_resumed_is_undisturbed_bit_for_bit(columns, tmp_path):
    made = experiment(columns, augmentation=options.option("augmentation", "light"))
    made = dataclasses.replace(made, imbalance=dataclasses.replace(made.imbalance, epoch_size="originals"))
    recipe, _ = begun(made)
    first, steps = recipe.samples.strategy.second_stage_start or 2, recipe.steps_per_epoch
    last = (
        [(None, first * steps - 3)] if columns in TWO_STAGES else []
    )  # between the first part's last step and its end
    kills = [(None, 3), *last, (first, 10**9), (None, 2)]
    whole, resumed = left_by(made, tmp_path / "whole"), left_by(made, tmp_path / "resumed", *kills)
    for name in COMPARED:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    one, other = (checkpoint.load(run / "last.pt") for run in (whole, resumed))
    assert one["model"].keys() == other["model"].keys()
    assert all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])
    assert one["history"] == other["history"] and len(one["history"]) == 3
    assert "going on from epoch" in (resumed / "run.log").read_text()


# An option changes something, and so does each of its keys.

IS_ANOTHER = {frozenset({"balanced_softmax", "logit_adjusted"}): "one loss by two names: tau is 1 in both"}
KEY_BESIDE: dict[tuple[str, str, str], dict[str, Any]] = {  # what else has to be chosen for a key to matter
    ("optimizer", name, "tail"): {"rho": 0.5} for name in ("adam", "adamw", "sgd")
}
SHARPNESS = ("rho", "tail")  # the keys of an optimizer that are ours
IDLE = [  # values that silence what stands beside them
    ("optimizer", "adamw", {"rho": 0.0, "tail": 0.5}, r"optimizer\.tail"),
    ("schedule", "two_stage", {"start": 0.0}, r"imbalance\.schedule"),  # no classifier is retrained, nothing is mixed
]


@cache
def outcome(column: str, name: str) -> tuple[Tensor, ...]:
    return trained(experiment(BESIDE.get(column, {}) | {column: name}))


@every_option
def test_an_option_changes_something(column, name):
    if name != BASELINE[column]:
        assert differ(outcome(column, name), outcome(column, BASELINE[column]))


def test_no_two_rows_are_one_and_all_but_the_baseline_change_something():
    """Each of their options and keys does, as the tests below say; whole runs of them stand in test_training."""
    seen: dict[str, str] = {}
    for name in ROWS:
        columns = json.dumps([row(name)[column] for column in COLUMNS])
        assert columns not in seen, (name, seen[columns])
        seen[columns] = name
    assert [name for name in ROWS if all(row(name)[column] == row("none")[column] for column in COLUMNS)] == ["none"]


@pytest.mark.parametrize("column", GROUPS)
def test_no_two_options_of_a_column_are_one(column):
    names = list(nodes()[column])
    pairs = {frozenset({a, b}) for k, a in enumerate(names) for b in names[:k]}
    same = {pair for pair in pairs if not differ(*(outcome(column, name) for name in pair))}
    assert same == {pair for pair in IS_ANOTHER if pair <= set(names)}


def keys_of(column: str, name: str) -> Iterator[str]:
    for key in options.option(GROUPS[column], name):
        if key != "name" and (column != "optimizer" or key in SHARPNESS):
            yield key
    if "@transform" in (options.text(GROUPS[column], name) or ""):
        yield "transform"


def other_values(column: str, name: str, key: str) -> list[Any]:
    """Values that a key could have instead: numbers near and far, the words of its comment, the other options."""
    value = node(column, name)[key]
    if isinstance(value, dict):
        group = options.GROUPS[f"imbalance.{column}.{key}"]
        return [options.option(group, other) for other in options.listed(group)]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, list):
        return [other for other in ([], *([word] for word in TIMED)) if other != value]
    if isinstance(value, str):
        return [word for word in words(column, name, key) if word != value]
    if isinstance(value, int):
        return [1, value * 2, value // 2]
    usual = value or 0.0
    return [other for other in (0.5, usual / 4, usual * 2, usual + 0.3, usual + 8) if other != value]


def that_matter(column: str, name: str, key: str, beside: dict[str, Any]) -> Iterator[Any]:
    """Those of the other values of a key that are legal and change something."""

    def made(**keys: Any) -> Experiment:
        return experiment(BESIDE.get(column, {}) | {column: node(column, name, **(beside | keys))})

    def come_of(**keys: Any) -> tuple[Tensor, ...]:
        if column == "posthoc":
            return tuple(carried(evidence_of(seed), node(column, name, **keys)) for seed in range(4))
        return trained(made(**keys)) if beside | keys else outcome(column, name)

    for value in other_values(column, name, key):
        with contextlib.suppress(ValueError):  # no value of this key
            begun(made(**{key: value}))
            if differ(come_of(**{key: value}), come_of()):
                yield value


@pytest.mark.parametrize(("column", "name", "key"), [(c, n, key) for c, n in OPTIONS for key in keys_of(c, n)])
def test_a_key_changes_something(column, name, key):
    beside = KEY_BESIDE.get((column, name, key), {})
    assert any(True for _ in that_matter(column, name, key, beside)), other_values(column, name, key)
    assert not beside or not any(True for _ in that_matter(column, name, key, {}))  # nothing is beside it for nothing


@pytest.mark.parametrize(("column", "name", "keys", "said"), IDLE)
def test_what_would_come_to_nothing_is_refused(column, name, keys, said):
    with pytest.raises(ValueError, match=said):
        begun(experiment(BESIDE.get(column, {}) | {column: node(column, name, **keys)}))


# Names of classes mean nothing.

ORDER = torch.tensor([2, 0, 3, 1])
MOVED = tuple(COUNT[k] for k in ORDER)  # the counts once class k is called ORDER.argsort()[k]
LOGITS = torch.tensor([[2.0, 0.0, -1.0, 0.3], [0.5, 0.2, 0.1, -0.4], [-1.0, 3.0, 0.0, 1.0], [0.1, -0.2, 0.4, 0.0]])
TARGET = torch.tensor([0, 2, 1, 3])
FEATURE = torch.tensor([[0.5, 0.0, 1.5], [2.0, -0.3, 0.1], [0.2, 0.2, 0.0], [1.0, -1.0, 3.0]])


def alone(column: str, name: str) -> dict[str, Any]:
    """The columns of a strategy in which an option stands alone, or with what it needs."""
    return BESIDE.get(column, {}) | {column: name}


def slopes(loss: Any, logits_BC: Tensor, target: Tensor, count: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Losses of samples, and the gradient of their mean."""
    logits_BC = logits_BC.clone().requires_grad_()
    value_B = values(loss, logits_BC, target, FEATURE, count)
    value_B.mean().backward()
    return value_B.detach(), logits_BC.grad


def permutes(columns: Any) -> None:
    one, other = plan(columns, COUNT), plan(columns, MOVED)
    assert torch.equal(other.original_C, one.original_C[ORDER]) and torch.equal(other.count_C, one.count_C[ORDER])
    for here, there in zip(one.per_epoch, other.per_epoch, strict=True):
        for field in ("share_C", "exposure_C", "weight_C"):
            torch.testing.assert_close(getattr(there, field), getattr(here, field)[ORDER], rtol=1e-12, atol=0)
        assert own(here.loss).keys() == own(there.loss).keys()
        for name, value in own(here.loss).items():
            torch.testing.assert_close(own(there.loss)[name], value[ORDER] if value.ndim else value)
        torch.testing.assert_close(ledger.effective_prior(there), ledger.effective_prior(here)[ORDER])
        found = slopes(here.loss, LOGITS, TARGET, COUNT)
        moved = slopes(there.loss, LOGITS[:, ORDER], ORDER.argsort()[TARGET], MOVED)
        torch.testing.assert_close(moved, (found[0], found[1][:, ORDER]))
        assert (here.mix, here.second_stage) == (there.mix, there.second_stage)


@stands_in_the_plan
def test_permuted_classes_permute_an_option(column, name):
    permutes(alone(column, name))


@every_row
def test_permuted_classes_permute_a_row(row_name):
    permutes(row_name)


@decides_on_draws
def test_a_class_is_drawn_as_often_as_its_share_whatever_its_name(column, name):
    for count in (COUNT, MOVED):
        worked = plan(alone(column, name) | {"sampling": name if column == "sampling" else "sqrt"}, count)
        size = 6000 if name != "class_aware" else 300
        worked = dataclasses.replace(worked, epoch_size=size)
        for epoch, stage in enumerate(worked.per_epoch):
            drawn_C = torch.bincount(worked.label_P[worked.order(epoch, 0)], minlength=4).double()
            wanted_C = stage.share_C * size
            assert bool(((drawn_C - wanted_C).abs() <= 4 * wanted_C.sqrt() + 1).all())


def evidence_of(seed: int = 0, classes: int = 4) -> Evidence:
    """What an imbalanced training would leave on validation."""
    torch.manual_seed(seed)
    target = torch.randperm(12 * classes) % classes
    feature = torch.randn(len(target), 6).double() + 1.5 * torch.eye(classes, 6).double()[target]
    weight, prior = torch.eye(classes, 6).double() * torch.tensor([[2.0], [1.2], [0.9], [0.7]]), torch.tensor(COUNT)
    prior_C = prior.double() / prior.sum()
    bias = prior_C.log() / 2
    mean_CF = torch.stack([torch.nn.functional.normalize(feature[target == c]).mean(0) for c in range(classes)])
    return Evidence(feature @ weight.T + bias, feature, target, weight, prior_C, lambda: mean_CF)


def carried(seen: Evidence, fit: Node) -> Tensor:
    """The probabilities of validation that a fit leaves."""
    head = torch.nn.Linear(6, 4).double()
    bias_C = (seen.logits_VC - seen.feature_VF @ seen.weight_CF.T)[0]
    head.load_state_dict({"weight": seen.weight_CF, "bias": bias_C})
    with torch.no_grad():
        fitted = option.read(Posthoc, fit, "imbalance.posthoc").build()(seen)
        return posthoc.apply(head, fitted)(seen.feature_VF).softmax(1)


@every("posthoc")
def test_permuted_classes_permute_a_fit(name):
    seen = evidence_of()
    moved = Evidence(
        *(seen.logits_VC[:, ORDER], seen.feature_VF, ORDER.argsort()[seen.target_V], seen.weight_CF[ORDER]),
        *(seen.prior_C[ORDER], lambda: seen.mean_CF()[ORDER]),
    )
    fit = node("posthoc", name)
    torch.testing.assert_close(carried(moved, fit), carried(seen, fit)[:, ORDER])


# At equal counts there is nothing to do, and the size of a set is no imbalance.

_MIXES, _HEURISTIC = "images are mixed whatever their classes", "a loss of another form, whatever the counts"
_FITS = "fits validation, whatever the prior"
OTHER_AT_EQUAL_COUNTS: dict[Option, str] = {
    ("copies", "floor"): "a number of images, which equal classes may be below",
    ("sampling", "class_aware"): "classes take turns, equal ones too",
    **{("mix", name): _MIXES for name in ("balanced_mixup", "cmo", "cutmix", "mixup", "remix")},
    **{("loss", name): _HEURISTIC for name in ("focal", "focal_ovr", "influence_balanced", "squared_hinge")},
    ("loss", "ldam"): "equal margins are margins, and the head is another",
    **{("posthoc", name): _FITS for name in ("nearest_class_mean", "offsets", "tau_norm", "temperature")},
    ("schedule", "two_stage"): "the classifier is trained twice",
    **{("optimizer", name): "another optimizer" for name in ("adam", "sgd", "sam")},
    ("optimizer", "sam_tail"): "there is no tail, and it says so",
}
EQUAL = (9, 9, 9, 9)


@cache
def at_equal_counts(column: str, name: str) -> tuple[Tensor, ...]:
    """What the last epoch says; the best one of a deferred strategy is one of its second stage."""
    return trained(experiment(alone(column, name)), data(EQUAL))[1:]


@every_option
def test_at_equal_counts_an_option_is_the_baseline(column, name):
    if (column, name) == ("optimizer", "sam_tail"):
        with pytest.raises(ValueError, match=r"optimizer\.tail=0\.5: no class has fewer"):
            at_equal_counts(column, name)
    else:
        kept = not differ(at_equal_counts(column, name), at_equal_counts(column, BASELINE[column]))
        keeps(OTHER_AT_EQUAL_COUNTS, column, name, kept)


@every_row
def test_at_equal_counts_a_row_is_the_baseline(row_name):
    one, baseline = plan(row_name, EQUAL), plan("none", EQUAL)
    same = all(
        here.mix == there.mix
        and torch.allclose(here.weight_C, there.weight_C)
        and torch.equal(one.order(epoch, 0), baseline.order(epoch, 0))
        and torch.allclose(slopes(here.loss, LOGITS, TARGET, EQUAL)[1], slopes(there.loss, LOGITS, TARGET, EQUAL)[1])
        for epoch, (here, there) in enumerate(zip(one.per_epoch, baseline.per_epoch, strict=True))
    )
    same = (
        same and row(row_name)["posthoc"]["name"] in ("none", "logit_adjustment") and not one.columns.schedule.retrains
    )
    row_keeps(OTHER_AT_EQUAL_COUNTS, row_name, same)


def test_at_equal_counts_margins_are_equal():
    margin_C = loss_of({"loss": "ldam"}, EQUAL).margin_C
    torch.testing.assert_close(margin_C, torch.full((4,), 30 * 0.5).double())


HEEDS_SIZE: dict[Option, str] = {
    ("copies", "floor"): "a number of images",
    ("sampling", "effective_number"): "beta is a number of images, 1/(1-beta)",
    ("weights", "effective_number"): "beta is a number of images, 1/(1-beta)",
}
SQUARES, MORE = (64, 16, 4, 1), (192, 48, 12, 3)  # of which copies.power makes whole numbers


def heeds_size(columns: Any) -> bool:
    one, other = plan(columns, SQUARES), plan(columns, MORE)
    same = torch.equal(3 * one.count_C, other.count_C)
    for here, there in zip(one.per_epoch, other.per_epoch, strict=True):
        same &= all(torch.allclose(getattr(here, f), getattr(there, f)) for f in ("share_C", "exposure_C", "weight_C"))
        found = [slopes(loss, LOGITS, TARGET, count) for loss, count in ((here.loss, SQUARES), (there.loss, MORE))]
        same &= all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(*found, strict=True))
    return not same


@stands_in_the_plan
def test_three_times_the_images_are_the_same_imbalance(column, name):
    keeps(HEEDS_SIZE, column, name, not heeds_size(alone(column, name)))


@every_row
def test_three_times_the_images_are_the_same_to_a_row(row_name):
    row_keeps(HEEDS_SIZE, row_name, not heeds_size(row_name))


@every("posthoc")
def test_three_times_the_validation_images_are_the_same_to_a_fit(name):
    seen, fit = evidence_of(), node("posthoc", name)
    thrice = [value.repeat_interleave(3, 0) for value in (seen.logits_VC, seen.feature_VF, seen.target_V)]
    more = Evidence(*thrice, seen.weight_CF, seen.prior_C, seen.mean_CF)
    torch.testing.assert_close(carried(more, fit)[::3], carried(seen, fit))


@pytest.mark.parametrize("name", options.listed("optimizer"))
def test_three_times_the_images_have_the_same_tail(name):
    optimizer = experiment({"optimizer": name}).optimizer
    tails = [build_training.sharpness_of(optimizer, torch.tensor(count)) for count in (SQUARES, MORE)]
    assert str(tails[0]) == str(tails[1]) and (tails[0] is None) == (node("optimizer", name)["rho"] == 0)


# One image of a class is enough; of none, every option does without or says so.

_LOG = "log, ratio or root of a count of 0"
NEEDS_EACH_CLASS: dict[Option, str] = {
    **{("loss", name): _LOG for name in ("balanced_softmax", "cdt", "logit_adjusted", "vs", "ldam")},
    ("loss", "label_aware_smoothing"): "the smallest class is the end of the curve",
    ("posthoc", "logit_adjustment"): _LOG,
    ("posthoc", "nearest_class_mean"): "nothing has no mean",
}
FAR = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 1e4], [1e4, 1e4, 1e4], [0.0, 0.0, 0.0]])


def finite(columns: Any, count: tuple[int, ...]) -> None:
    worked = plan(columns, count)
    there = torch.tensor([c for c, number in enumerate(count) if number])
    for epoch, stage in enumerate(worked.per_epoch):
        for field in ("share_C", "exposure_C", "weight_C"):
            value_C = getattr(stage, field)
            assert bool(value_C.isfinite().all()) and bool((value_C[there] > 0).all())
            assert bool((value_C[worked.count_C == 0] == 0).all())
        assert all(bool(value.isfinite().all()) for value in own(stage.loss).values())
        for logits in (FAR, torch.randn(5, 3, generator=torch.Generator().manual_seed(0))):
            for label in there.tolist():
                logits = logits.detach().clone().requires_grad_()
                feature = torch.ones(5, 3, requires_grad=True)
                constants = stage.loss.constants(worked.count_C, stage.exposure_C, stage.weight_C, CPU)
                loss_B = stage.loss.formula(logits, torch.full((5,), label), feature, constants, 0.5)
                loss_B.mean().backward()
                assert bool(loss_B.isfinite().all()) and bool(logits.grad.isfinite().all())
                assert feature.grad is None or bool(feature.grad.isfinite().all())
        assert set(worked.label_P[worked.order(epoch, 0)].tolist()) <= set(there.tolist())
    json.dumps([ledger.rows(worked, "abc"), ledger.timeline(worked), ledger.over_correction(worked)], allow_nan=False)


@stands_in_the_plan
@pytest.mark.parametrize("count", [(90, 9, 1), (1, 1, 1)])
def test_one_image_is_enough_for_an_option(column, name, count):
    finite(alone(column, name), count)


@pytest.mark.parametrize(("name", "key"), [(n, key) for c, n in OPTIONS if c == "loss" for key in keys_of(c, n)])
def test_one_image_is_enough_for_a_loss_with_other_values(name, key):
    legal = []
    for value in other_values("loss", name, key):
        with contextlib.suppress(ValueError):  # no value of this key, whatever the counts
            plan({"loss": node("loss", name, **{key: value})}, EQUAL)
            legal.append(value)
    assert legal
    for value in legal:
        finite({"loss": node("loss", name, **{key: value})}, (90, 9, 1))


@every_row
def test_one_image_is_enough_for_a_row(row_name):
    finite(row_name, (90, 9, 1))


@options_of(*COLUMNS)
def test_without_images_of_a_class_an_option_goes_on_or_says_which(column, name):
    if column == "schedule":
        return finite(SCHEDULED | {"loss": "focal", "schedule": name}, (9, 0, 2))
    if (column, name) in NEEDS_EACH_CLASS:
        with pytest.raises(ValueError, match=r"class(es)? (number )?\[?1\b"):
            plan(alone(column, name), (9, 0, 2))
    else:
        finite(alone(column, name), (9, 0, 2))


# A strategy does not change the learning rate by stealth.


def weighs_one(columns: Any, *counts: tuple[int, ...]) -> None:
    for count in counts:
        for stage in plan(columns, count, epochs=7).per_epoch:
            assert float(stage.share_C.sum()) == pytest.approx(1, rel=1e-12)
            assert float(stage.exposure_C.sum()) == pytest.approx(1, rel=1e-12)
            assert float((stage.exposure_C * stage.weight_C).sum()) == pytest.approx(1, rel=1e-12)


@decides_on_draws
def test_the_mean_sample_weight_of_an_option_is_one(column, name):
    for weights in options.listed("imbalance/weights"):
        columns = alone(column, name) | {"weights": weights, "loss": "cross_entropy"}
        weighs_one(columns, COUNT, (90, 9, 1), (9, 0, 2))


@every_row
def test_the_mean_sample_weight_of_a_row_is_one(row_name):
    weighs_one(row_name, COUNT, (90, 9, 1))


@every("mix")
@pytest.mark.parametrize("sampling", ["uniform", "sqrt", "class_aware"])
def test_labels_are_met_as_often_as_the_ledger_says(name, sampling):
    worked = plan({"mix": name, "sampling": sampling}, (90, 9, 1))
    size = 20_000 if sampling != "class_aware" else 500
    worked = dataclasses.replace(worked, epoch_size=size)
    item_E, other_E, stage = worked.order(1, 0), worked.partners(1, 0), worked.per_epoch[1]
    met_C, label_P = torch.bincount(worked.label_P[item_E], minlength=3).double(), worked.label_P
    assert (stage.mix is not None) == (name != "none") == (other_E is not None)
    if other_E is not None:
        count_P = worked.count_C[label_P]
        counts = (count_P[item_E], count_P[other_E])
        lam_E = mixing.draw(worked.columns.mix, *counts, (48, 48), seed=0, epoch=1).label_lam_E.double()
        met_C = torch.bincount(label_P[item_E], lam_E, minlength=3)
        met_C += torch.bincount(label_P[other_E], 1 - lam_E, minlength=3)
    wanted_C = stage.exposure_C * size
    assert bool(((met_C - wanted_C).abs() <= 4 * wanted_C.sqrt()).all()), (met_C, wanted_C)


# Less precise logits give less precise losses, and slopes are those of the values.


@every("loss")
def test_bf16_logits_give_the_loss_of_fp32(name):
    loss = loss_of({"loss": name})
    exact, rough = (values(loss, logits, TARGET, FEATURE) for logits in (LOGITS, LOGITS.bfloat16().float()))
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.02)
    assert not torch.equal(rough, exact)


@every("loss")
def test_training_in_bf16_is_training_in_fp32(name, monkeypatch):
    monkeypatch.setattr(machine, "_bf16_arithmetic", lambda: True)  # on other processors it is refused
    met = []
    for precision in ("fp32", "bf16"):
        recipe, state = begun(experiment({"loss": name}, precision=precision))
        met.append(next(loop.fit(recipe, state, lambda *ignored: False)).row["train/loss"])
    assert met[0] == pytest.approx(met[1], rel=0.03) and met[0] != met[1]


@every("loss")
@pytest.mark.parametrize("soft", [False, True])
def test_slopes_are_those_of_the_values(name, soft):
    target = 0.8 * torch.nn.functional.one_hot(TARGET, 4).double() + 0.05 if soft else TARGET
    loss = loss_of({"loss": name})

    def value(logits_BC: Tensor) -> Tensor:
        return values(loss, logits_BC, target, FEATURE.double())

    assert torch.autograd.gradcheck(value, LOGITS.double().requires_grad_())
