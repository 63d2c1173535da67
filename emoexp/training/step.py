"""One step of training, tensors only: look up, augment, forward, loss, backward, update."""

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

Row = dict[str, float]  # of the history: what is known of an epoch
Number = float | Tensor  # known to the host, or only to the device


@dataclass
class TrainState:
    """The mutable state of a training; exactly what a checkpoint contains.

    epoch, step: where the next step stands, both from 0. history: one row for each finished epoch. sums: over the
    epoch so far, on the device (see `zero_sums`).
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
        kept = {key: self.optimizer.defaults[key] for key in ("capturable",) if key in self.optimizer.defaults}
        groups = [group | kept | {"lr": float(group["lr"])} for group in optimizer["param_groups"]]
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer | {"param_groups": groups},
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "running": self.sums,
        }

    def restore(self, payload: dict[str, Any], device: torch.device) -> None:
        """Take over a payload, bit for bit."""
        self.model.load_state_dict(payload["model"])
        self.optimizer.load_state_dict(payload["optimizer"])
        self.epoch, self.step, self.history = payload["epoch"], payload["step"], payload["history"]
        self.sums = {name: tensor.to(device) for name, tensor in payload["running"].items()}


@dataclass(frozen=True)
class StepSetup:
    """Values that are the same in all steps of a run.

    A step sees nothing else of the configuration: what it needs belongs here or into `EpochPlan`, where a captured
    step finds it too.

    image_NCHW: uint8, all images. device: that computes. sharpness_rho: radius of sharpness-aware minimisation; 0
    without it.
    """

    image_NCHW: Tensor
    normalisation: Normalisation
    device: torch.device
    precision: str
    clip_norm: float | None
    sharpness_rho: float


@dataclass(frozen=True)
class EpochPlan:
    """All that is in force in one epoch of S steps.

    samples: the epoch's images, a row for each draw. loss, constants: of the strategy. tail_C: classes whose loss
    sharpness-aware minimisation takes nearby; None: all. retrain: what is trained, as `imbalance.schedule.Schedule` has
    it; "none" outside a second stage. norms_frozen: batch norms use their statistics and leave them. progress_S,
    rate_SG: float64 on the host, share of the run done before each step and the learning rate of each parameter group.
    """

    samples: EpochSamples
    batch_size: int
    loss: Formula
    constants: Constants
    tail_C: Tensor | None
    retrain: str
    norms_frozen: bool
    progress_S: Tensor
    rate_SG: Tensor

    def __len__(self) -> int:
        """Steps."""
        return len(self.progress_S)

    def batches(self, start: int = 0) -> "Iterator[BatchPosition]":
        """The positions of all steps from `start` on, in the host's numbers."""
        steps = zip(self.progress_S.tolist(), self.rate_SG.tolist(), strict=True)
        for step, (progress, rates) in enumerate(steps):
            if step >= start:
                yield BatchPosition(self.rows(step), step, progress, rates)

    def rows(self, step: int) -> slice:
        """The samples of one step. The last step takes what is left."""
        begin = step * self.batch_size
        return slice(begin, self.samples.size if step == len(self) - 1 else begin + self.batch_size)


@dataclass(frozen=True)
class BatchPosition:
    """Where a batch stands in its epoch: in the host's numbers or, in a captured step, in the device's.

    rows: of the epoch's samples. step: from 0. progress: share of the run done, 0..1. rates: learning rate of each
    parameter group.
    """

    rows: Rows
    step: int | Tensor
    progress: Number
    rates: Sequence[Number]


def zero_sums(device: torch.device) -> dict[str, Tensor]:
    """Sums over an epoch: weighted loss, correct predictions, images seen; and the first step that was not finite."""
    precise = torch.float32 if device.type == "mps" else torch.float64
    sums = {name: torch.zeros((), dtype=precise, device=device) for name in ("loss", "correct", "seen")}
    return sums | {"bad_step": torch.tensor(-1, device=device)}


def step(setup: StepSetup, state: TrainState, epoch: EpochPlan, batch: BatchPosition) -> None:
    """Learn from one batch.

    With a fused optimizer the host never waits for the device, and nothing but `batch` changes from step to step, so
    that a step can be captured and repeated. Once a loss or gradient is not finite no update follows, in this step and
    all later ones of the epoch.
    """
    image_BCHW, target = load_batch(setup.image_NCHW, setup.normalisation, setup.device, epoch.samples, batch.rows)

    def forward() -> Output:
        with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.precision == "bf16"):
            output: Output = state.model(image_BCHW)
        return output

    def loss_of(output: Output, factor_C: Tensor | None = None) -> Tensor:
        return mean_loss(epoch.loss, epoch.constants, output, target, batch.progress, factor_C)

    state.optimizer.zero_grad()
    learning = [p for group in state.optimizer.param_groups for p in group["params"] if p.requires_grad]
    output = forward()
    loss = loss_of(output)
    if setup.sharpness_rho == 0:
        loss.backward()
    else:
        sharpness.backward(
            output, loss, rho=setup.sharpness_rho, tail_C=epoch.tail_C, model=state.model, parameters=learning,
            forward=forward, loss_of=loss_of,
        )  # fmt: skip

    norm = nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
    if setup.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(learning, setup.clip_norm, norm)

    sums, finite = state.sums, torch.isfinite(loss.detach() + norm)
    sums["bad_step"].copy_(torch.where((sums["bad_step"] < 0) & ~finite, batch.step, sums["bad_step"]))
    set_learning_rates(state.optimizer, batch.rates)
    if not must_skip_update(state.optimizer, sums["bad_step"]):
        state.optimizer.step()
    sums["loss"] += loss.detach() * len(image_BCHW)
    sums["correct"] += target.correct(output.logits_BC.detach())
    sums["seen"] += len(image_BCHW)


def mean_loss(
    loss: Formula,
    constants: Constants,
    output: Output,
    target: Target,
    progress: Number,
    factor_C: Tensor | None = None,
) -> Tensor:
    """Mean of each sample's loss times the weight of its class. A mixed image has the losses of both its labels, each
    with the weight of its own class, in the labels' shares. factor_C: multiplies the weights."""
    weight_C = constants.weight_C if factor_C is None else constants.weight_C * factor_C
    logits_BC = output.logits_BC.float()

    def weighted(label_B: Tensor) -> Tensor:
        return loss(logits_BC, label_B, output.feature_BF, constants, progress) * weight_C[label_B]

    loss_B = weighted(target.label_B)
    if target.other_B is not None and target.share_B is not None:
        loss_B = target.share_B * loss_B + (1 - target.share_B) * weighted(target.other_B)
    return loss_B.mean()


def set_learning_rates(optimizer: torch.optim.Optimizer, rates: Sequence[Number]) -> None:
    """The rate of each parameter group, as a number or, on the device, in the group's own tensor."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"] = rate


def must_skip_update(optimizer: torch.optim.Optimizer, bad_step: Tensor) -> bool:
    """Whether something was not finite, so that no update may follow. A fused optimizer gets this as `found_inf` and
    skips the update on the device, so that the host does not wait."""
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = (bad_step >= 0).float()  # type: ignore[attr-defined]  # torch reads it, and declares none
        return False
    return int(bad_step) >= 0
