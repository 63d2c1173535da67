"""From a configuration to the pieces of a training: data, strategy, recipe, network, optimizer."""

import json
import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emoexp import rng
from emoexp.config import config
from emoexp.config.config import Experiment, Machine, Node
from emoexp.data import leaks, long_tail, near_duplicates
from emoexp.data.dataset import Dataset, Source
from emoexp.imbalance import ledger, posthoc
from emoexp.models import heads
from emoexp.runs import machine
from emoexp.training import leaky_protocol, loop
from emoexp.training.batches import Normalisation, TrainingBatches
from emoexp.training.cuda_graphs import Graphs
from emoexp.training.sharpness import Sharpness
from emoexp.training.step import Eager, Executor, Recipe, State

log = logging.getLogger(__name__)
_NOTHING = {"_target_": "emoexp.training.augment.Policy"}
RECORDED = ("architecture", "activation", "batch_size", "precision", "deterministic", "clip_norm")  # in a captured step
NOT_HERE = {
    "graph": "A CPU launches an operation in no time beside what it takes",
    "compiled": "Compiled whole, the network was no faster on a CPU than step by step (benchmarks/results/speed.md); "
    "what gains there, Mish's own kernel, is compiled anyway",
}
_NO_COPIES = {"_target_": "emoexp.imbalance.copies.none", "_partial_": True}


def load_data(experiment: Experiment, place: Machine) -> Dataset:
    """The images of a configuration, split, with the leaks between the parts and the long tail that it asks for."""
    cache = folder_of(place.cache)
    source = read(experiment.data, place.allow, experiment.image_size, experiment.channels, cache)
    divide = partial(config.build, experiment.split, place.allow)
    if experiment.protocol == "leaky":
        data: Dataset = leaky_protocol.split(
            source,
            target=config.build(_column(experiment.imbalance["copies"]), place.allow),
            policy=config.build(experiment.imbalance["copies"].get("transform", _NOTHING), place.allow),
            divide=lambda source: divide(source=source),
            seed=experiment.split["seed"],
        )
    else:
        data = divide(source=source)
    data = without_leaks(data, experiment.data.get("leaks", "warn"), cache)
    return with_long_tail(data, experiment.data)  # last: its counts are those that training has


def read(node: Node, allow: list[str], image_size: int, channels: int, cache: str | None) -> Source:
    """The images of a data source's configuration, without parts of our own."""
    keys = {key: value for key, value in node.items() if key not in ("long_tail", "leaks")}
    source: Source = config.build(keys, allow, image_size=image_size, channels=channels, cache=cache)
    return source


def folder_of(cache: str | None) -> str | None:
    """A folder of the configuration as an absolute one."""
    return str(Path(cache).expanduser()) if cache else None


def with_long_tail(data: Dataset, node: Node) -> Dataset:
    """The data with the long tail that its configuration asks for in the training part."""
    asked = {"profile": "none", "factor": 1.0, "seed": 0} | (node.get("long_tail") or {})
    return long_tail.cut(data, profile=asked["profile"], factor=asked["factor"], seed=asked["seed"])


def without_leaks(data: Dataset, policy: str, cache: str | None) -> Dataset:
    """The data as data.leaks wants it. To drop or refuse leaks, near duplicates are searched where nobody has yet."""
    if policy not in leaks.POLICIES:
        raise ValueError(f"data.leaks is one of {', '.join(leaks.POLICIES)}; it is {policy}")
    if policy == "warn":
        return data
    if near_duplicates.known(data, cache) is None:
        log.info("searching near duplicates among %d images, which takes a while once", len(data.labels))
    return (leaks.drop if policy == "drop" else leaks.refuse)(data, near_duplicates.searched(data, cache).group_N)


def strategy(experiment: Experiment, place: Machine, data: Dataset) -> ledger.Plan:
    """The imbalance strategy, worked out for the training part. A leaky protocol has made its copies before."""
    node = experiment.imbalance
    copies = _NO_COPIES if data.leaky else _column(node["copies"])
    columns = ledger.Columns(
        target=config.build(copies, place.allow),
        share=config.build(without(node["sampling"], "replacement"), place.allow),
        weight=config.build(node["weights"], place.allow),
        loss=config.build(node["loss"], place.allow),
        schedule=config.build(node["schedule"], place.allow),
        mix=config.build(node["mix"], place.allow),
        replacement=node["sampling"].get("replacement", True),
    )
    plan = ledger.plan(
        torch.from_numpy(data.labels[data.where("train")]),
        len(data.class_names),
        columns,
        epochs=experiment.epochs,
        epoch_size=node["epoch_size"],
        seed=experiment.seed,
    )
    fit = config.build(node["posthoc"], place.allow)
    last = ledger.effective_prior(plan.stages[-1])
    posthoc.rehearse(fit, prior_C=last, linear=head_of(experiment) == {"kind": "linear"})
    return plan


def heuristics(experiment: Experiment, plan: ledger.Plan) -> list[str]:
    """What favours rare classes without being a prior that training aims at, and so stands in no row of the ledger."""
    told, fit = ledger.heuristics(plan), experiment.imbalance["posthoc"]["name"]
    if experiment.optimizer.get("tail") is not None:
        told.append("sharpness is minimised for rare classes alone")
    return [*told, f"{fit} is fitted on validation after training"] if fit != "none" else told


