"""Captured steps: on CUDA a whole step is one graph, recorded once for each size of a batch, and replayed.

A step of a small network is a hundred short kernels, and launching them from the host takes longer than running
them. What is recorded is `step.step` itself, on tensors that stay where they are: weights, samples, constants and
learning rates of a run are copied into them. All else that a step reads is fixed in the recording. `frozen` derives it
from the step's own arguments, and runs in which it is equal share a recording, one after the other.
"""

import dataclasses
import functools
import logging
import types
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emoexp.training.step import BatchPosition, EpochPlan, StepSetup, TrainState, step, zero_sums

log = logging.getLogger("emoexp")
WARM_UP = 3  # steps before a recording: libraries choose their kernels in them
MAX_RECORDINGS = 4  # and variants of a step in each; each one occupies the memory of a batch's activations
Record = Callable[[Callable[[], None]], Callable[[], None]]  # from what is to be done to what repeats it
TakeStep = Callable[[StepSetup, TrainState, EpochPlan, BatchPosition], None]


def record_cuda(work: Callable[[], None]) -> Callable[[], None]:
    """Record what is done on the GPU; what comes back repeats it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer's, of a step that is not being captured
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def refusal(setup: StepSetup, state: TrainState) -> str | None:
    """Why a step cannot be captured; None where it can."""
    optimizer = state.optimizer
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
        return f"the optimizer {type(optimizer).__name__} is none of Adam, AdamW and SGD"
    if not optimizer.defaults.get("fused"):
        return "the optimizer is not fused"
    if optimizer.defaults.get("dampening") or optimizer.defaults.get("amsgrad"):
        return "the optimizer's first step differs from its later ones"
    if setup.image_NCHW.device.type != setup.device.type:  # cuda:0 is cuda
        return "the images are too large for the device's memory"
    return None


class CapturedSteps:
    """Takes steps as recordings of `step.step`.

    compiled: the network by torch.compile, which fuses kernels and rounds otherwise. insist: raise an error where a
    step cannot be captured, instead of taking eager steps. record: the function that records a step.
    """

    def __init__(self, *, compiled: bool = False, insist: bool = False, record: Record = record_cuda) -> None:
        self.compiled, self.insist, self.record = compiled, insist, record
        self._recording: _Recording | None = None

    def adopt(self, setup: StepSetup, state: TrainState) -> None:
        """Before the first step of a run: give the state a model and an optimizer that a recording uses, with the
        state's own values.

        Raises:
            ValueError: the step cannot be captured, and `insist` is set.
        """
        if why := refusal(setup, state):
            return self._refuse(why)
        try:
            key = frozen((setup, state.model, _hyperparameters(state.optimizer), self.compiled))
        except RecursionError:
            return self._refuse("the network contains a reference to itself")
        key = (key, self.record, torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)
        recording = next((one for one in _recordings if one.key == key and one.image_NCHW is setup.image_NCHW), None)
        if recording is None:
            recording = _Recording(key, setup, state)
        else:
            _recordings.remove(recording)
        _recordings.append(recording)
        del _recordings[:-MAX_RECORDINGS]
        self._recording = recording
        recording.adopt(state)

    def epoch(self, setup: StepSetup, state: TrainState, epoch: EpochPlan) -> TakeStep:
        """What takes the steps of an epoch, in place of `step.step`.

        Raises:
            ValueError: as `adopt`.
        """
        if self._recording is not None:
            try:
                return self._recording.epoch(setup, state, epoch, self)
            except RuntimeError as error:  # whatever a network of the user's does; taken eagerly, it may raise again
                _recordings.remove(self._recording)
                self._recording.dismiss()
                self._recording = None
                self._refuse(str(error).partition("\n")[0])
        return step

    def _refuse(self, why: str) -> None:
        if self.insist:
            raise ValueError(f"the step cannot be captured: {why}; executor=eager can take it")
        log.info("eager steps, as they cannot be captured: %s", why)


_recordings: "list[_Recording]" = []  # of this process, the latest last


class _Recording:
    """Recordings of a step, one for each form of an epoch and size of a batch, and the tensors that they work on."""

    def __init__(self, key: Hashable, setup: StepSetup, state: TrainState) -> None:
        self.key, self.image_NCHW = key, setup.image_NCHW
        self.model, self.optimizer = state.model, state.optimizer
        self.forms: dict[Hashable, _Tables] = {}  # a strategy may do different things in different epochs

    def adopt(self, state: TrainState) -> None:
        """Take over a run's weights and its optimizer's state; the run goes on with ours."""
        if state.model is not self.model:
            self.model.load_state_dict(state.model.state_dict())
            _take_over(self.optimizer, state.optimizer)
            state.model, state.optimizer = self.model, self.optimizer
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
            if not isinstance(group["lr"], Tensor):
                group["lr"] = torch.tensor(float(group["lr"]), device=self.image_NCHW.device)

    def dismiss(self) -> None:
        """Let the optimizer be one for eager steps again."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(group["lr"])
            if "capturable" in group:
                group["capturable"] = False

    def epoch(self, setup: StepSetup, state: TrainState, epoch: EpochPlan, by: CapturedSteps) -> TakeStep:
        """What takes the steps of an epoch."""
        assert state.model is self.model, "another run has taken the recording over"
        form = _form(epoch, self.model)
        tables = self.forms.pop(form, None)
        if tables is None or not tables.hold(epoch):
            tables = _Tables.like(setup, epoch)
        self.forms[form] = tables
        while len(self.forms) > MAX_RECORDINGS:
            del self.forms[next(iter(self.forms))]
        tables.fill(state, epoch)
        size_S = [position.rows.stop - position.rows.start for position in epoch.batches()]  # type: ignore[union-attr]
        for size in dict.fromkeys(size_S):  # now, before a step's dropout is seeded
            if size not in tables.replay:
                tables.replay[size] = self._recorded(setup, tables, size, by)

        def take_step(setup: StepSetup, state: TrainState, epoch: EpochPlan, batch: BatchPosition) -> None:
            number = batch.step
            assert isinstance(number, int), "the loop counts on the host"
            tables.step.fill_(number)
            tables.replay[size_S[number]]()

        return take_step

    def _recorded(self, setup: StepSetup, tables: "_Tables", size: int, by: CapturedSteps) -> Callable[[], None]:
        """Record a step of `size` images, and put everything back to where it was before."""
        model = torch.compile(self.model, dynamic=False) if by.compiled else self.model
        state = TrainState(model, self.optimizer, sums=tables.sums)  # type: ignore[arg-type]  # a compiled one is called alike

        def work() -> None:
            step(setup, state, tables.epoch, tables.position(size))

        tables.step.zero_()
        before = [(tensor, tensor.clone()) for tensor in self._changing(tables)]
        try:
            return by.record(work)
        finally:
            for tensor in _tensors(self.optimizer):  # where the recording was the optimizer's first step
                tensor.zero_()
            for tensor, value in before:
                tensor.copy_(value)

    def _changing(self, tables: "_Tables") -> list[Tensor]:
        return [*self.model.state_dict().values(), *_tensors(self.optimizer), *tables.sums.values()]


