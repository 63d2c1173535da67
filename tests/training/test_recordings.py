"""Trainings of different kinds in one process: no replay reads memory that was freed, and each run is as it is alone.

On a CPU, with a stand-in for CUDA graphs that knows memory by its address and finds it freed.
"""

import dataclasses
import gc
import random
from functools import cache, partial

import pytest
import recorder
import torch
from test_cuda_graphs import OPTIMIZERS, STRATEGIES, halving, initial_state, same, trained
from test_loop import IMAGE, never, recipe
from torch import nn

from emoexp.config import build_training
from emoexp.imbalance import losses
from emoexp.training import augment, cuda_graphs, loop, step
from emoexp.training.cuda_graphs import CapturedSteps, Recordings

OTHER_IMAGE = IMAGE.flip(0).clone()
SEQUENCES = 50


@pytest.fixture(autouse=True)
def _addresses(monkeypatch):
    recorder.in_place_of_cuda(monkeypatch)
    gc.freeze()
    yield
    gc.unfreeze()


@dataclasses.dataclass(frozen=True)
class Configuration:
    strategy: str
    optimizer: str
    batch_size: int
    epochs: int
    seed: int
    other_images: bool

    def setup(self):
        found = recipe(
            **{"batch_size": self.batch_size} | STRATEGIES[self.strategy], schedule=halving, epochs=self.epochs
        )
        if not self.other_images:
            return found
        return dataclasses.replace(
            found,
            samples=dataclasses.replace(found.samples, image_NCHW=OTHER_IMAGE),
            step_setup=dataclasses.replace(found.step_setup, image_NCHW=OTHER_IMAGE),
        )

    def state(self) -> step.TrainState:
        return initial_state(self.optimizer, self.seed)


@cache
def alone(configuration: Configuration):
    """History and weights of eager steps."""
    return trained(configuration.setup(), configuration.state())


def drawn(draw: random.Random) -> Configuration:
    return Configuration(
        strategy=draw.choice(["none", "augmented", "sampler", "mixup", "two stages", "focal", "sharpness of the tail"]),
        optimizer=draw.choice(list(OPTIMIZERS)),
        batch_size=draw.choice([16, 16, 12]),
        epochs=2,
        seed=0,
        other_images=draw.random() < 0.25,
    )


@pytest.mark.parametrize("part", range(5))
def test_trainings_that_take_turns_are_as_each_is_alone(part):
    """Random sequences: some trainings one after the other, some at the same time, some given up in the middle."""
    for number in range(part, SEQUENCES, 5):
        draw = random.Random(number)
        recordings = Recordings(limit=draw.randint(1, 3))
        waiting, running = [drawn(draw) for _ in range(3)], []
        waiting.append(draw.choice(waiting))  # the same kind again
        while waiting or running:
            if waiting and (not running or draw.random() < 0.5):
                configuration, capture = waiting.pop(), CapturedSteps(recordings=recordings)
                state = configuration.state()
                setup = dataclasses.replace(configuration.setup(), capture=capture)
                running.append((configuration, state, loop.fit(setup, state, never)))
                del setup, capture
                continue
            chosen = draw.choice(running)
            configuration, state, epochs = chosen
            if draw.random() < 0.1:
                epochs.close()
                running.remove(chosen)
            elif next(epochs, None) is None:
                same((state.history, dict(state.model.state_dict())), alone(configuration))
                running.remove(chosen)
            del chosen, state, epochs
            gc.collect()


def test_what_is_freed_is_found():
    """The stand-in finds a replay whose tensors nobody holds: what a graph is alone."""
    weight, graph = torch.ones(3), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        weight.mul_(2)
    graph.replay()
    assert weight.tolist() == [4.0, 4.0, 4.0]
    del weight
    with pytest.raises(recorder.Freed, match="mul_"):
        graph.replay()


