"""Captured steps: on CUDA the whole step is one graph, recorded once and repeated without the host.

A step of a small network is a hundred short kernels, and launching them one by one takes longer than they do. What is
recorded is `step.step` itself, on tensors that stay where they are; a run's images, weights, strategy, rates and seeds
are copied into them. Runs of one architecture, activation and optimizer share a recording, one after the other.
"""

import dataclasses
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from emoexp.batches import Draws
from emoexp.imbalance.losses import Constants
from emoexp.step import Course, Eager, Place, Recipe, State, fresh_sums, step
from emoexp.transforms import Transformation

log = logging.getLogger("emoexp")
WARM_UP = 3  # steps before a recording: libraries choose their kernels in them
KEPT = 4  # recordings at a time
Record = Callable[[Callable[[], None]], Callable[[], None]]  # from what is to be done to what repeats it


def cuda(work: Callable[[], None]) -> Callable[[], None]:
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


def refusal(recipe: Recipe, state: State) -> str | None:
    """Why a step cannot be captured; None where it can."""
    optimizer = state.optimizer
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
        return f"the optimizer {type(optimizer).__name__} is none of Adam, AdamW and SGD"
    if not optimizer.defaults.get("fused"):
        return "the optimizer is not fused"
    if optimizer.defaults.get("dampening") or optimizer.defaults.get("amsgrad"):
        return "the optimizer's first step differs from its later ones"
    if recipe.batches.image_NCHW.device.type != recipe.batches.device.type:  # cuda:0 is cuda
        return "the images are too large for the device's memory"
    return None


class Graphs:
    """Steps as recordings; the reference is `step.Eager`.

    kind: whatever decides the code and the constants of a step, other than what is copied into a recording: runs of
    one kind share it. compiled: the network by torch.compile, which fuses kernels and rounds otherwise. insist: on what
    cannot be captured an error, not eager steps. record: what makes a recording.
    """

    def __init__(self, kind: str, *, compiled: bool = False, insist: bool = False, record: Record = cuda) -> None:
        self.kind, self.compiled, self.insist, self.record = kind, compiled, insist, record
        self._recording: _Recording | None = None

    def adopt(self, recipe: Recipe, state: State) -> None:
        """Give the state a model and an optimizer that a recording knows, with its own values.

        Raises:
            ValueError: the step cannot be captured, and it was asked to be.
        """
        if why := refusal(recipe, state):
            return self._refuse(why)
        kept = _kept.pop(self.kind, None)
        if kept is None or kept.image_NCHW is not recipe.batches.image_NCHW:
            kept = _Recording(recipe, state)
        _kept[self.kind] = self._recording = kept
        while len(_kept) > KEPT:
            del _kept[next(iter(_kept))]
        kept.adopt(state)

    def course(self, recipe: Recipe, state: State, course: Course) -> Callable[[int], None]:
        """What takes one step of an epoch, given its number.

        Raises:
            ValueError: as `adopt`.
        """
        if self._recording is not None:
            try:
                return self._recording.course(recipe, state, course, self)
            except RuntimeError as error:  # whatever a network of the user's does; taken eagerly, it may raise again
                _kept.pop(self.kind, None)
                self._recording.dismiss()
                self._recording = None
                self._refuse(str(error).partition("\n")[0])
        return Eager().course(recipe, state, course)

    def _refuse(self, why: str) -> None:
        if self.insist:
            raise ValueError(f"the step cannot be captured: {why}; executor=eager can take it")
        log.info("eager steps, as they cannot be captured: %s", why)


_kept: dict[str, "_Recording"] = {}


