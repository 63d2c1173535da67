"""One step of training, on tensors only: load a batch, forward, loss, backward, update."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from emoexp.data.normalisation import Normalisation
from emoexp.imbalance.losses import Constants, Formula
from emoexp.models.network import Network, Output
from emoexp.training import sharpness
from emoexp.training.batches import EpochSamples, Rows, Target, load_batch

Row = dict[str, float]  # of the history: the metrics of one epoch by their column
Number = float | Tensor  # a Python number, or a tensor of one element on the device


@dataclass
class TrainState:
    """The mutable state of a training; exactly what a checkpoint contains.

    epoch, step: the numbers of the next step's epoch and of the next step in it, both from 0. history: one row for
    each finished epoch. sums: sums over the steps of this epoch so far, on the device (see `zero_sums`).
    """

    model: Network
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    history: list[Row] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in self.optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])

    def payload(self) -> dict[str, Any]:
        """The state as tensors, numbers, lists and dictionaries; the same for eager and captured steps."""
        optimizer = self.optimizer.state_dict()
        defaults = self.optimizer.defaults  # a captured step has set `capturable` in the groups; its default is saved
        capturable = {"capturable": defaults["capturable"]} if "capturable" in defaults else {}
        groups = [group | capturable | {"lr": float(group["lr"])} for group in optimizer["param_groups"]]
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer | {"param_groups": groups},
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "running": self.sums,  # the sums of the epoch; the key is older than their name
        }

    def restore(self, payload: dict[str, Any], device: torch.device) -> None:
        """Load a payload; the state is then the saved one, bit for bit."""
        self.model.load_state_dict(payload["model"])
        self.optimizer.load_state_dict(payload["optimizer"])
        self.epoch, self.step, self.history = payload["epoch"], payload["step"], payload["history"]
        self.sums = {name: tensor.to(device) for name, tensor in payload["running"].items()}


@dataclass(frozen=True)
class StepSetup:
    """Values that are the same in all steps of a run.

    A step reads nothing else of the configuration. A new value that a step needs becomes a field here or in
    `EpochPlan`: captured steps copy the tensors of both, and compare all else in both.

    image_NCHW: uint8, all images. device: the device that computes. sharpness_rho: radius of sharpness-aware
    minimisation; 0: none.
    """

    image_NCHW: Tensor
    normalisation: Normalisation
    device: torch.device
    precision: str
    clip_norm: float | None
    sharpness_rho: float


@dataclass(frozen=True)
class EpochPlan:
    """What one epoch of S steps does: its samples, its loss and its learning rates.

    samples: the images that the epoch draws. loss, constants: the formula of the strategy's loss, and its constants.
    tail_C: 1 for the classes whose loss sharpness-aware minimisation takes at the perturbed weights; None: all classes.
    retrain: which parameters are trained, as `imbalance.schedule.Schedule` has it; "none" outside a second stage.
    norms_frozen: batch norms use their running statistics and do not update them. divide_by_weights: a batch's loss is
    divided by the sum of its weights, not by its number of images. progress_S: share of the run that is
    done before each step. rate_SG: learning rate of each step and parameter group. Both float64 on the host.
    """

    samples: EpochSamples
    batch_size: int
    loss: Formula
    constants: Constants
    tail_C: Tensor | None
    retrain: str
    norms_frozen: bool
    divide_by_weights: bool
    progress_S: Tensor
    rate_SG: Tensor

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.progress_S)

    def positions(self, start: int = 0) -> "Iterator[BatchPosition]":
        """The positions of the batches of all steps from `start` on, as Python numbers."""
        steps = zip(self.progress_S.tolist(), self.rate_SG.tolist(), strict=True)
        for step, (progress, rates) in enumerate(steps):
            if step >= start:
                yield BatchPosition(self.rows(step), step, progress, rates)

    def rows(self, step: int) -> slice:
        """The rows of `samples` that one step takes. The last step takes all that are left."""
        begin = step * self.batch_size
        return slice(begin, self.samples.size if step == len(self) - 1 else begin + self.batch_size)


@dataclass(frozen=True)
class BatchPosition:
    """Where a batch stands in its epoch: Python numbers or, in a captured step, tensors on the device.

    rows: the batch's rows of the epoch's samples. step: number of the step in the epoch, from 0. progress: share of the
    run that is done, 0..1. rates: learning rate of each parameter group.
    """

    rows: Rows
    step: int | Tensor
    progress: Number
    rates: Sequence[Number]


def zero_sums(device: torch.device) -> dict[str, Tensor]:
    """Sums over an epoch, at 0: of the loss, of correct predictions and of images. And `bad_step`, the number of the
    first step whose loss or gradient was not finite, -1 while there is none."""
    precise = torch.float32 if device.type == "mps" else torch.float64
    sums = {name: torch.zeros((), dtype=precise, device=device) for name in ("loss", "correct", "seen")}
    return sums | {"bad_step": torch.tensor(-1, device=device)}


def step(step_setup: StepSetup, state: TrainState, plan: EpochPlan, position: BatchPosition) -> None:
    """Train on one batch.

    With a fused optimizer the host never waits for the device. Within an epoch only `position` differs from step to
    step, so that a step can be captured and replayed. Where a loss or gradient is not finite, this step and all later
    ones of the epoch leave the weights as they are.
    """
    device = step_setup.device
    image_BCHW, target = load_batch(
        step_setup.image_NCHW, step_setup.normalisation, device, plan.samples, position.rows
    )

    def forward() -> Output:
        with torch.autocast(device.type, torch.bfloat16, enabled=step_setup.precision == "bf16"):
            output: Output = state.model(image_BCHW)
        return output

    def loss_of(output: Output, factor_C: Tensor | None = None) -> Tensor:
        loss, constants = plan.loss, plan.constants
        return mean_loss(loss, constants, output, target, position.progress, factor_C, plan.divide_by_weights)

    state.optimizer.zero_grad()
    trainable = [p for group in state.optimizer.param_groups for p in group["params"] if p.requires_grad]
    output = forward()
    loss = loss_of(output)
    if step_setup.sharpness_rho == 0:
        loss.backward()
    else:
        sharpness.backward(
            output, loss, rho=step_setup.sharpness_rho, tail_C=plan.tail_C, model=state.model, parameters=trainable,
            forward=forward, loss_of=loss_of,
        )  # fmt: skip

    norm = nn.utils.get_total_norm([p.grad for p in trainable if p.grad is not None])
    if step_setup.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(trainable, step_setup.clip_norm, norm)

    sums, finite = state.sums, torch.isfinite(loss.detach() + norm)
    sums["bad_step"].copy_(torch.where((sums["bad_step"] < 0) & ~finite, position.step, sums["bad_step"]))
    set_learning_rates(state.optimizer, position.rates)
    if not must_skip_update(state.optimizer, sums["bad_step"]):
        state.optimizer.step()
    sums["loss"] += loss.detach() * len(image_BCHW)
    sums["correct"] += target.count_correct(output.logits_BC.detach())
    sums["seen"] += len(image_BCHW)


def mean_loss(
    loss: Formula,
    constants: Constants,
    output: Output,
    target: Target,
    progress: Number,
    factor_C: Tensor | None = None,
    divide_by_weights: bool = False,
) -> Tensor:
    """The mean over a batch of each sample's loss times the weight of its class.

    A mixed image has two labels; its loss is the sum of both labels' weighted losses, each times the label's share.
    factor_C: a further factor for each class; None: 1. divide_by_weights: divide the batch's sum by the sum of its
    weights, as torch's CrossEntropyLoss(weight=...) does, without the further factor.
    """
    weight_C = constants.weight_C if factor_C is None else constants.weight_C * factor_C
    logits_BC = output.logits_BC.float()

    def weighted(label_B: Tensor) -> Tensor:
        return loss(logits_BC, label_B, output.feature_BF, constants, progress) * weight_C[label_B]

    loss_B = weighted(target.label_B)
    if target.other_B is not None and target.share_B is not None:
        loss_B = target.share_B * loss_B + (1 - target.share_B) * weighted(target.other_B)
    if not divide_by_weights:
        return loss_B.mean()
    weight_B = constants.weight_C[target.label_B]
    if target.other_B is not None and target.share_B is not None:
        weight_B = target.share_B * weight_B + (1 - target.share_B) * constants.weight_C[target.other_B]
    return loss_B.sum() / weight_B.sum()


def set_learning_rates(optimizer: torch.optim.Optimizer, rates: Sequence[Number]) -> None:
    """Set the learning rate of each parameter group. A tensor is copied into the group's own tensor, on the device."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"] = rate


def must_skip_update(optimizer: torch.optim.Optimizer, bad_step: Tensor) -> bool:
    """Whether the caller must skip the update, because a loss or gradient of this epoch was not finite.

    For a fused optimizer the answer is always no: it gets the flag as `found_inf` and skips the update itself, on the
    device, so that the host does not wait.
    """
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = (bad_step >= 0).float()  # type: ignore[attr-defined]  # torch reads it without declaring it
        return False
    return int(bad_step) >= 0