@dataclass(frozen=True)
class _Tables:
    """What a recorded step reads, as tensors that stay where they are: the epoch's plan with rows for each image and
    step, and the number of the step; the sums that it adds to; and the recordings, one for each size of a batch."""

    epoch: EpochPlan
    step: Tensor
    sums: dict[str, Tensor]
    replay: dict[int, Callable[[], None]]

    @classmethod
    def like(cls, setup: StepSetup, epoch: EpochPlan) -> "_Tables":
        """Room for epochs of this size and form."""
        device = setup.device

        def room(tensor: Tensor) -> Tensor:
            if tensor.dtype == torch.float64:  # the host's numbers, which the device takes as float32
                return torch.empty_like(tensor, dtype=torch.float32, device=device)
            return torch.empty_like(tensor)

        number = torch.zeros((), dtype=torch.int64, device=device)
        return cls(_rebuilt(epoch, room), number, zero_sums(device), {})

    def hold(self, epoch: EpochPlan) -> bool:
        """Whether there is room for an epoch."""
        return self.epoch.samples.size >= epoch.samples.size and len(self.epoch) >= len(epoch)

    def fill(self, state: TrainState, epoch: EpochPlan) -> None:
        """Copy an epoch's values, from where the state stands; the state adds to our sums from here on."""
        for table, values in zip(_leaves(self.epoch), _leaves(epoch), strict=True):
            (table[: len(values)] if table.dim() else table).copy_(values)
        for name, total in self.sums.items():
            total.copy_(state.sums[name])
        state.sums = self.sums

    def position(self, size: int) -> BatchPosition:
        """Where a step stands, in the device's own numbers."""
        row_B = torch.arange(size, device=self.step.device) + self.step * self.epoch.batch_size
        now = self.step.view(1)
        rates = list(self.epoch.rate_SG.index_select(0, now)[0].unbind())
        return BatchPosition(row_B, self.step, self.epoch.progress_S.index_select(0, now)[0], rates)


