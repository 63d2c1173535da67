"""From a configuration to what training needs: the setup of a run, its network and its optimizer."""

from typing import Any

import torch
from torch import Tensor

from emoexp import rng
from emoexp.config import build_model
from emoexp.config.optimizers import Optimizer
from emoexp.config.schema import Experiment, Machine
from emoexp.data import normalisation
from emoexp.data.dataset import Dataset
from emoexp.imbalance.strategy import Strategy
from emoexp.models.network import Network
from emoexp.runs import machine as machines
from emoexp.training import memory
from emoexp.training.batches import TrainingSamples
from emoexp.training.cuda_graphs import CapturedSteps
from emoexp.training.setup import TrainSetup
from emoexp.training.sharpness import Sharpness
from emoexp.training.step import StepSetup, TrainState

NOT_ON_A_CPU = {
    "graph": "A CPU launches an operation in no time beside what it takes",
    "compiled": "Compiled whole, the network was no faster on a CPU than step by step (benchmarks/results/speed.md); "
    "what gains there, Mish's own kernel, is compiled anyway",
}


def train_setup(
    experiment: Experiment,
    machine: Machine,
    data: Dataset,
    strategy: Strategy,
    image_NCHW: Tensor,
    device: torch.device,
) -> TrainSetup:
    """What training does not change. image_NCHW: the images of the data, as `resident` placed them.

    Raises:
        ValueError: the device cannot do what was asked for, or only at a loss.
    """
    copies, validation = experiment.imbalance.copies, data.where("val")
    sharpness = sharpness_of(experiment.optimizer, strategy.count_C)
    machines.check_precision(device, experiment.precision)
    return TrainSetup(
        samples=TrainingSamples(
            image_NCHW=image_NCHW,
            original_N=torch.from_numpy(data.where("train")),
            strategy=strategy,
            augmentation=experiment.augmentation.build(),
            copy_augmentation=copies.policy(),
            redraw=copies.redraws,
            seed=experiment.seed,
            device=device,
        ),
        step_setup=StepSetup(
            image_NCHW=image_NCHW,
            normalisation=normalisation.of_training_part(data),
            device=device,
            precision=experiment.precision,
            clip_norm=experiment.clip_norm,
            sharpness_rho=sharpness.rho if sharpness else 0.0,
        ),
        validation=(torch.from_numpy(validation), torch.from_numpy(data.labels[validation])),
        num_classes=len(data.class_names),
        batch_size=experiment.batch_size,
        lr_schedule=experiment.scheduler.build(),
        epochs=experiment.epochs,
        monitor=experiment.monitor,
        patience=experiment.patience,
        seed=experiment.seed,
        capture=captured_steps(machine.executor, device),
        tail_C=sharpness.tail_C if sharpness else None,
    )


def check_memory(experiment: Experiment, num_classes: int, epoch_size: int, device: torch.device) -> str | None:
    """What a step needs of the device's memory and what is free, in words; None where the network tells nothing.

    Raises:
        ValueError: the device does not have so much, by far.
    """
    shape = (experiment.channels, experiment.image_size, experiment.image_size)
    images = min(experiment.batch_size, epoch_size)
    needed = memory.step_bytes(lambda: build_model.random_network(experiment, num_classes), shape, images)
    return None if needed is None else memory.check(needed, images, device)


def sharpness_of(optimizer: Optimizer, count_C: Tensor) -> Sharpness | None:
    """Sharpness-aware minimisation, for all classes or for those with less than `tail` times the mean count."""
    rho, tail = optimizer.rho, optimizer.tail
    if rho == 0:
        return None
    if tail is None:
        return Sharpness(rho)
    mean = count_C[count_C > 0].double().mean()
    tail_C = (count_C > 0) & (count_C < tail * mean)
    if not bool(tail_C.any()):
        raise ValueError(
            f"optimizer.tail={tail}: no class has fewer images than that times the mean of all, {mean:.0f}, so that "
            "nothing would be done; raise it, or take null for all classes"
        )
    return Sharpness(rho, tail_C.float())


def captured_steps(executor: str, device: torch.device) -> CapturedSteps | None:
    """What takes steps as CUDA graphs; None where they are taken one operation after the other.

    Raises:
        ValueError: the device has no graphs, and they were asked for.
    """
    if executor == "eager" or (executor == "auto" and device.type != "cuda"):
        return None
    if device.type != "cuda":
        raise ValueError(f"executor={executor} is for CUDA. {NOT_ON_A_CPU[executor]}; leave executor=auto")
    return CapturedSteps(compiled=executor == "compiled", insist=executor != "auto")


def initial_state(experiment: Experiment, data: Dataset, device: torch.device) -> TrainState:
    """A network with weights drawn from the seed, and its optimizer."""
    rng.reseed(experiment.seed, "weights")
    model = build_model.fresh_model(experiment, len(data.class_names)).to(device).to(memory_format=torch.channels_last)
    groups = parameter_groups(model, experiment.optimizer.decay)
    return TrainState(model, experiment.optimizer.build(groups))


def parameter_groups(model: Network, decay: str) -> list[dict[str, Any]]:
    """Parameters for the optimizer. With decay="weights", biases and norms (one axis or none) stand in a group of their
    own that weight decay spares; with "all" there is one group."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if decay == "all":
        return [{"params": parameters}]
    spared = [p for p in parameters if p.ndim <= 1]
    return [{"params": [p for p in parameters if p.ndim > 1]}, {"params": spared, "weight_decay": 0.0}]
