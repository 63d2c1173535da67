"""Captured steps: on CUDA a whole step is one graph, recorded once for each batch size, and replayed.

A step of a small network is a hundred short kernels, and launching them from the host takes longer than running
them. What is recorded is `step.step` itself. It works on static tensors, which keep their place in memory: the weights,
samples, constants and learning rates of a run are copied into them. Every other value that a step reads is part of the
recording. `capture_key` collects these values from the arguments of the step. Runs with the same key use one recording,
one after the other.

A graph reads and writes addresses and keeps nothing alive. So a replay holds the function that was recorded, and with
it all that the function closes over; and `Recordings` owns the recordings of a process and lends each to one run at a
time.
"""

import dataclasses
import functools
import logging
import types
import warnings
import weakref
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emoexp.training.step import BatchPosition, EpochPlan, StepSetup, TrainState, step, zero_sums

log = logging.getLogger("emoexp")
WARM_UP = 3  # steps before a recording, in which libraries choose their kernels
MAX_RECORDINGS = 4  # recordings, and variants of a step in each: every one takes the memory of a batch's activations
MAX_COMPARED = 4096  # elements of a tensor that is compared by its contents
Record = Callable[[Callable[[], None]], Callable[[], None]]  # gets a function, returns one that replays it
TakeStep = Callable[[StepSetup, TrainState, EpochPlan, BatchPosition], None]


def record_cuda(work: Callable[[], None]) -> Callable[[], None]:
    """Record what `work` does on the GPU. Returns a function that replays it, and holds `work` as long as it is held
    itself: what `work` closes over must not be freed while a replay would read it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer warns of a step that is not captured
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return functools.partial(_replay, graph, work)


def _replay(graph: torch.cuda.CUDAGraph, work: Callable[[], None]) -> None:
    graph.replay()


def refusal(step_setup: StepSetup, state: TrainState) -> str | None:
    """The reason why a step cannot be captured; None where it can."""
    optimizer = state.optimizer
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
        return f"the optimizer {type(optimizer).__name__} is none of Adam, AdamW and SGD"
    if not optimizer.defaults.get("fused"):
        return "the optimizer is not fused"
    if optimizer.defaults.get("dampening") or optimizer.defaults.get("amsgrad"):
        return "the optimizer's first step differs from its later ones"
    if step_setup.image_NCHW.device.type != step_setup.device.type:  # cuda:0 is cuda
        return "the images are too large for the device's memory"
    return None


class CapturedSteps:
    """Takes steps by replaying recordings of `step.step`.

    compiled: record the network as torch.compile makes it; its fused kernels round differently. insist: raise an error
    where a step cannot be captured, instead of taking eager steps. record: the function that records a step.
    recordings: where recordings are borrowed; those of this process if None.
    """

    def __init__(
        self,
        *,
        compiled: bool = False,
        insist: bool = False,
        record: Record = record_cuda,
        recordings: "Recordings | None" = None,
    ) -> None:
        self.compiled, self.insist, self.record = compiled, insist, record
        self.recordings = recordings or OF_THIS_PROCESS
        self._recording: _Recording | None = None

    def prepare_run(self, step_setup: StepSetup, state: TrainState) -> None:
        """Called before the first step of a run: replace the state's model and optimizer by those of a recording, with
        the state's weights and optimizer state copied into them. `release` ends what begins here.

        Raises:
            ValueError: the step cannot be captured, and `insist` is set.
        """
        self.release()
        if reason := refusal(step_setup, state):
            return self._refuse(reason)
        without_images = dataclasses.replace(step_setup, image_NCHW=None)  # type: ignore[arg-type]  # compared as an object
        try:
            key = capture_key((without_images, state.model, _hyperparameters(state.optimizer), self.compiled))
        except RecursionError:
            return self._refuse("the network contains a reference to itself")
        key = (key, self.record, torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)
        self._recording = self.recordings.borrow(self, key, step_setup, state)
        self._recording.load_state(state)

    def release(self) -> None:
        """Give the recording back: the run takes no more steps. Its model and optimizer are the recording's, and the
        next run of the same kind overwrites them."""
        if self._recording is not None:
            self._recording.borrower = None
            self._recording = None

    def step_function(self, step_setup: StepSetup, state: TrainState, plan: EpochPlan) -> TakeStep:
        """The function that takes the steps of an epoch, in place of `step.step`.

        Raises:
            ValueError: as `prepare_run`.
        """
        if self._recording is not None:
            try:
                return self._recording.step_function(step_setup, state, plan, self)
            except (
                RuntimeError
            ) as error:  # a network of the user's may raise anything; an eager step then shows the error
                self.recordings.discard(self._recording)
                self._recording.make_optimizer_eager()
                self._recording = None
                self._refuse(str(error).partition("\n")[0])
        return step

    def _refuse(self, reason: str) -> None:
        if self.insist:
            raise ValueError(f"the step cannot be captured: {reason}; executor=eager can take it")
        log.info("eager steps, as they cannot be captured: %s", reason)


class Recordings:
    """Owns recordings. Each is lent to one run at a time: two trainings that take turns have one each.

    At most `limit` are kept that nobody uses; the one that was used longest ago is freed first. Recordings that read
    other images than the run that borrows are freed at once, so that old images do not stay in the device's memory.
    """

    def __init__(self, limit: int = MAX_RECORDINGS) -> None:
        self.limit = limit
        self.held: list[_Recording] = []  # the last one is the most recently used

    def borrow(self, borrower: CapturedSteps, key: Hashable, step_setup: StepSetup, state: TrainState) -> "_Recording":
        """The recording of a key and of these images that nobody uses, or a new one with the state's own model and
        optimizer. It is the borrower's until that releases it, or is gone."""
        images = step_setup.image_NCHW
        self.held = [recording for recording in self.held if recording.in_use or recording.image_NCHW is images]
        free = [recording for recording in self.held if not recording.in_use]
        recording = next((one for one in free if one.key == key), None) or _Recording(key, step_setup, state)
        recording.borrower = weakref.ref(borrower)
        unused = [one for one in free if one is not recording]
        dropped = unused[: max(0, len(unused) + 1 - self.limit)]
        self.held = [one for one in self.held if one is not recording and one not in dropped] + [recording]
        return recording

    def discard(self, recording: "_Recording") -> None:
        """Own a recording no longer."""
        self.held = [one for one in self.held if one is not recording]

    def clear(self) -> None:
        """Own nothing: what nobody uses is freed."""
        self.held = []


