"""One step and one epoch against a loop written out by hand, and what happens when numbers go wrong."""

import copy
import dataclasses
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from emoexp import rng
from emoexp.config import build_training, schema
from emoexp.data.normalisation import Normalisation
from emoexp.imbalance import copies, losses, strategy
from emoexp.inference import predict
from emoexp.models.network import Network
from emoexp.training import loop, setup, step
from emoexp.training.augment import Policy
from emoexp.training.batches import TrainingSamples, load_batch
from emoexp.training.sharpness import Sharpness

COUNT = torch.tensor([30, 8, 3])
LABEL = torch.repeat_interleave(torch.arange(3), COUNT)
IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8))
ORIGINAL = torch.arange(41) + 5  # training originals need not stand first


class Net(Network):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3)
        )
        self.classifier = nn.Linear(144, 3)

    def features(self, x):
        return self.body(x)


COLUMNS = ("share", "weight", "target", "loss", "mix", "replacement", "weight_scale")


CPU = torch.device("cpu")


def recipe(policy=Policy(), **keys) -> setup.TrainSetup:
    """formula: a loss's, in place of a loss; stages: the column schedule; other columns; the setup's own keys."""
    epochs = keys.get("epochs", 2)
    if formula := keys.pop("formula", None):
        keys["loss"] = lambda count, share: losses.Loss(formula)
    chosen = {name: keys.pop(name) for name in COLUMNS if name in keys}
    chosen["batch_size"] = keys.get("batch_size", 16)
    columns = strategy.Columns(schedule=keys.pop("stages", strategy.ONE_STAGE), **chosen)
    sharpness = keys.pop("sharpness", Sharpness(0.0))
    samples = TrainingSamples(
        image_NCHW=IMAGE,
        original_N=ORIGINAL,
        strategy=strategy.build(LABEL, 3, columns, epochs=epochs, epoch_size="pool", seed=0),
        augmentation=policy,
        copy_augmentation=keys.pop("copy_augmentation", Policy()),
        redraw=keys.pop("redraw", False),
        seed=0,
        device=CPU,
    )
    step_setup = step.StepSetup(
        image_NCHW=IMAGE,
        normalisation=Normalisation(0.5, 0.25),
        device=CPU,
        precision=keys.pop("precision", "fp32"),
        clip_norm=keys.pop("clip_norm", None),
        sharpness_rho=sharpness.rho,
    )
    usual = {"epochs": 2, "monitor": "val/macro_f1", "patience": None, "seed": 0, "batch_size": 16}
    usual |= {"lr_schedule": keys.pop("schedule", lambda epochs_done, total_epochs, monitored: 1.0)}
    return setup.TrainSetup(
        samples=samples,
        step_setup=step_setup,
        validation=(torch.arange(46, 60), torch.arange(14) % 3),
        num_classes=3,
        tail_C=sharpness.tail_C,
        **(usual | keys),
    )


def fresh(lr=0.01) -> step.TrainState:
    torch.manual_seed(0)
    model = Net()
    return step.TrainState(
        model, torch.optim.AdamW(build_training.parameter_groups(model, "weights"), lr=lr, weight_decay=0.1, fused=True)
    )


def never(step: int, steps: int) -> bool:
    return False