def test_a_replay_holds_what_it_reads():
    """The fault behind a crash on a GPU: a bare loop kept the replay, and its batch and its network were freed."""

    def bare():
        model, image, label = nn.Linear(4, 3), torch.ones(2, 4), torch.tensor([0, 2])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)

        def work() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(image), label).backward()
            optimizer.step()

        return cuda_graphs.record_cuda(work)

    replay = bare()
    gc.collect()
    replay()


def test_the_rate_of_an_optimizer_without_state_keeps_its_place():
    """A recording's optimizer took the second run's rate, a new tensor, and the replay wrote to the freed one."""
    recordings, places = Recordings(), []
    for seed in (0, 1):
        setup = dataclasses.replace(recipe(schedule=halving), capture=CapturedSteps(recordings=recordings))
        state = initial_state("sgd without momentum", seed)
        trained(setup, state)
        (recording,) = recordings.held
        places.append([group["lr"].data_ptr() for group in recording.optimizer.param_groups])
    assert places[0] == places[1]


def test_a_loss_with_a_tensor_of_its_own_is_not_taken_for_another():
    def formula(logits_BC, target, feature_BF, constants, progress, *, weight_C):
        return losses.softmax(logits_BC, target, feature_BF, constants, progress) * weight_C[target]

    recordings = Recordings()
    for weights in ([1.0, 2.0, 3.0], [5.0, 1.0, 1.0]):
        plain = recipe(formula=partial(formula, weight_C=torch.tensor(weights)), schedule=halving)
        setup = dataclasses.replace(plain, capture=CapturedSteps(recordings=recordings))
        same(trained(setup, initial_state()), trained(plain, initial_state()))


def test_the_pixels_of_many_sizes_stay_where_they_are():
    """A recorded step knows the table of pixel coordinates by its place; a bounded cache freed it."""
    place = augment._pixels(16, 16, torch.device("cpu")).data_ptr()
    for side in range(20, 60):
        augment._pixels(side, side, torch.device("cpu"))
    assert augment._pixels(16, 16, torch.device("cpu")).data_ptr() == place


def test_a_recording_is_lent_to_one_run_at_a_time():
    recordings, setup = Recordings(), recipe().step_setup
    first, second = (CapturedSteps(recordings=recordings) for _ in range(2))
    for capture in (first, second):
        capture.prepare_run(setup, initial_state())
    one, two = recordings.held
    assert one is not two and one.in_use and two.in_use
    first.release()
    third = CapturedSteps(recordings=recordings)
    third.prepare_run(setup, initial_state())
    assert recordings.held == [two, one], "a recording that was given back is lent again"
    del third
    gc.collect()
    assert not one.in_use, "a run that is gone uses nothing"


def test_recordings_of_other_images_are_freed():
    recordings, plain = Recordings(), recipe().step_setup
    capture = CapturedSteps(recordings=recordings)
    capture.prepare_run(plain, initial_state())
    capture.prepare_run(dataclasses.replace(plain, image_NCHW=OTHER_IMAGE), initial_state())
    assert [recording.image_NCHW is OTHER_IMAGE for recording in recordings.held] == [True]


def test_tensors_that_were_replaced_are_recorded_anew():
    recordings, plain = Recordings(), recipe(schedule=halving, epochs=2)
    capture = CapturedSteps(recordings=recordings)
    state = initial_state()
    epochs = loop.fit(dataclasses.replace(plain, capture=capture), state, never)
    next(epochs)
    state.optimizer.load_state_dict(state.optimizer.state_dict())  # makes new tensors
    for group in state.optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]))
    gc.collect()
    list(epochs)
    same((state.history, dict(state.model.state_dict())), trained(plain, initial_state()))


def test_other_groups_of_parameters_are_recorded_anew():
    recordings = Recordings()
    for decay in ("weights", "all"):
        state = initial_state()
        groups = build_training.parameter_groups(state.model, decay)
        state = step.TrainState(state.model, OPTIMIZERS["adamw"](groups))
        trained(dataclasses.replace(recipe(), capture=CapturedSteps(recordings=recordings)), state)
    assert len(recordings.held) == 2