OF_THIS_PROCESS = Recordings()


class _Recording:
    """The recordings for runs of one key: for each variant of the step the static tensors, and a graph for each batch
    size in it."""

    def __init__(self, key: Hashable, step_setup: StepSetup, state: TrainState) -> None:
        self.key, self.image_NCHW = key, step_setup.image_NCHW
        self.model, self.optimizer = state.model, state.optimizer
        self.variants: dict[Hashable, _StaticTensors] = {}  # a strategy may do different things in different epochs
        self.borrower: weakref.ref[CapturedSteps] | None = None

    @property
    def in_use(self) -> bool:
        """Whether a run uses it."""
        return self.borrower is not None and self.borrower() is not None

    def load_state(self, state: TrainState) -> None:
        """Copy a run's weights and optimizer state into the recording's model and optimizer; the run then uses them."""
        if state.model is not self.model:
            self.model.load_state_dict(state.model.state_dict())
            _copy_optimizer_state(target=self.optimizer, source=state.optimizer)
            state.model, state.optimizer = self.model, self.optimizer
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
            if not isinstance(group["lr"], Tensor):
                group["lr"] = torch.tensor(float(group["lr"]), device=self.image_NCHW.device)

    def make_optimizer_eager(self) -> None:
        """Undo what `load_state` set in the optimizer, so that it can take eager steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(group["lr"])
            if "capturable" in group:
                group["capturable"] = False

    def step_function(
        self, step_setup: StepSetup, state: TrainState, plan: EpochPlan, options: CapturedSteps
    ) -> TakeStep:
        """The function that takes the steps of an epoch."""
        assert state.model is self.model, "another run uses the recording now"
        key = _variant_key(plan, self.model)
        static = self.variants.pop(key, None)
        if static is None or not static.fits(plan) or not static.places.items() <= self._places().items():
            static = _StaticTensors.allocate(step_setup, plan)
        self.variants[key] = static
        while len(self.variants) > MAX_RECORDINGS:
            del self.variants[next(iter(self.variants))]
        static.fill(state, plan)
        size_S = [batch.rows.stop - batch.rows.start for batch in plan.positions()]  # type: ignore[union-attr]
        for size in dict.fromkeys(size_S):  # here, because recording draws random numbers: a step seeds them after this
            if size not in static.replay:
                static.replay[size] = self._record(step_setup, static, size, options)
                static.places.update(self._places())

        def take_step(step_setup: StepSetup, state: TrainState, plan: EpochPlan, batch: BatchPosition) -> None:
            assert isinstance(batch.step, int), "the loop counts on the host"
            static.step.fill_(batch.step)
            static.replay[size_S[batch.step]]()

        return take_step

    def _record(
        self, step_setup: StepSetup, static: "_StaticTensors", size: int, options: CapturedSteps
    ) -> Callable[[], None]:
        """Record a step of `size` images, and restore every tensor that the recording changed."""
        model = torch.compile(self.model, dynamic=False) if options.compiled else self.model
        state = TrainState(model, self.optimizer, sums=static.sums)  # type: ignore[arg-type]  # a compiled network is called in the same way

        def work() -> None:
            step(step_setup, state, static.plan, static.position(size))

        static.step.zero_()
        saved = [(tensor, tensor.clone()) for tensor in self._changed_by_step(static)]
        try:
            return options.record(work)
        finally:
            for tensor in _state_tensors(
                self.optimizer
            ):  # those that the optimizer created in this recording start at zero
                tensor.zero_()
            for tensor, value in saved:
                tensor.copy_(value)

    def _places(self) -> dict[Hashable, int]:
        """Where the tensors of the model and the optimizer lie in memory: a recording knows them by their place."""
        named = [*self.model.state_dict(keep_vars=True).items()]
        for number, group in enumerate(self.optimizer.param_groups):
            named.append((f"rate {number}", group["lr"]))
            for place, parameter in enumerate(group["params"]):
                state = self.optimizer.state.get(parameter, {}).items()
                named += [(f"{number} {place} {key}", value) for key, value in state if isinstance(value, Tensor)]
        return {name: tensor.data_ptr() for name, tensor in named}

    def _changed_by_step(self, static: "_StaticTensors") -> list[Tensor]:
        return [*self.model.state_dict().values(), *_state_tensors(self.optimizer), *static.sums.values()]


@dataclass(frozen=True)
class _StaticTensors:
    """The tensors that a recorded step reads and writes; they keep their place in memory.

    plan: an epoch's plan, with a row for each image and step. step: number of the step. sums: the sums that a step adds
    to. replay: for each batch size the function that replays its recording. places: where the tensors that the
    recordings read lay in memory; where one has been replaced since, the recordings are of no use.
    """

    plan: EpochPlan
    step: Tensor
    sums: dict[str, Tensor]
    replay: dict[int, Callable[[], None]]
    places: dict[Hashable, int]

    @classmethod
    def allocate(cls, step_setup: StepSetup, plan: EpochPlan) -> "_StaticTensors":
        """Empty tensors for epochs of this variant and at most this size."""
        device = step_setup.device

        def empty(tensor: Tensor) -> Tensor:
            if tensor.dtype == torch.float64:  # progress and rates: float64 on the host, float32 on the device
                return torch.empty_like(tensor, dtype=torch.float32, device=device)
            return torch.empty_like(tensor)

        step = torch.zeros((), dtype=torch.int64, device=device)
        return cls(_map_tensors(plan, empty), step, zero_sums(device), {}, {})

    def fits(self, plan: EpochPlan) -> bool:
        """Whether an epoch is not larger than these tensors."""
        return self.plan.samples.size >= plan.samples.size and len(self.plan) >= len(plan)

    def fill(self, state: TrainState, plan: EpochPlan) -> None:
        """Copy an epoch's plan and the state's sums into these tensors; the state holds these sums from here on."""
        for target, source in zip(_tensors_in(self.plan), _tensors_in(plan), strict=True):
            (target[: len(source)] if target.dim() else target).copy_(source)
        for name, total in self.sums.items():
            total.copy_(state.sums[name])
        state.sums = self.sums

    def position(self, size: int) -> BatchPosition:
        """The position of the batch of `size` images at the step `self.step`, as tensors on the device."""
        row_B = torch.arange(size, device=self.step.device) + self.step * self.plan.batch_size
        index = self.step.view(1)
        rates = list(self.plan.rate_SG.index_select(0, index)[0].unbind())
        return BatchPosition(row_B, self.step, self.plan.progress_S.index_select(0, index)[0], rates)


def capture_key(value: Any, copied: bool = False) -> Hashable:
    """A key that is equal for two values if a recorded step treats them alike.

    A module counts by its type and attributes, a function by its code and the values that it closes over, a dataclass
    or container by its parts, a tensor by its contents. Any other object, and a large tensor, is equal only to itself.

    Parameters and buffers in a module's state are copied into a recording, and count by their shape alone. copied: so
    are the tensors of this value, a plan, and of the dataclasses and tuples in it.
    """
    if isinstance(value, Tensor):
        shape = ("tensor", tuple(value.shape), value.dtype, value.device.type)
        if copied:
            return shape
        return (*shape, _Identity(value) if value.numel() > MAX_COMPARED else tuple(value.flatten().tolist()))
    if value is None or isinstance(value, bool | int | float | str | bytes | type | torch.dtype | torch.device):
        return (type(value), value)
    if isinstance(value, functools.partial):
        return ("partial", capture_key(value.func), capture_key(value.args), capture_key(value.keywords))
    if isinstance(value, types.FunctionType):
        cells = tuple(capture_key(cell.cell_contents) for cell in value.__closure__ or ())
        return (value.__code__, capture_key(value.__defaults__), capture_key(value.__kwdefaults__), cells)
    if isinstance(value, types.MethodType):
        return (capture_key(value.__func__), capture_key(value.__self__))
    if isinstance(value, nn.Module):  # modes and requires_grad change from epoch to epoch: see `_variant_key`
        attributes = {
            key: part for key, part in vars(value).items() if key not in ("training", "_parameters", "_buffers")
        }
        in_state = value.state_dict(keep_vars=True)
        tensors = (*value.named_parameters(recurse=False), *value.named_buffers(recurse=False))
        own = tuple((name, capture_key(tensor, copied=name in in_state)) for name, tensor in tensors)
        return (type(value), own, capture_key(attributes))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return (type(value), tuple(capture_key(part, copied) for part in fields))
    if copied and isinstance(value, tuple):
        return (type(value), tuple(capture_key(part, copied) for part in value))
    if isinstance(value, Mapping):
        return (type(value), tuple((capture_key(key), capture_key(part)) for key, part in value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        return (type(value), tuple(capture_key(part) for part in value))
    return _Identity(value)


@dataclass(frozen=True, eq=False)
class _Identity:
    """Equal only for the same object. It holds the object, so that no later one can get the same id."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _variant_key(plan: EpochPlan, model: nn.Module) -> Hashable:
    """A key that is equal for two epochs of a run if one recording serves both: the plan without its row count, the
    modes of the modules, and which parameters are trained."""
    row_tensors = _tensors_in((plan.samples, plan.progress_S, plan.rate_SG), with_none=True)
    shapes = tuple(None if tensor is None else (tensor.shape[1:], tensor.dtype) for tensor in row_tensors)
    per_class = dataclasses.replace(plan, samples=None, progress_S=None, rate_SG=None)  # type: ignore[arg-type]
    modes = tuple(module.training for module in model.modules())
    words = tuple(_words_in(plan.samples))
    return (
        shapes,
        words,
        capture_key(per_class, copied=True),
        modes,
        tuple(parameter.requires_grad for parameter in model.parameters()),
    )