class _Recording:
    """A step's recordings, one for each size of a batch, and the tensors that they work on."""

    def __init__(self, recipe: Recipe, state: State) -> None:
        self.image_NCHW = recipe.batches.image_NCHW
        self.model, self.optimizer = state.model, state.optimizer
        self.tables: _Tables | None = None
        self.replay: dict[int, Callable[[], None]] = {}

    def adopt(self, state: State) -> None:
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
            group |= {"lr": float(group["lr"])} | ({"capturable": False} if "capturable" in group else {})

    def course(self, recipe: Recipe, state: State, course: Course, by: Graphs) -> Callable[[int], None]:
        """What takes one step of an epoch, given its number."""
        assert state.model is self.model, "another run has taken the recording over"
        if self.tables is None or not self.tables.hold(course):
            self.tables, self.replay = _Tables.like(recipe, course), {}
        self.tables.fill(recipe, state, course)
        spans = [recipe.batches.span(number) for number in range(len(recipe.batches))]
        sizes = [span.stop - span.start for span in spans]
        for size in dict.fromkeys(sizes):  # now, before a step's dropout is seeded
            if size not in self.replay:
                self.replay[size] = self._recorded(recipe, size, by)
        tables = self.tables

        def take(number: int) -> None:
            tables.step.fill_(number)
            self.replay[sizes[number]]()

        return take

    def _recorded(self, recipe: Recipe, size: int, by: Graphs) -> Callable[[], None]:
        """Record a step of `size` images, and put everything back to where it was before."""
        tables = self.tables
        assert tables is not None
        own = dataclasses.replace(recipe, constants=tables.constants)
        state = State(self.model, self.optimizer, running=tables.sums)
        features = torch.compile(self.model.features, dynamic=False) if by.compiled else None  # type: ignore[arg-type]

        def work() -> None:
            step(own, state, tables.draws, tables.place(size, recipe.batches.batch_size), features)

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
    """What a recorded step reads: an epoch's draws, progress and rates, a row for each image or step; where it stands;
    the ledger's constants; and the sums that it adds to."""

    draws: Draws
    progress_S: Tensor
    rate_SG: Tensor
    step: Tensor
    constants: Constants
    sums: dict[str, Tensor]

    @classmethod
    def like(cls, recipe: Recipe, course: Course) -> "_Tables":
        """Room for epochs of this size and kind."""
        device = recipe.batches.device
        draws, constants = course.draws, recipe.constants
        change = draws.change and Transformation(*(torch.empty_like(value) for value in _columns(draws.change)))
        return cls(
            Draws(torch.empty_like(draws.index_E), torch.empty_like(draws.label_E), change),
            torch.empty(len(course.progress), device=device),
            torch.empty(len(course.rates), len(course.rates[0]), device=device),
            torch.zeros((), dtype=torch.int64, device=device),
            Constants(*(torch.empty_like(value) for value in _fields(constants))),
            fresh_sums(device),
        )

    def hold(self, course: Course) -> bool:
        """Whether there is room for an epoch."""
        ours, theirs = (_columns(draws.change) for draws in (self.draws, course.draws))
        alike = [value.shape[1:] for value in ours] == [value.shape[1:] for value in theirs]
        rows = len(self.draws.index_E) >= len(course.draws.index_E)
        return alike and rows and len(self.progress_S) >= len(course.progress)

    def fill(self, recipe: Recipe, state: State, course: Course) -> None:
        """An epoch's values, from where the state stands; the state adds to our sums from here on."""
        pairs = [(self.draws.index_E, course.draws.index_E), (self.draws.label_E, course.draws.label_E)]
        pairs += zip(_columns(self.draws.change), _columns(course.draws.change), strict=True)
        pairs += [(self.progress_S, torch.tensor(course.progress)), (self.rate_SG, torch.tensor(course.rates))]
        pairs += zip(_fields(self.constants), _fields(recipe.constants), strict=True)
        for table, values in pairs:
            table[: len(values)].copy_(values)
        for name, total in self.sums.items():
            total.copy_(state.running[name])
        state.running = self.sums

    def place(self, size: int, batch_size: int) -> Place:
        """Where a step stands, in the device's own numbers."""
        row_B = torch.arange(size, device=self.step.device) + self.step * batch_size
        now = self.step.view(1)
        rates = self.rate_SG.index_select(0, now)[0].unbind()
        return Place(
            lambda table: table.index_select(0, row_B), self.step, self.progress_S.index_select(0, now)[0], rates
        )


def _columns(change: Transformation | None) -> tuple[Tensor, ...]:
    return () if change is None else (change.affine_B23, change.gain_B, change.bias_B, change.box_BK4)


def _fields(constants: Constants) -> tuple[Tensor, ...]:
    return constants.count_C, constants.share_C, constants.weight_C


def _tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The optimizer's state, in the order of its parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [value for p in parameters for value in optimizer.state[p].values() if isinstance(value, Tensor)]


def _take_over(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer) -> None:
    """Another optimizer's state in our tensors. What these optimizers begin with is zero."""
    for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        mine["base_lr"] = other["base_lr"]
    if not _tensors(ours):
        ours.load_state_dict(theirs.state_dict())
    elif begun := _tensors(theirs):
        for tensor, value in zip(_tensors(ours), begun, strict=True):
            tensor.copy_(value)
    else:
        for tensor in _tensors(ours):
            tensor.zero_()