def test_an_epoch_is_the_loop_written_out():
    weight = torch.tensor([0.5, 2.0, 4.0])
    train_setup = recipe(weight=lambda n: weight.double())
    state, other = fresh(), fresh()
    epoch = next(loop.fit(train_setup, state, never))

    model, total = other.model, 0.0
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": spared, "weight_decay": 0.0}], lr=0.01, weight_decay=0.1, fused=True
    )
    scale = weight / (COUNT / 41 * weight).sum()
    for number, item in enumerate(rng.permutation(0, "order", 0, 0, size=41).split(16)):
        image = ((IMAGE[ORIGINAL[item]].float() / 255) - 0.5) / 0.25
        torch.manual_seed(rng.fold(0, "dropout", 0, number))
        logits = model(image.contiguous(memory_format=torch.channels_last)).logits_BC
        loss = (functional.cross_entropy(logits, LABEL[item], reduction="none") * scale[LABEL[item]]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(item)
    for ours, theirs in zip(state.model.state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert epoch.row["train/loss"] == pytest.approx(total / 41, rel=1e-5)


@pytest.mark.parametrize(("size", "steps", "last"), [(16, 3, 9), (20, 2, 21), (40, 1, 41), (64, 1, 41)])
def test_no_image_is_left_out_and_none_stands_alone(size, steps, last):
    train_setup = recipe(batch_size=size)
    order, plan = train_setup.samples.order(0), train_setup.plan_epoch(fresh())
    parts = [order[position.rows] for position in plan.positions()]
    assert len(parts) == steps and len(parts[-1]) == last
    assert torch.equal(torch.cat(parts), order)


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5, 6])
def test_resuming_at_any_step_changes_no_bit(stop):
    train_setup = recipe(policy=Policy(flip=0.5, rotate=10.0, erase=0.5, erase_area=0.2))
    whole = fresh()
    rows = [epoch.row for epoch in loop.fit(train_setup, whole, never)]

    first, taken = fresh(), 0

    def interrupt(step: int, steps: int) -> bool:
        nonlocal taken
        taken += 1
        return taken == stop

    with pytest.raises(loop.Interrupted):
        list(loop.fit(train_setup, first, interrupt))
    payload = copy.deepcopy(first.payload())
    second = fresh(lr=0.5)  # everything has to come from the payload
    torch.manual_seed(999)
    second.restore(payload, torch.device("cpu"))
    list(loop.fit(train_setup, second, never))
    assert second.history == rows
    for ours, theirs in zip(second.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("key", ["model", "optimizer", "epoch", "step", "history", "running"])
def test_every_part_of_the_payload_is_needed(key):
    train_setup = recipe(
        policy=Policy(flip=0.5), schedule=lambda epochs_done, total_epochs, monitored: 1.0 / (1 + len(monitored))
    )
    whole = fresh()
    list(loop.fit(train_setup, whole, never))
    first, taken = fresh(), 0

    def interrupt(step: int, steps: int) -> bool:
        nonlocal taken
        taken += 1
        return taken == 5

    with pytest.raises(loop.Interrupted):
        list(loop.fit(train_setup, first, interrupt))
    payload = copy.deepcopy(first.payload()) | {key: copy.deepcopy(fresh().payload()[key])}
    second = fresh()
    second.restore(payload, torch.device("cpu"))
    list(loop.fit(train_setup, second, never))
    weights_equal = all(
        torch.equal(a, b)
        for a, b in zip(second.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    )
    assert not (weights_equal and second.history == whole.history)


def test_what_was_worked_out_ahead_is_used_and_forgotten(monkeypatch):
    train_setup, asked = recipe(policy=Policy(flip=0.5), epochs=3), []
    whole = TrainingSamples.samples_of

    def counted(self, items, epoch):
        asked.append(epoch)
        return whole(self, items, epoch)

    monkeypatch.setattr(TrainingSamples, "samples_of", counted)
    list(loop.fit(train_setup, fresh(), never))
    assert asked == [0, 1, 2] and not train_setup.samples._prepared


def nan_at(step_wanted: int):
    calls = 0

    def loss(*arguments):
        nonlocal calls
        calls += 1
        value = losses.softmax(*arguments)
        return value * float("nan") if calls == step_wanted else value

    return loss


def test_a_loss_that_is_not_finite_stops_before_the_step():
    clean = fresh()
    reached: list[dict[str, torch.Tensor]] = []

    def watch(step: int, steps: int) -> bool:
        reached.append(copy.deepcopy(dict(clean.model.named_parameters())))
        return False

    with pytest.raises(FloatingPointError, match=r"epoch 1, step 2 .*nothing was updated with it"):
        list(loop.fit(recipe(formula=nan_at(2)), clean, watch))
    for name, parameter in clean.model.named_parameters():
        assert torch.equal(parameter, reached[0][name]) and torch.isfinite(parameter).all()
    assert not clean.history


def test_a_gradient_that_is_not_finite_stops_too():
    class Explodes(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * float("inf")

    def loss(logits, *others):
        return losses.softmax(Explodes.apply(logits), *others)

    with pytest.raises(FloatingPointError, match="step 1 "):
        list(loop.fit(recipe(formula=loss), fresh(), never))


def test_clipping_bounds_the_update():
    state = fresh()
    before = [p.detach().clone() for p in state.model.parameters()]
    state = dataclasses.replace(state, optimizer=torch.optim.SGD(state.model.parameters(), lr=1.0))
    train_setup = recipe(clip_norm=1e-3, epochs=1, batch_size=41)
    list(loop.fit(train_setup, state, never))
    moved = torch.cat(
        [(p.detach() - q).flatten() for p, q in zip(state.model.parameters(), before, strict=True)]
    ).norm()
    assert 0 < float(moved) <= 1.001e-3


def test_weight_decay_spares_biases_and_norms():
    groups = build_training.parameter_groups(Net(), "weights")
    assert [p.ndim for p in groups[0]["params"]] == [4, 2] and all(p.ndim == 1 for p in groups[1]["params"])
    assert len(groups[1]["params"]) == 3 and groups[1]["weight_decay"] == 0
    assert len(build_training.parameter_groups(Net(), "all")) == 1


def test_an_unknown_monitor_is_named():
    with pytest.raises(ValueError, match=r"monitor=val/f2 is no column"):
        list(loop.fit(recipe(monitor="val/f2"), fresh(), never))


def test_every_monitor_is_a_column():
    state = fresh()
    row = next(loop.fit(recipe(), state, never)).row
    assert set(get_args(schema.Monitor)) == {"epoch", *(name for name in row if name.startswith("val/"))}


def test_a_loss_is_minimised():
    assert recipe(monitor="val/loss").monitored_values([{"val/loss": 2.0}, {"val/loss": 1.0}]) == [-2.0, -1.0]


def test_patience_ends_training():
    scripted = iter([0.4, 0.3, 0.31, 0.32, 0.5])
    train_setup = recipe(epochs=5, patience=3)

    def validate(*arguments):
        return {"val/macro_f1": next(scripted)}

    original, loop.validate = loop.validate, validate
    try:
        epochs = list(loop.fit(train_setup, fresh(), never))
    finally:
        loop.validate = original
    assert [epoch.best for epoch in epochs] == [True, False, False, False]


def look(train_setup, items, epoch):
    """Images and classes of some items, drawn first in an epoch."""
    samples, step_setup = train_setup.samples.samples_of(items, epoch), train_setup.step_setup
    image, target = load_batch(IMAGE, step_setup.normalisation, CPU, samples, slice(None))
    return image, target.label_B


def test_copies_differ_from_their_parent_and_stay_the_same():
    train_setup = recipe(target=copies.equalise, copy_augmentation=Policy(rotate=15.0, translate=0.1))
    strategy = train_setup.samples.strategy
    copied = torch.nonzero(strategy.copy_P > 0).flatten()[:8]
    first, label = look(train_setup, copied, epoch=0)
    again, _ = look(train_setup, copied.flip(0), epoch=3)
    parents = torch.tensor(
        [
            int(torch.nonzero(train_setup.samples.strategy.parent_P[:41] == p))
            for p in train_setup.samples.strategy.parent_P[copied]
        ]
    )
    original, parent_label = look(train_setup, parents, epoch=0)
    assert torch.equal(first, again.flip(0)) and torch.equal(label, parent_label)
    assert (first - original).abs().amax((1, 2, 3)).min() > 0.05
    plain = Normalisation(0.5, 0.25)(IMAGE[ORIGINAL[strategy.parent_P[parents]]])
    torch.testing.assert_close(original, plain, atol=1e-5, rtol=0)


def test_redrawn_copies_change_with_the_epoch():
    train_setup = recipe(target=copies.equalise, copy_augmentation=Policy(rotate=15.0), redraw=True)
    copied = torch.nonzero(train_setup.samples.strategy.copy_P > 0).flatten()[:8]
    assert not torch.equal(look(train_setup, copied, 0)[0], look(train_setup, copied, 1)[0])
    assert torch.equal(look(train_setup, copied, 1)[0], look(train_setup, copied.roll(3), 1)[0].roll(-3, 0))


def test_augmentation_differs_by_epoch_and_place():
    train_setup = recipe(policy=Policy(rotate=15.0))
    same = torch.tensor([3, 3])
    first, _ = look(train_setup, same, 0)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, look(train_setup, same, 1)[0])
    assert torch.equal(first, look(train_setup, same, 0)[0])


def test_a_step_sees_its_own_rows_of_the_epoch():
    train_setup = recipe(policy=Policy(rotate=15.0, erase=0.5, erase_area=0.2), batch_size=7)
    plan = train_setup.plan_epoch(dataclasses.replace(fresh(), epoch=1))

    def batch(rows):
        return load_batch(IMAGE, train_setup.step_setup.normalisation, CPU, plan.samples, rows)

    image, target = batch(slice(None))
    pieces = [batch(position.rows) for position in plan.positions()]
    assert torch.equal(torch.cat([piece for piece, _ in pieces]), image)
    assert torch.equal(torch.cat([its.label_B for _, its in pieces]), target.label_B)
    for position in plan.positions():
        assert torch.equal(train_setup.samples.originals(1, position.rows), plan.samples.index_E[position.rows])


@pytest.mark.parametrize("size", [1, 7, 60])
def test_predictions_do_not_depend_on_the_chunk(monkeypatch, size):
    model = fresh().model
    with torch.inference_mode():
        whole = model.eval()(Normalisation(0.5, 0.25)(IMAGE)).logits_BC
    monkeypatch.setattr(predict, "_PIXELS", {"cpu": size * 64})
    chunks = predict.batches(IMAGE, torch.arange(60), Normalisation(0.5, 0.25), torch.device("cpu"))
    one = predict.logits(model, chunks, "fp32")
    torch.testing.assert_close(one, whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predict.probabilities(one).sum(1), 1)
