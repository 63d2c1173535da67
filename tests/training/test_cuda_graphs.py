"""Captured steps against eager ones: on a CPU by a stand-in for CUDA graphs, on CUDA by themselves."""

import copy
import dataclasses
from functools import partial

import pytest
import recorder
import torch
from test_loop import fresh, never, recipe
from torch import nn

from emoexp.config import build_training
from emoexp.imbalance import copies, losses, sampling
from emoexp.imbalance.mixing import Mix
from emoexp.imbalance.schedule import Schedule
from emoexp.models import heads
from emoexp.training import cuda_graphs, loop, step
from emoexp.training.augment import Policy
from emoexp.training.sharpness import Sharpness

STRONG = Policy(flip=0.5, rotate=10.0, brightness=0.2, erase=0.5, erase_area=0.3)


def focal(count, share):
    return losses.focal(count, share, gamma=2.0, smoothing=0.1)


def plain(*arguments):
    """Cross-entropy as a formula."""
    return losses.softmax(*arguments)


def halving(done, total, monitored):
    """Factors whose rates are float32 numbers, as a device keeps them."""
    return 2.0 ** -int(done * 3)


STRATEGIES = {
    "none": {},
    "augmented": {"policy": STRONG},
    "padded with black": {"policy": dataclasses.replace(STRONG, translate=0.3, pad="black")},
    "copies": {
        "policy": STRONG,
        "target": copies.equalise,
        "copy_augmentation": Policy(rotate=20.0, erase=0.5, erase_area=0.2),
    },
    "redrawn": {"target": copies.equalise, "copy_augmentation": Policy(rotate=20.0), "redraw": True},
    "sampler": {"policy": STRONG, "share": partial(sampling.power, exponent=0.0)},
    "weights": {"weight": lambda n: 1 / n.double()},
    "weights of the batch": {"weight": lambda n: 1 / n.double(), "weight_scale": "batch", "batch_size": 16},
    "focal": {"loss": focal, "clip_norm": 0.5},
    "many steps": {"policy": STRONG, "batch_size": 6},
    "mixup": {"policy": STRONG, "mix": Mix(alpha=1.0, beta=1.0)},
    "boxes of rare classes": {"mix": Mix(alpha=1.0, beta=1.0, paste=True, partner=0.0, probability=0.5)},
    "vector scaling": {"loss": partial(losses.vector_scaling, gamma=0.2, tau=1.2, smoothing=0.1)},
    "influence": {"loss": partial(losses.influence_balanced, alpha=10.0, epsilon=0.1, detach=False, smoothing=0.0)},
    "progressive": {"share": partial(sampling.progressive, exponent=0.0)},
    "without replacement": {"share": partial(sampling.power, exponent=0.0), "replacement": False},
    "deferred": {
        "loss": partial(losses.ldam, margin=0.5, scale=1.0, smoothing=0.0),
        "weight": lambda n: 1 / n.double(),
        "mix": Mix(alpha=1.0, beta=1.0),
        "stages": Schedule(start=0.6, late=["weights", "loss"], early=["mix"], rate=0.5),
    },
    "two stages": {
        "share": partial(sampling.power, exponent=0.0),
        "stages": Schedule(start=0.6, late=["sampling"], retrain="fresh", norms="frozen"),
    },
    "statistics go on": {"stages": Schedule(start=0.3, retrain="kept")},
    "sharpness": {"policy": STRONG, "sharpness": Sharpness(0.05)},
    "sharpness of the tail": {"sharpness": Sharpness(0.05, torch.tensor([0.0, 1.0, 1.0])), "clip_norm": 0.5},
}
OPTIMIZERS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0078125, weight_decay=0.1, fused=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.0078125, weight_decay=0.01, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0078125, momentum=0.9, nesterov=True, fused=True),
    "sgd without momentum": lambda groups: torch.optim.SGD(groups, lr=0.0078125, fused=True),
}


