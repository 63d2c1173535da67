"""emoexp's side of the comparison: its own training functions, and the least that any loop has to do."""

import time
from pathlib import Path

import equality
import torch
from contestants import Agreement, Setting
from hydra import compose, initialize_config_module
from torch import Tensor

from emoexp import building, config, loop, machine
from emoexp.batches import resident
from emoexp.models import mish
from emoexp.session import interruptible, progress


def overrides(setting: Setting) -> list[str]:
    """The command line of the measured training."""
    return [
        "data=folder",
        f"data.root='{setting.folder}'",
        "imbalance=sampler",
        "activation=mish",
        "augmentation=light",
        f"imbalance.epoch_size={setting.draws}",
        f"batch_size={setting.batch_size}",
        f"image_size={setting.side}",
        f"threads={setting.threads}",
        "epochs=1000",  # more than are measured: the schedule only has to go on
        "device=cpu",
        "tracking=none",
        f"cache='{setting.place / 'cache'}'",
    ]


class Side:
    """emoexp in the state of a training that has begun: what training.train does, without a run's folder."""

    def __init__(self, setting: Setting) -> None:
        with initialize_config_module("emoexp.conf", version_base="1.3"):
            composed = compose("train", overrides(setting))
        experiment, place = config.checked(composed)
        device = machine.choose(place.device)
        machine.prepare(device, place.threads, experiment.precision, experiment.deterministic)
        mish.prepare(place.cache)
        started = time.perf_counter()
        data = building.load_data(experiment, place)
        self.packing_seconds = time.perf_counter() - started
        self.kernel = mish.kernel()
        plan = building.strategy(experiment, place, data)
        self.recipe = building.recipe_of(experiment, place, data, plan, resident(data.images, device), device)
        self.state, self.bare_state, *self.checks = (
            building.initial_state(experiment, place, data, device) for _ in range(4)
        )
        self.rates = [group["lr"] for group in self.state.optimizer.param_groups]
        self.fixed = self._batch(epoch=0)

    def _batch(self, epoch: int) -> tuple[Tensor, Tensor]:
        batches = self.recipe.batches
        return batches.batch(batches.items(batches.order(epoch), 0), epoch, 0)

    def epoch(self) -> None:
        """One epoch as loop.fit trains it, with the callback of training.train_epochs."""
        state = self.state
        with interruptible() as asked, progress(self.recipe.epochs, lambda: state.epoch) as shown:
            interrupt = lambda step, steps: bool(shown(step, steps)) or asked()  # noqa: E731
            loop.train_epoch(self.recipe, state, self.rates, interrupt)
        float(state.running["loss"])
        state.epoch, state.step, state.running = state.epoch + 1, 0, {}

    def bare(self) -> None:
        """As many steps on one fixed batch: the same network, optimizer, memory format and allocator, nothing else."""
        model, optimizer = self.bare_state.model, self.bare_state.optimizer
        image, target = self.fixed
        model.train()
        for _ in range(len(self.recipe.batches)):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(image), target)
            loss.backward()
            optimizer.step()
        float(loss.detach())

    def save_batch(self, path: Path) -> None:
        """Fresh weights and a batch, for the plain network to repeat."""
        equality.save(path, self.checks[0].model.state_dict(), *self.fixed)

    def compare(self, path: Path) -> Agreement:
        """How far loop.step agrees with what the plain network left in `path`. Only once: a step changes weights."""
        equality.without_maxima(self.checks[1].model)
        pairs = [
            (equality.found(state.model, lambda model, state=state: self._step(state)), other)
            for state, other in zip(self.checks, torch.load(path), strict=True)
        ]
        loss = max(equality.largest({"loss": ours["loss"]}, {"loss": other["loss"]})[0] for ours, other in pairs)
        gradient, where = equality.largest(*pairs[1])
        return Agreement(loss, gradient, where, equality.largest(*pairs[0])[0])

    def _step(self, state: loop.State) -> Tensor:
        image, target = (tensor[: equality.IMAGES] for tensor in self.fixed)
        state.running = loop.fresh_sums(image.device)
        loop.step(self.recipe, state, image, target, 0.0)
        return (state.running["loss"] / len(target)).float()