def frozen(value: Any) -> Hashable:
    """All that a recording freezes of a value: everything but the contents of its tensors, which are copied.

    Modules by their type and attributes, functions by their code and what they close over, dataclasses and containers
    by their parts. Anything else equals itself alone.
    """
    if isinstance(value, Tensor):
        return ("tensor", tuple(value.shape), value.dtype, value.device.type)
    if value is None or isinstance(value, bool | int | float | str | bytes | type | torch.dtype | torch.device):
        return (type(value), value)
    if isinstance(value, functools.partial):
        return ("partial", frozen(value.func), frozen(value.args), frozen(value.keywords))
    if isinstance(value, types.FunctionType):
        cells = tuple(frozen(cell.cell_contents) for cell in value.__closure__ or ())
        return (value.__code__, frozen(value.__defaults__), frozen(value.__kwdefaults__), cells)
    if isinstance(value, types.MethodType):
        return (frozen(value.__func__), frozen(value.__self__))
    if isinstance(value, nn.Module):  # modes and what learns may change from epoch to epoch: see `_form`
        return (type(value), frozen({key: part for key, part in vars(value).items() if key != "training"}))
    if dataclasses.is_dataclass(value):
        return (type(value), tuple(frozen(getattr(value, field.name)) for field in dataclasses.fields(value)))
    if isinstance(value, Mapping):
        return (type(value), tuple((frozen(key), frozen(part)) for key, part in value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        return (type(value), tuple(frozen(part) for part in value))
    return _Identity(value)


@dataclass(frozen=True, eq=False)
class _Identity:
    """An object that equals itself alone; held, so that no other can take its identity."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _form(epoch: EpochPlan, model: nn.Module) -> Hashable:
    """What decides the operations of an epoch's steps besides what `frozen` says of the run: the epoch's values but the
    number of its rows, the modes of the modules, and which parameters learn."""
    rows = (epoch.samples, epoch.progress_S, epoch.rate_SG)
    shapes = tuple(None if leaf is None else (leaf.shape[1:], leaf.dtype) for leaf in _leaves(rows, missing=True))
    per_class = dataclasses.replace(epoch, samples=None, progress_S=None, rate_SG=None)  # type: ignore[arg-type]
    modes = tuple(module.training for module in model.modules())
    return (shapes, frozen(per_class), modes, tuple(parameter.requires_grad for parameter in model.parameters()))


def _hyperparameters(optimizer: torch.optim.Optimizer) -> Hashable:
    """An optimizer's kind and values, but the rates, which are copied, and `capturable`, which `adopt` sets."""
    changing = ("params", "lr", "base_lr", "capturable")
    groups = [{key: value for key, value in group.items() if key not in changing} for group in optimizer.param_groups]
    return frozen((type(optimizer), groups, [len(group["params"]) for group in optimizer.param_groups]))


def _leaves(value: Any, missing: bool = False) -> list[Any]:
    """The tensors of nested dataclasses, in order; with `missing`, None where one could stand."""
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in _leaves(part, missing)]
    if dataclasses.is_dataclass(value):
        return [leaf for f in dataclasses.fields(value) for leaf in _leaves(getattr(value, f.name), missing)]
    return [value] if isinstance(value, Tensor) or (missing and value is None) else []


def _rebuilt(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Nested dataclasses with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    own = {f.name: _rebuilt(getattr(value, f.name), change) for f in dataclasses.fields(value)}
    return dataclasses.replace(value, **own)


def _tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The optimizer's state, in the order of its parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [value for p in parameters for value in optimizer.state.get(p, {}).values() if isinstance(value, Tensor)]


def _take_over(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer) -> None:
    """Another optimizer's state in our tensors. What these optimizers begin with is zero."""
    if not _tensors(ours):
        ours.load_state_dict(theirs.state_dict())
    for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        mine["base_lr"] = other["base_lr"]
        for parameter, its in zip(mine["params"], other["params"], strict=True):
            begun = theirs.state.get(its, {})
            for key, tensor in ours.state.get(parameter, {}).items():
                tensor.copy_(begun[key]) if key in begun else tensor.zero_()
            for key in begun.keys() - ours.state.get(parameter, {}).keys():
                ours.state[parameter][key] = begun[key].clone()