def _hyperparameters(optimizer: torch.optim.Optimizer) -> Hashable:
    """An optimizer's type and options, without learning rates, which are copied, and `capturable`, which
    `load_state` sets."""
    left_out = ("params", "lr", "base_lr", "capturable")
    groups = [{key: value for key, value in group.items() if key not in left_out} for group in optimizer.param_groups]
    return capture_key((type(optimizer), groups, [len(group["params"]) for group in optimizer.param_groups]))


def _tensors_in(value: Any, with_none: bool = False) -> list[Any]:
    """The tensors of nested tuples and dataclasses, in order; `with_none`: also the values that are None."""
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in _tensors_in(part, with_none)]
    if dataclasses.is_dataclass(value):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return [tensor for part in parts for tensor in _tensors_in(part, with_none)]
    return [value] if isinstance(value, Tensor) or (with_none and value is None) else []


def _words_in(value: Any) -> list[str]:
    """The texts of nested tuples and dataclasses, in order: what a step does with their tensors."""
    if isinstance(value, str):
        return [value]
    if dataclasses.is_dataclass(value):
        value = tuple(getattr(value, field.name) for field in dataclasses.fields(value))
    return [word for part in value for word in _words_in(part)] if isinstance(value, tuple) else []


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nested tuples and dataclasses with `change` applied to every tensor."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) is tuple:
        return tuple(_map_tensors(part, change) for part in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    parts = {field.name: _map_tensors(getattr(value, field.name), change) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **parts)


def _state_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The tensors of an optimizer's state, in the order of its parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [value for p in parameters for value in optimizer.state.get(p, {}).values() if isinstance(value, Tensor)]


def _copy_optimizer_state(target: torch.optim.Optimizer, source: torch.optim.Optimizer) -> None:
    """Copy an optimizer's state into another one's tensors, which keep their place. A tensor that the source lacks
    becomes zero, as it is at the first step of the optimizers that can be captured."""
    for target_group, source_group in zip(target.param_groups, source.param_groups, strict=True):
        target_group["base_lr"] = source_group["base_lr"]
        for parameter, source_parameter in zip(target_group["params"], source_group["params"], strict=True):
            source_state = source.state.get(source_parameter, {})
            for key, tensor in target.state.get(parameter, {}).items():
                tensor.copy_(source_state[key]) if key in source_state else tensor.zero_()
            for key in source_state.keys() - target.state.get(parameter, {}).keys():
                value = source_state[key]
                target.state[parameter][key] = value.clone() if isinstance(value, Tensor) else value
