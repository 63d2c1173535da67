"""A real training command, and what its logging costs: prints for each epoch what is written and sent, over the rest.

python benchmarks/logged.py epochs=6 ...   with the words of `python -m emoexp.train`

What counts is the time in which the training waits for files to be written, and the processor time of the thread that
speaks to MLflow. Epochs count from the one after MLflow was imported, which happens once a process.
"""

import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

spent: list[tuple[float, float]] = []  # when it ended, and how long it took


def counted(function: Callable[..., Any], clock: Callable[[], float]) -> Callable[..., Any]:
    """The function, its time added to `spent`."""

    def timed(*arguments: Any) -> Any:
        began = clock()
        try:
            return function(*arguments)
        finally:
            spent.append((time.time(), clock() - began))

    return timed


def main() -> None:
    sys.argv[0] = "train"
    from emoexp import train
    from emoexp.tracking.mirror import Mirror
    from emoexp.training import checkpointer

    Mirror.sync = counted(Mirror.sync, time.thread_time)  # type: ignore[method-assign]
    checkpointer.Checkpointer.write = counted(checkpointer.Checkpointer.write, time.perf_counter)  # type: ignore[method-assign]
    train.main()
    path = next(Path("outputs").glob("*/times.jsonl"))
    ended = [json.loads(line)["ended"] for line in path.read_text(encoding="utf-8").splitlines()]
    imported = max(spent, key=lambda one: one[1])[0]
    begins = [end for end in ended if end >= imported]
    epochs = list(pairwise(begins))
    shares = [sum(took for end, took in spent if a < end <= b) / (b - a) for a, b in epochs]
    print("shares", json.dumps(shares))


if __name__ == "__main__":
    main()