def initial_state(optimizer="adamw", seed=0) -> step.TrainState:
    torch.manual_seed(seed)
    model = fresh().model
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return step.TrainState(model, OPTIMIZERS[optimizer](build_training.parameter_groups(model, "weights")))


def trained(train_setup, state):
    """History and weights after all epochs."""
    rows = [epoch.row for epoch in loop.fit(train_setup, state, never)]
    return rows, {name: value.clone() for name, value in state.model.state_dict().items()}


def captured(train_setup):
    return dataclasses.replace(train_setup, capture=cuda_graphs.CapturedSteps(record=recorder.record))


def counting(count: list[str]):
    """Recordings that are counted."""

    def counted(work):
        count.append("one")
        return recorder.record(work)

    return counted


def same(ours, theirs):
    assert ours[0] == theirs[0]
    assert all(torch.equal(value, theirs[1][name]) for name, value in ours[1].items())


@pytest.fixture(autouse=True)
def _forgotten():
    cuda_graphs.OF_THIS_PROCESS.clear()
    yield
    cuda_graphs.OF_THIS_PROCESS.clear()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_captured_run_is_the_eager_run(strategy):
    train_setup = recipe(**STRATEGIES[strategy], schedule=halving, epochs=3)
    same(trained(captured(train_setup), initial_state()), trained(train_setup, initial_state()))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_every_optimizer_that_can_be_captured(optimizer):
    train_setup = recipe(policy=STRONG, schedule=halving, epochs=3)
    assert cuda_graphs.refusal(train_setup.step_setup, initial_state(optimizer)) is None
    same(trained(captured(train_setup), initial_state(optimizer)), trained(train_setup, initial_state(optimizer)))


def test_runs_of_one_kind_share_recordings():
    count: list[str] = []
    plain, weighted = recipe(**STRATEGIES["augmented"]), recipe(policy=STRONG, weight=lambda n: 1 / n.double())
    sampled = recipe(**STRATEGIES["sampler"])
    share = cuda_graphs.CapturedSteps(record=counting(count))
    for train_setup, seed in ((plain, 0), (weighted, 1), (sampled, 2), (plain, 0)):
        train_setup = dataclasses.replace(train_setup, seed=seed, lr_schedule=halving)
        same(
            trained(dataclasses.replace(train_setup, capture=share), initial_state(seed=seed)),
            trained(train_setup, initial_state(seed=seed)),
        )
    assert len(count) == 2  # batches of 16, and the last one of 9


def test_losses_of_one_formula_share_recordings():
    count: list[str] = []
    share = cuda_graphs.CapturedSteps(record=counting(count))
    for gamma, tau in ((0.2, 1.2), (0.3, 0.5), (0.1, 1.0)):
        train_setup = recipe(loss=partial(losses.vector_scaling, gamma=gamma, tau=tau, smoothing=0.0), schedule=halving)
        same(
            trained(dataclasses.replace(train_setup, capture=share), initial_state()),
            trained(train_setup, initial_state()),
        )
    assert len(count) == 2


def test_runs_of_two_stages_share_both_recordings():
    count: list[str] = []
    share = cuda_graphs.CapturedSteps(record=counting(count))
    for seed in (0, 1):
        train_setup = recipe(**STRATEGIES["two stages"], schedule=halving, epochs=3, seed=seed)
        same(
            trained(dataclasses.replace(train_setup, capture=share), initial_state(seed=seed)),
            trained(train_setup, initial_state(seed=seed)),
        )
    assert len(count) == 4


def test_a_run_after_a_retrained_classifier_learns_all_of_its_network():
    share = cuda_graphs.CapturedSteps(record=recorder.record)
    others = [{"loss": focal}, {"mix": Mix(alpha=1.0, beta=1.0)}, STRATEGIES["two stages"], {}]
    for columns in (STRATEGIES["two stages"], *others):
        train_setup = recipe(**columns, schedule=halving, epochs=3)
        same(
            trained(dataclasses.replace(train_setup, capture=share), initial_state()),
            trained(train_setup, initial_state()),
        )


