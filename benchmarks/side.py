"""emoexp's side of every comparison: its own training functions, the least that any loop has to do, and the roofs."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equality
import torch
from contestants import Agreement
from hydra import compose, initialize_config_module
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from emoexp.config import build_data, build_strategy, build_training
from emoexp.config.checks import checked
from emoexp.data.resident import resident
from emoexp.inference import predict
from emoexp.models import mish
from emoexp.runs import machine
from emoexp.training import cuda_graphs, loop
from emoexp.training.batches import EpochSamples, Rows, Target, load_batch
from emoexp.training.cuda_graphs import CapturedSteps
from emoexp.training.step import BatchPosition, TrainState, step, zero_sums

PASSES = 22  # over all activations in one step of separate kernels: forward, backward, norms' statistics


class Side:
    """A training that has begun on a device, as training.run.train has it."""

    def __init__(self, *words: str) -> None:
        with initialize_config_module("emoexp.conf", version_base="1.3"):
            composed = compose("train", ["tracking=none", "epochs=1000", *words])
        self.experiment, self.machine = checked(composed)
        self.device = machine.choose(self.machine.device)
        self.prepare()
        mish.prepare(self.machine.cache)
        started = time.perf_counter()
        self.data = build_data.load_data(self.experiment, self.machine)
        self.loading = time.perf_counter() - started
        strategy = build_strategy.build_strategy(self.experiment, self.data)
        image_NCHW = resident(self.data.images, self.device)
        self.setup = build_training.train_setup(
            self.experiment, self.machine, self.data, strategy, image_NCHW, self.device
        )
        self.state = self.fresh()
        if self.setup.capture is not None:
            self.setup.capture.prepare_run(self.setup.step_setup, self.state)

    def prepare(self) -> None:
        """Set what torch keeps for the whole process, which other sides set otherwise."""
        machine.prepare(self.device, None, self.experiment.precision, self.experiment.deterministic)

    def fresh(self) -> TrainState:
        """A model with its first weights, and its optimizer."""
        return build_training.initial_state(self.experiment, self.data, self.device)

    @property
    def draws(self) -> int:
        """Images of an epoch."""
        return self.setup.samples.strategy.epoch_size

    def epoch(self) -> None:
        """An epoch of training, through the public loop."""
        self.prepare()
        loop.train_epoch(self.setup, self.state, lambda step, steps: False)
        self.state.epoch, self.state.step, self.state.sums = self.state.epoch + 1, 0, {}

    def validate(self) -> None:
        """The validation part."""
        loop.validate(self.setup, self.state.model)

    def look(self) -> None:
        """An epoch's images, transformed and normalised, and nothing done with them."""
        plan = self.setup.plan_epoch(self.state)
        for position in plan.positions():
            self.batch(plan.samples, position.rows)

    def batch(self, samples: EpochSamples, rows: Rows) -> tuple[Tensor, Target]:
        """Images of an epoch, as a step has them, and their classes."""
        step_setup = self.setup.step_setup
        return load_batch(step_setup.image_NCHW, step_setup.normalisation, self.device, samples, rows)

    def judge(self, part: str) -> None:
        """From now on, validate on this part."""
        index = self.data.where(part)
        validation = (torch.from_numpy(index), torch.from_numpy(self.data.labels[index]))
        self.setup = dataclasses.replace(self.setup, validation=validation)

    def bare(self) -> Callable[[], None]:
        """An epoch of the least that any loop has to do: forward, loss, backward, update, on one fixed batch; captured
        where emoexp's steps are."""
        self.prepare()
        state = self.fresh()
        image, target = self.batch(self.setup.plan_epoch(state).samples, slice(0, self.setup.batch_size))
        state.model.train()
        for group in state.optimizer.param_groups:
            group |= {"capturable": True} if "capturable" in group else {}

        def work() -> None:
            state.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.experiment.precision == "bf16"):
                logits = state.model(image).logits_BC
            torch.nn.functional.cross_entropy(logits.float(), target.label_B).backward()
            state.optimizer.step()

        repeat = work if self.setup.capture is None else cuda_graphs.record_cuda(work)

        def epoch() -> None:
            for _ in range(self.setup.steps_per_epoch):
                repeat()

        return epoch

    def trained(self, capture: CapturedSteps | None, epochs: int) -> dict[str, Tensor]:
        """The weights after some epochs from the first weights on, by captured or eager steps."""
        self.prepare()
        setup, state = dataclasses.replace(self.setup, capture=capture, epochs=epochs), self.fresh()
        for _ in loop.fit(setup, state, lambda step, steps: False):
            pass
        return {name: value.clone() for name, value in state.model.state_dict().items()}

    def save_batch(self, path: Path) -> None:
        """First weights and a batch, for another network to repeat."""
        state = self.fresh()
        image, target = self.batch(self.setup.plan_epoch(state).samples, slice(0, equality.IMAGES))
        equality.save(path, state.model.state_dict(), image, target.label_B)

    def compare(self, path: Path) -> Agreement:
        """How far a step agrees with what another network left in `path`."""
        checks = [self.fresh(), self.fresh()]
        equality.without_maxima(checks[1].model)
        pairs = [
            (equality.found(state.model, lambda model, state=state: self._step(state)), other)  # type: ignore[misc]
            for state, other in zip(checks, torch.load(path), strict=True)
        ]
        loss = max(equality.largest({"loss": ours["loss"]}, {"loss": other["loss"]})[0] for ours, other in pairs)
        gradient, where = equality.largest(*pairs[1])
        return Agreement(loss, gradient, where, equality.largest(*pairs[0])[0])

    def _step(self, state: TrainState) -> Tensor:
        state.sums = zero_sums(self.device)
        plan = self.setup.plan_epoch(state)
        position = BatchPosition(slice(0, equality.IMAGES), 0, 0.0, plan.rate_SG[0].tolist())
        step(self.setup.step_setup, state, plan, position)
        return (state.sums["loss"] / equality.IMAGES).float()

    def apart(self) -> float:
        """Largest difference of a logit on the judged part, to a plain forward pass of the same weights."""
        index, step_setup = self.setup.validation[0], self.setup.step_setup
        images = predict.batches(step_setup.image_NCHW, index, step_setup.normalisation, self.device)
        ours = predict.logits(self.state.model, images, self.experiment.precision)
        image = step_setup.normalisation(step_setup.image_NCHW[index])
        with torch.no_grad():
            theirs = torch.cat([self.state.model.eval()(piece).logits_BC for piece in image.split(128)])
        return float((ours - theirs).abs().max())

    def flops(self) -> float:
        """Floating-point operations of training on one image."""
        model = self.fresh().model.train()
        image = torch.zeros(2, *self.setup.step_setup.image_NCHW.shape[1:], device=self.device)
        with FlopCounterMode(display=False) as counter:
            model(image).logits_BC.sum().backward()
        return counter.get_total_flops() / 2

    def traffic(self) -> float:
        """Bytes that a step of separate kernels moves for one image: its activations, PASSES times."""
        elements = 0

        def count(module: Any, inputs: Any, output: Tensor) -> None:
            nonlocal elements
            elements += output.numel() if isinstance(module, torch.nn.Conv2d) else 0

        model = self.fresh().model.eval()
        for part in model.modules():
            part.register_forward_hook(count)
        with torch.inference_mode():
            model(torch.zeros(1, *self.setup.step_setup.image_NCHW.shape[1:], device=self.device))
        return PASSES * elements * (2 if self.experiment.precision == "bf16" else 4)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device has done it all."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_roof(device: torch.device, size: int) -> float:
    """Bytes a second that a copy reads and writes, the best of ten."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(seconds(lambda: target.copy_(source), device) for _ in range(10))


def matmul_roof(device: torch.device, side: int, dtype: torch.dtype) -> float:
    """Operations a second of a product of square matrices, the best of ten."""
    one = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(seconds(lambda: one @ one, device) for _ in range(10))
