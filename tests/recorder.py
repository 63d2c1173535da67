"""What a CUDA graph does, on a CPU: operations are written down once, with the tensors that they read and wrote, and
repeated with whatever these tensors hold by then.

A number that the host put into a step (an epoch, a learning rate, a row) is frozen in a recording, as it is in a graph,
and a step that reads a tensor's value cannot be recorded.

`record` keeps every tensor of a recording alive. `in_place_of_cuda` does not, as a graph does not: it finds what is
read after it was freed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

HOST_READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")
Call = tuple[Any, tuple[Any, ...], dict[str, Any], Any]


class _Writing(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in HOST_READS:
            raise RuntimeError(f"the host waits for a value: {func}")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out


def record(work: Callable[[], None], warm_up: int = 2) -> Callable[[], None]:
    """Run `work`, first to warm up, then to write it down; what comes back repeats it."""
    for _ in range(warm_up):
        work()
    with _Writing() as writing:
        work()
    return lambda: _repeat(writing.calls)


@torch.no_grad()
def _repeat(calls: list[Call]) -> None:
    for func, args, kwargs, out in calls:
        again = func(*args, **kwargs)
        for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
            if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                old.copy_(new)


class Freed(AssertionError):
    """A replay would read or write memory that has been freed."""


class _Address:
    """Where a tensor lies. Like a graph, it does not keep the memory alive; memory that was freed reads as values that
    are out of every range."""

    def __init__(self, tensor: Tensor) -> None:
        self.storage = StorageWeakRef(tensor.untyped_storage())
        self.layout = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        self.dtype = tensor.dtype

    def tensor(self, freed: list[str], name: str) -> Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        if storage is None:
            freed.append(name)
            poison = float("nan") if self.dtype.is_floating_point else 2**40
            return torch.full(self.layout[1], poison).to(self.dtype)
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.layout)


class _Graph:
    """In the place of `torch.cuda.CUDAGraph`: what a step made itself stays, as in a graph's own pool, and everything
    else that it read or wrote is known by its address."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def write(self, calls: list[Call]) -> None:
        own: set[int] = set()

        def addressed(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.untyped_storage()._cdata in own:
                return value
            return _Address(value)

        self.kept = []
        for func, args, kwargs, out in calls:
            read = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            called = tree_map(addressed, (args, kwargs))
            made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
            fresh = [leaf for leaf in made if leaf.untyped_storage()._cdata not in read]
            own |= {leaf.untyped_storage()._cdata for leaf in fresh}
            self.kept += fresh
            self.calls.append((func, *called, tree_map(addressed, out)))

    def replay(self) -> None:
        freed: list[str] = []
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                name = str(func)

                def there(value: Any, name: str = name) -> Any:
                    return value.tensor(freed, name) if isinstance(value, _Address) else value

                args, kwargs, out = tree_map(there, (args, kwargs, out))
                if freed:
                    raise Freed(f"memory that was freed is read or written by {', '.join(freed)}")
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class _Stream:
    def wait_stream(self, other: Any) -> None:
        """A CPU has one stream."""


@contextmanager
def _graph(graph: _Graph) -> Iterator[None]:
    with _Writing() as writing:
        yield
    graph.write(writing.calls)


def in_place_of_cuda(monkeypatch: Any) -> None:
    """Let `cuda_graphs.record_cuda` record on the CPU, by addresses."""
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph", _graph)
