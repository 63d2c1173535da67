"""From a configuration to the pieces of a training: data, strategy, recipe, network, optimizer."""

import json
import logging
from dataclasses import asdict

import torch
from torch import Tensor

from emoexp import rng
from emoexp.config import build, build_model
from emoexp.config.build_data import NO_TRANSFORM
from emoexp.config.schema import Experiment, Machine, Node
from emoexp.data import normalisation
from emoexp.data.dataset import Dataset
from emoexp.imbalance import strategy
from emoexp.runs import machine
from emoexp.training import loop
from emoexp.training.batches import TrainingBatches
from emoexp.training.cuda_graphs import Graphs
from emoexp.training.sharpness import Sharpness
from emoexp.training.step import Eager, Executor, Recipe, State

log = logging.getLogger(__name__)
RECORDED = ("architecture", "activation", "batch_size", "precision", "deterministic", "clip_norm")  # in a captured step
NOT_HERE = {
    "graph": "A CPU launches an operation in no time beside what it takes",
    "compiled": "Compiled whole, the network was no faster on a CPU than step by step (benchmarks/results/speed.md); "
    "what gains there, Mish's own kernel, is compiled anyway",
}


def recipe_of(
    experiment: Experiment,
    place: Machine,
    data: Dataset,
    plan: strategy.Strategy,
    image_NCHW: Tensor,
    device: torch.device,
) -> Recipe:
    """What the training loop needs, built from the configuration. Raises what `executor` raises."""
    copies = experiment.imbalance["copies"]
    batches = TrainingBatches(
        image_NCHW=image_NCHW,
        original_N=torch.from_numpy(data.where("train")),
        plan=plan,
        on_all=build.instantiate(experiment.augmentation, place.allow),
        on_copies=build.instantiate(copies.get("transform", NO_TRANSFORM), place.allow),
        redraw=redraws(copies),
        normalisation=normalisation.of_training_part(data),
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        device=device,
    )
    validation = data.where("val")
    return Recipe(
        batches=batches,
        validation=(torch.from_numpy(validation), torch.from_numpy(data.labels[validation])),
        num_classes=len(data.class_names),
        schedule=build.instantiate(experiment.scheduler, place.allow),
        epochs=experiment.epochs,
        monitor=experiment.monitor,
        patience=experiment.patience,
        clip_norm=experiment.clip_norm,
        precision=experiment.precision,
        seed=experiment.seed,
        executor=executor(experiment, place, data, device),
        sharpness=sharpness_of(experiment.optimizer, plan.count_C, device),
    )


def sharpness_of(optimizer: Node, count_C: Tensor, device: torch.device) -> Sharpness | None:
    """Sharpness-aware minimisation, for all classes or for those with less than `tail` times the mean count."""
    rho, tail = optimizer.get("rho", 0.0), optimizer.get("tail")
    if rho < 0 or not (tail is None or (isinstance(tail, int | float) and tail > 0)):
        raise ValueError(f"optimizer.rho is at least 0, optimizer.tail above 0 or null; they are {rho} and {tail!r}")
    if rho == 0 and tail is not None:
        raise ValueError(f"optimizer.tail={tail} does nothing where optimizer.rho is 0: raise it, or leave tail=null")
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
    return Sharpness(rho, tail_C.float().to(device))


def executor(experiment: Experiment, place: Machine, data: Dataset, device: torch.device) -> Executor:
    """How steps are carried out.

    Raises:
        ValueError: the device cannot do what was asked for, or only at a loss.
    """
    machine.check_precision(device, experiment.precision)
    if place.executor == "eager" or (place.executor == "auto" and device.type != "cuda"):
        return Eager()
    if device.type != "cuda":
        raise ValueError(f"executor={place.executor} is for CUDA. {NOT_HERE[place.executor]}; leave executor=auto")
    decides = {key: getattr(experiment, key) for key in RECORDED}
    decides |= {"optimizer": build.without(experiment.optimizer, "lr"), "head": build_model.head_of(experiment)}
    decides |= {"data": [data.images.shape[1:], asdict(normalisation.of_training_part(data))]}
    kind = json.dumps(decides | {"classes": len(data.class_names), "how": place.executor}, sort_keys=True)
    return Graphs(kind, compiled=place.executor == "compiled", insist=place.executor != "auto")


def redraws(copies: Node) -> bool:
    """Whether copies are transformed anew each epoch."""
    redraw = copies.get("redraw", "never")
    if redraw not in ("never", "epoch"):
        raise ValueError(f"imbalance.copies.redraw is never or epoch; it is {redraw}")
    return bool(redraw == "epoch")


def initial_state(experiment: Experiment, place: Machine, data: Dataset, device: torch.device) -> State:
    """A network with weights drawn from the seed, and its optimizer."""
    rng.reseed(experiment.seed, "weights")
    card = build_model.card_of(experiment, data) | {"architecture": experiment.architecture}
    model = build_model.build_model(card, place.allow).to(device).to(memory_format=torch.channels_last)
    node = build.without(experiment.optimizer, "decay", "rho", "tail")
    groups = loop.parameter_groups(model, experiment.optimizer.get("decay", "all"))
    return State(model, build.instantiate(node, place.allow)(groups))
