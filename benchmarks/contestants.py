"""The two sides of the comparison, each in a process of its own that waits for orders.

emoexp tunes its process (glibc's allocator), so that the plain script must not live in the same one. Both stay alive
over all rounds, and only one works at a time.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Orders = dict[str, Callable[..., Any]]


@dataclass(frozen=True)
class Setting:
    """What both sides share. folder: holds train, val and test. steps: of one epoch, the unit that is measured."""

    folder: Path
    side: int
    steps: int
    threads: int
    batch_size: int
    place: Path

    @property
    def draws(self) -> int:
        """Images of one measured epoch."""
        return self.steps * self.batch_size


@dataclass(frozen=True)
class Lap:
    """Seconds that an epoch took: of the clock, and of all processor cores (loader processes included)."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Agreement:
    """Largest relative differences between both sides: of the loss, of gradients without max pools (`where` says in
    which tensor), and, for information, of gradients with them; see equality.py."""

    loss: float
    gradient: float
    where: str
    with_maxima: float

    @property
    def worst(self) -> float:
        """What the tolerance is for."""
        return max(self.loss, self.gradient)


class Contestant:
    """A process that carries out orders. Use it as a context manager; call it with an order's name and arguments."""

    def __init__(self, name: str, made_by: Callable[..., Orders], *arguments: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.name = name
        self.connection, other = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(other, made_by, arguments), name=name)
        self.process.start()
        other.close()

    def __call__(self, order: str, *arguments: Any) -> Any:
        """Carry out an order and wait for its answer.

        Raises:
            RuntimeError: the process died; its own message stands above.
        """
        self.connection.send((order, arguments))
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"{self.name} ended while it was asked for {order}; see above") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.connection.send(None)
        except OSError:
            return
        self.process.join()


def _serve(connection: Connection, made_by: Callable[..., Orders], arguments: tuple[Any, ...]) -> None:
    orders = made_by(*arguments)
    while (asked := connection.recv()) is not None:
        order, given = asked
        connection.send(orders[order](*given))


def plain_script(setting: Setting, workers: int) -> Orders:
    """The plain script: `epoch`, `look` at an epoch's batches, `evaluate`, and `gradients` to check equality."""
    import equality  # torch, only in the processes that need it
    import plain
    import torch

    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    batches = plain.loader(
        setting.folder / "train", batch_size=setting.batch_size, workers=workers, draws=setting.draws
    )
    classes = len(list((setting.folder / "train").iterdir()))
    model = plain.network(classes, setting.side)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    memory = plain.in_memory(setting.folder / "train")

    def gradients(given: Path, answer: Path) -> None:
        batch = torch.load(given)

        def step(check: torch.nn.Module) -> torch.Tensor:
            loss = torch.nn.functional.cross_entropy(check(batch["image"].contiguous()), batch["target"])
            loss.backward()
            return loss

        checks = [plain.network(classes, setting.side) for _ in range(2)]
        for check in checks:
            check.load_state_dict(batch["weights"])
        equality.without_maxima(checks[1])
        torch.save([equality.found(check, step) for check in checks], answer)

    return {
        "epoch": lambda: timed(lambda: plain.train_epoch(model, batches, optimizer)),
        "look": lambda: timed(lambda: [len(image) for image, _ in batches]),
        "evaluate": lambda: timed(lambda: plain.evaluate(model, memory)),
        "gradients": gradients,
    }


def framework(setting: Setting, *words: str) -> Orders:
    """emoexp with words of its command line: `epoch` through its public functions, `bare` on one batch, `look` at an
    epoch's batches, `validate` on the training images, `batch`, `compare` and `apart` to check equality."""
    import torch
    from side import Side

    from emoexp.models import mish

    torch.set_num_threads(setting.threads)
    side = Side(*overrides(setting), *words)
    bare = side.bare()
    side.judge("train")
    return {
        "epoch": lambda: timed(side.epoch),
        "bare": lambda: timed(bare),
        "look": lambda: timed(side.look),
        "validate": lambda: timed(side.validate),
        "batch": side.save_batch,
        "compare": side.compare,
        "apart": side.apart,
        "weights": lambda: {name: value.numpy() for name, value in side.trained(side.setup.capture, 1).items()},
        "facts": lambda: {"torch": torch.__version__, "mish": mish.kernel(), "packing": side.loading},
    }


def lightning_script(setting: Setting) -> Orders:
    """PyTorch Lightning as its users write it: `epoch`."""
    import lightning_peer

    return {"epoch": lightning_peer.epochs(setting)}


def overrides(setting: Setting) -> list[str]:
    """The command line of the measured training."""
    return [
        "data=folder",
        f"data.root='{setting.folder}'",
        "imbalance=sampler",
        "augmentation=light",
        f"imbalance.epoch_size={setting.draws}",
        f"batch_size={setting.batch_size}",
        f"image_size={setting.side}",
        "device=cpu",
        f"cache='{setting.place / 'cache'}'",
    ]


def timed(work: Callable[[], Any]) -> Lap:
    """Seconds that `work` takes."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return Lap(time.perf_counter() - wall, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Processor time of this process and of its live children (on Linux; elsewhere of this process alone)."""
    return time.process_time() + sum(_cpu_of(child.pid) for child in multiprocessing.active_children() if child.pid)


def _cpu_of(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return 0.0
    user, system = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