def test_every_run_has_a_tail_of_its_own():
    share = cuda_graphs.CapturedSteps(record=recorder.record)
    for tail in ([0.0, 1.0, 1.0], [0.0, 0.0, 1.0]):
        train_setup = recipe(sharpness=Sharpness(0.5, torch.tensor(tail)), schedule=halving)
        same(
            trained(dataclasses.replace(train_setup, capture=share), initial_state()),
            trained(train_setup, initial_state()),
        )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("retrain", ["scale", "both"])
def test_factors_that_have_no_state_yet_are_taken_over(retrain, optimizer):
    def scaled() -> step.TrainState:
        state = initial_state(optimizer)
        state.model.classifier = heads.LearnableWeightScaling(state.model.classifier)
        return step.TrainState(
            state.model, OPTIMIZERS[optimizer](build_training.parameter_groups(state.model, "weights"))
        )

    train_setup = recipe(stages=Schedule(start=0.6, retrain=retrain), schedule=halving, epochs=3)
    share = dataclasses.replace(train_setup, capture=cuda_graphs.CapturedSteps(record=recorder.record))
    whole = trained(train_setup, scaled())
    same(trained(share, scaled()), whole)  # the recording's optimizer now knows factors
    first, taken = scaled(), iter(range(100))
    with pytest.raises(loop.Interrupted):
        list(loop.fit(train_setup, first, lambda number, steps: next(taken) == 1))
    second = scaled()
    second.restore(copy.deepcopy(first.payload()), torch.device("cpu"))
    list(loop.fit(share, second, never))
    same((second.history, dict(second.model.state_dict())), whole)


def test_forms_of_a_step_are_forgotten_too():
    train_setup = dataclasses.replace(
        recipe(**STRATEGIES["progressive"], epochs=2), capture=cuda_graphs.CapturedSteps(record=recorder.record)
    )
    for formula in range(6):
        trained(
            dataclasses.replace(recipe(formula=lambda *a, k=formula: losses.softmax(*a)), capture=train_setup.capture),
            initial_state(),
        )
    assert len(cuda_graphs.OF_THIS_PROCESS.held[-1].variants) == cuda_graphs.MAX_RECORDINGS


def test_a_larger_epoch_or_another_transformation_is_recorded_anew():
    share = cuda_graphs.CapturedSteps(record=recorder.record)
    for name in ("none", "copies", "augmented", "padded with black", "redrawn", "none"):
        train_setup = recipe(**STRATEGIES[name], schedule=halving)
        same(
            trained(dataclasses.replace(train_setup, capture=share), initial_state()),
            trained(train_setup, initial_state()),
        )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("strategy", ["augmented", "deferred", "two stages"])
@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_a_captured_run_goes_on_where_it_was_stopped(stop, strategy, optimizer):
    train_setup = recipe(**STRATEGIES[strategy], schedule=halving, epochs=3)
    whole = trained(train_setup, initial_state(optimizer))
    first, taken = initial_state(optimizer), 0

    def interrupt(number: int, steps: int) -> bool:
        nonlocal taken
        taken += 1
        return taken == stop

    with pytest.raises(loop.Interrupted):
        list(loop.fit(captured(train_setup), first, interrupt))
    payload = copy.deepcopy(first.payload())
    assert all(type(group["lr"]) is float for group in payload["optimizer"]["param_groups"])
    for executed in (
        train_setup,
        captured(train_setup),
    ):  # in another process, eagerly; and in this one, on the recording
        second = initial_state(optimizer, seed=9)
        second.restore(copy.deepcopy(payload), torch.device("cpu"))
        list(loop.fit(executed, second, never))
        same((second.history, dict(second.model.state_dict())), whole)


def test_a_captured_step_that_is_not_finite_updates_nothing():
    def broken(logits, target, feature, constants, progress):
        return plain(logits, target, feature, constants, progress) + torch.where(
            constants.count_C.sum() > 0, torch.inf, 0.0
        )

    state = initial_state()
    before = copy.deepcopy(state.model.classifier.weight.detach())
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 1 .*Images of that step"):
        list(loop.fit(captured(recipe(formula=broken)), state, never))
    assert torch.equal(state.model.classifier.weight, before)