def without(node: Node, *taken: str) -> Node:
    """A node less the keys that are not its target's."""
    return {key: value for key, value in node.items() if key not in taken}


def _column(copies: Node) -> Node:
    return without(copies, "transform", "redraw")


def head_of(experiment: Experiment) -> Node:
    """The last layer that a strategy wants: the network's own linear one, or one of cosines where the loss gives them a
    scale; with factors to be learnt or not."""
    loss, retrain = experiment.imbalance["loss"], experiment.imbalance["schedule"].get("retrain")
    head = {"kind": "normalised", "scale": loss["scale"]} if "scale" in loss else {"kind": "linear"}
    return head | ({"factors": True} if retrain in ("scale", "both") else {})


def recipe_of(
    experiment: Experiment,
    place: Machine,
    data: Dataset,
    plan: ledger.Plan,
    image_NCHW: Tensor,
    device: torch.device,
) -> Recipe:
    """What the training loop needs, built from the configuration. Raises what `executor` raises."""
    copies = experiment.imbalance["copies"]
    batches = TrainingBatches(
        image_NCHW=image_NCHW,
        original_N=torch.from_numpy(data.where("train")),
        plan=plan,
        on_all=config.build(experiment.augmentation, place.allow),
        on_copies=config.build(copies.get("transform", _NOTHING), place.allow),
        redraw=redraws(copies),
        normalisation=normalisation_of(data),
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        device=device,
    )
    validation = data.where("val")
    return Recipe(
        batches=batches,
        validation=(torch.from_numpy(validation), torch.from_numpy(data.labels[validation])),
        num_classes=len(data.class_names),
        schedule=config.build(experiment.scheduler, place.allow),
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
    decides |= {"optimizer": without(experiment.optimizer, "lr"), "head": head_of(experiment)}
    decides |= {"data": [data.images.shape[1:], asdict(normalisation_of(data))]}
    kind = json.dumps(decides | {"classes": len(data.class_names), "how": place.executor}, sort_keys=True)
    return Graphs(kind, compiled=place.executor == "compiled", insist=place.executor != "auto")


def redraws(copies: Node) -> bool:
    """Whether copies are transformed anew each epoch."""
    redraw = copies.get("redraw", "never")
    if redraw not in ("never", "epoch"):
        raise ValueError(f"imbalance.copies.redraw is never or epoch; it is {redraw}")
    return bool(redraw == "epoch")


def normalisation_of(data: Dataset) -> Normalisation:
    """Mean and deviation of the training originals."""
    mean, std = data.pixels
    return Normalisation(mean, max(std, 1e-3))


def card_of(experiment: Experiment, data: Dataset) -> dict[str, Any]:
    """Everything that a model needs besides its weights, to be rebuilt and used on other images."""
    normalisation = normalisation_of(data)
    architecture = dict(experiment.architecture)
    if "pretrained" in architecture:  # the weights come with the card
        architecture["pretrained"] = False
    return {
        "architecture": architecture,
        "activation": dict(experiment.activation),
        "head": head_of(experiment),
        "class_names": list(data.class_names),
        "image_size": experiment.image_size,
        "channels": experiment.channels,
        "mean": normalisation.mean,
        "std": normalisation.std,
        "precision": experiment.precision,
        "data": experiment.data["name"],
        "protocol": experiment.protocol,
        "majority": int(data.counts("train").argmax()),
    }


def initial_state(experiment: Experiment, place: Machine, data: Dataset, device: torch.device) -> State:
    """A network with weights drawn from the seed, and its optimizer."""
    rng.reseed(experiment.seed, "weights")
    card = card_of(experiment, data) | {"architecture": experiment.architecture}
    model = build_model(card, place.allow).to(device).to(memory_format=torch.channels_last)
    node = without(experiment.optimizer, "decay", "rho", "tail")
    groups = loop.parameter_groups(model, experiment.optimizer.get("decay", "all"))
    return State(model, config.build(node, place.allow)(groups))


def build_model(card: dict[str, Any], allow: list[str]) -> nn.Module:
    """The network of a card, with fresh weights."""
    model: nn.Module = config.build(
        card["architecture"],
        allow,
        num_classes=len(card["class_names"]),
        channels=card["channels"],
        image_size=card["image_size"],
        activation=config.build(card["activation"], allow),
    )
    head = card.get("head", {"kind": "linear"})
    if head["kind"] == "normalised":
        model.classifier = heads.Normalised(*heads.sizes(model.classifier), scale=head["scale"])  # type: ignore[arg-type]
    if head.get("factors"):
        model.classifier = heads.Scaled(model.classifier)  # type: ignore[arg-type]
    return model


def trained_model(best: dict[str, Any], allow: list[str]) -> nn.Module:
    """The network of a best.pt with its weights, and with what was fitted after training."""
    model = build_model(best["card"], allow)
    model.load_state_dict(best["model"])
    if "posthoc" in best:
        model.classifier = posthoc.apply(model.classifier, posthoc.restored(best["posthoc"]))  # type: ignore[arg-type]
    return model
