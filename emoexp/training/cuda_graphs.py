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
from typing import Any

import torch
from torch import Tensor

from emoexp.training.batches import Draws
from emoexp.training.step import Course, Eager, Phase, Place, Recipe, State, fresh_sums, step

log = logging.getLogger("emoexp")
WARM_UP = 3  # steps before a recording: libraries choose their kernels in them
KEPT = 4  # recordings at a time, and forms of a step in each: every one holds a batch's activations
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
        self.parts: dict[str, _Tables] = {}  # a strategy may do different things in different epochs

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
        form = _form(course)
        tables = self.parts.pop(form, None)
        if tables is None or not tables.hold(course):
            tables = _Tables.like(recipe, course)
        self.parts[form] = tables
        while len(self.parts) > KEPT:
            del self.parts[next(iter(self.parts))]
        tables.fill(recipe, state, course)
        spans = [recipe.batches.span(number) for number in range(len(recipe.batches))]
        sizes = [span.stop - span.start for span in spans]
        for size in dict.fromkeys(sizes):  # now, before a step's dropout is seeded
            if size not in tables.replay:
                tables.replay[size] = self._recorded(recipe, tables, size, by)

        def take(number: int) -> None:
            tables.step.fill_(number)
            tables.replay[sizes[number]]()

        return take

    def _recorded(self, recipe: Recipe, tables: "_Tables", size: int, by: Graphs) -> Callable[[], None]:
        """Record a step of `size` images, and put everything back to where it was before."""
        state = State(self.model, self.optimizer, running=tables.sums)
        features = torch.compile(self.model.features, dynamic=False) if by.compiled else None  # type: ignore[arg-type]

        def work() -> None:
            place = tables.place(size, recipe.batches.batch_size)
            step(recipe, state, tables.draws, tables.phase, place, features)

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
    the constants of what is in force; the sums that it adds to; and the recordings, one for each size of a batch."""

    draws: Draws
    phase: Phase
    progress_S: Tensor
    rate_SG: Tensor
    step: Tensor
    sums: dict[str, Tensor]
    replay: dict[int, Callable[[], None]]

    @classmethod
    def like(cls, recipe: Recipe, course: Course) -> "_Tables":
        """Room for epochs of this size and kind."""
        device = recipe.batches.device
        return cls(
            _rebuilt(course.draws, torch.empty_like),
            _rebuilt(course.phase, torch.empty_like),
            torch.empty(len(course.progress), device=device),
            torch.empty(len(course.rates), len(course.rates[0]), device=device),
            torch.zeros((), dtype=torch.int64, device=device),
            fresh_sums(device),
            {},
        )

    def hold(self, course: Course) -> bool:
        """Whether there is room for an epoch."""
        rows = len(self.draws.index_E) >= len(course.draws.index_E)
        return rows and len(self.progress_S) >= len(course.progress)

    def fill(self, recipe: Recipe, state: State, course: Course) -> None:
        """An epoch's values, from where the state stands; the state adds to our sums from here on."""
        pairs = [(self.progress_S, torch.tensor(course.progress)), (self.rate_SG, torch.tensor(course.rates))]
        pairs += zip(_leaves(self.draws), _leaves(course.draws), strict=True)
        for table, values in pairs:
            table[: len(values)].copy_(values)
        for constant, value in zip(_leaves(self.phase), _leaves(course.phase), strict=True):
            constant.copy_(value)
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


def _form(course: Course) -> str:
    """What decides the operations of a step, other than the kind of run: its formula, which constants there are, what
    learns, which transformations there are."""
    shapes = [None if leaf is None else tuple(leaf.shape[1:]) for leaf in _leaves(course.draws, missing=True)]
    shapes += [None if leaf is None else tuple(leaf.shape) for leaf in _leaves(course.phase, missing=True)]
    return repr((course.phase.formula, course.phase.learning, course.phase.norms_frozen, shapes))


def _leaves(value: Any, missing: bool = False) -> list[Any]:
    """The tensors of nested dataclasses, in order; with `missing`, None where one could stand."""
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