def test_what_the_host_would_have_to_read_is_taken_eagerly(caplog):
    def reads(logits, target, feature, constants, progress):
        scale = float(logits.detach().abs().max())
        return plain(logits, target, feature, constants, progress) / scale

    train_setup = recipe(formula=reads, policy=STRONG, schedule=halving)
    with caplog.at_level("INFO", "emoexp"):
        same(trained(captured(train_setup), initial_state()), trained(train_setup, initial_state()))
    assert "cannot be captured: the host waits for a value" in caplog.text
    insisting = dataclasses.replace(train_setup, capture=cuda_graphs.CapturedSteps(insist=True, record=recorder.record))
    with pytest.raises(ValueError, match=r"cannot be captured: the host waits.*executor=eager can take it"):
        trained(insisting, initial_state())


def test_a_number_of_the_host_is_frozen_in_a_recording():
    """The stand-in must be able to fail: a step that counts in Python is not repeated as it should be."""
    counted = iter(range(100))

    def counting(logits, target, feature, constants, progress):
        loss = plain(logits, target, feature, constants, progress)
        return loss * (1 + next(counted))

    ours = trained(captured(recipe(formula=counting)), initial_state())
    counted = iter(range(100))
    theirs = trained(recipe(formula=counting), initial_state())
    assert any(not torch.equal(value, theirs[1][name]) for name, value in ours[1].items())


@pytest.mark.parametrize(
    ("optimizer", "why"),
    [
        (lambda groups: torch.optim.RMSprop(groups), "RMSprop is none of"),
        (lambda groups: torch.optim.AdamW(groups, foreach=True), "not fused"),
        (lambda groups: torch.optim.SGD(groups, momentum=0.9, dampening=0.1, fused=True), "first step differs"),
    ],
)
def test_what_cannot_be_captured_says_why(optimizer, why):
    state = initial_state()
    state = dataclasses.replace(state, optimizer=optimizer(build_training.parameter_groups(state.model, "weights")))
    assert why in cuda_graphs.refusal(recipe().step_setup, state)


def test_old_recordings_are_forgotten():
    for norm in range(1, 7):
        trained(captured(recipe(clip_norm=float(norm))), initial_state())
    assert [recording.key[0][1][0][1][4] for recording in cuda_graphs.OF_THIS_PROCESS.held] == [
        cuda_graphs.capture_key(float(norm)) for norm in range(3, 7)
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda train_setup, state: (recipe(clip_norm=0.5), state),
        lambda train_setup, state: (recipe(precision="bf16"), state),
        lambda train_setup, state: (recipe(sharpness=Sharpness(0.1)), state),
        lambda train_setup, state: (train_setup, initial_state("sgd")),
        lambda train_setup, state: (train_setup, rebuilt(state, dropout=0.2)),
        lambda train_setup, state: (train_setup, rebuilt(state, decay=0.2)),
    ],
)
def test_what_a_step_reads_and_is_not_copied_makes_a_recording_of_its_own(change):
    share = cuda_graphs.CapturedSteps(record=recorder.record)
    train_setup, state = recipe(), initial_state()
    trained(dataclasses.replace(train_setup, capture=share), state)
    other, changed = change(train_setup, initial_state())
    theirs = trained(other, copy.deepcopy(changed))
    same(trained(dataclasses.replace(other, capture=share), changed), theirs)
    assert len(cuda_graphs.OF_THIS_PROCESS.held) == 2


def rebuilt(state: step.TrainState, dropout=0.3, decay=0.1) -> step.TrainState:
    """A training that is about to begin with another value."""
    state.model.body[4].p = dropout
    groups = build_training.parameter_groups(state.model, "weights")
    return step.TrainState(state.model, torch.optim.AdamW(groups, lr=0.0078125, weight_decay=decay, fused=True))


@dataclasses.dataclass(frozen=True)
class Held:
    number: float
    tensor: torch.Tensor


def test_what_is_frozen_is_all_but_the_contents_of_tensors():
    def with_cell(number):
        return lambda x: x * number

    one, key = Held(0.5, torch.zeros(3)), cuda_graphs.capture_key
    copied = partial(key, copied=True)  # as the tensors of a plan are
    assert copied(one) == copied(Held(0.5, torch.ones(3))) and copied((one,)) == copied((Held(0.5, torch.ones(3)),))
    assert key(one) == key(Held(0.5, torch.zeros(3))) != key(Held(0.5, torch.ones(3)))
    assert copied(one) != copied(Held(0.25, torch.zeros(3)))
    assert copied(one) != copied(Held(0.5, torch.zeros(4)))
    assert copied(partial(with_cell, torch.zeros(2))) != copied(partial(with_cell, torch.ones(2)))
    many = torch.zeros(cuda_graphs.MAX_COMPARED + 1)
    assert key(many) == key(many) != key(many.clone())
    module, other = nn.Linear(2, 3), nn.Linear(2, 3)
    module.register_buffer("table", torch.zeros(2), persistent=False)
    other.register_buffer("table", torch.ones(2), persistent=False)
    assert key(module) != key(other), "a buffer outside of the state is not copied"
    other.table.zero_()
    assert key(module) == key(other)
    assert key(with_cell(1)) == key(with_cell(1)) != key(with_cell(2))
    assert key(partial(with_cell, 1)) == key(partial(with_cell, 1)) != key(partial(with_cell, number=1))
    assert key(nn.Dropout(0.1)) == key(nn.Dropout(0.1)) != key(nn.Dropout(0.2))
    assert key(nn.Linear(2, 3)) == key(nn.Linear(2, 3)) != key(nn.Linear(2, 3, bias=False))
    assert key(nn.ReLU()) != key(nn.SiLU()) and key(1) != key(1.0) != key(True)
    thing = iter("x")
    assert key(thing) == key(thing) != key(iter("x"))
    assert hash(key([one, with_cell(1), nn.Linear(2, 3), thing]))


def test_a_network_that_holds_itself_is_taken_eagerly(caplog):
    state = initial_state()
    state.model.__dict__["me"] = state.model
    with caplog.at_level("INFO", "emoexp"):
        trained(captured(recipe()), state)
    assert "the network contains a reference to itself" in caplog.text


def moved(train_setup, device: torch.device):
    """A setup on another device."""
    on_device = {"image_NCHW": train_setup.step_setup.image_NCHW.to(device), "device": device}
    return dataclasses.replace(
        train_setup,
        samples=dataclasses.replace(train_setup.samples, **on_device),
        step_setup=dataclasses.replace(train_setup.step_setup, **on_device),
    )


def state_on(device: torch.device, seed: int) -> step.TrainState:
    """The state before the first step, on a device."""
    model = initial_state(seed=seed).model.to(device).to(memory_format=torch.channels_last)
    return step.TrainState(model, OPTIMIZERS["adamw"](build_training.parameter_groups(model, "weights")))


@pytest.mark.parametrize("strategy", ["sharpness of the tail", "mixup", "two stages"])
def test_what_runs_on_a_gpu_runs_on_the_cpu_by_the_same_functions(strategy):
    train_setup, cpu = recipe(**STRATEGIES[strategy], schedule=halving, epochs=2), torch.device("cpu")
    same(trained(moved(train_setup, cpu), state_on(cpu, 0)), trained(train_setup, state_on(cpu, 0)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cuda_graph_is_the_eager_run(strategy):
    device = torch.device("cuda")
    train_setup = moved(recipe(**STRATEGIES[strategy], schedule=halving, epochs=3), device)
    torch.use_deterministic_algorithms(True)
    try:
        share = dataclasses.replace(train_setup, capture=cuda_graphs.CapturedSteps())
        for seed in (0, 1):
            same(trained(share, state_on(device, seed)), trained(train_setup, state_on(device, seed)))
    finally:
        torch.use_deterministic_algorithms(False)
