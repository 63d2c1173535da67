"""What each lever of speed is worth: python benchmarks/levers.py

Every line takes one lever away from a training (or an evaluation) that has them all. Each variant lives in a process of
its own, and only one works at a time, in turns; ratios are of processor time within a round.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

from contestants import Contestant, Orders, timed
from speed import Rounds, positive, say
from table import cores, processor, spread

ALL = "nothing"
TRAINING = {
    ALL: "everything as it is",
    "channels_last": "memory format: contiguous in place of channels last",
    "mish": "Mish: torch's own in place of the compiled form",
    "algebraic": "Mish: the algebraic form, as where there is no compiler",
    "allocator": "allocator: glibc's own thresholds in place of raised ones",
    "fused": "optimizer: a loop over parameters in place of one kernel",
    "fill": "deterministic=true as torch has it, which fills fresh memory",
    "deterministic": "deterministic=true as emoexp has it",
    "bf16": "precision=bf16, Mish",
    "relu": "activation=relu",
    "relu bf16": "activation=relu, precision=bf16",
    "compiled": "the network compiled whole, Mish",
    "relu compiled": "activation=relu, the network compiled whole",
}
EVALUATION = {
    ALL: "everything as it is",
    "folding": "batch norms as they are, not folded into convolutions",
    "channels_last": TRAINING["channels_last"],
    "mish": TRAINING["mish"],
    "allocator": TRAINING["allocator"],
    "chunks": "chunks of 1024 images in place of 256",
}
WORDS = {
    "mish": ["activation.kernel=native"],
    "algebraic": ["activation.kernel=algebraic"],
    "fused": ["optimizer.fused=false"],
    "fill": ["deterministic=true"],
    "deterministic": ["deterministic=true"],
    "bf16": ["precision=bf16"],
    "relu": ["activation=relu"],
    "relu bf16": ["activation=relu", "precision=bf16"],
    "relu compiled": ["activation=relu"],
}


def variant(lever: str, steps: int, threads: int, words: list[str]) -> Orders:
    """A training without a lever: `epoch`, `validate`, and `memory`, the most that was ever resident, in MB."""
    import torch  # only in the processes that need it
    from side import Side

    from emoexp.inference import predict
    from emoexp.models import folding
    from emoexp.runs import machine

    if lever == "allocator":
        mock.patch.object(machine, "tune_allocator").start()
    if lever == "folding":
        mock.patch.object(folding, "fold_batch_norms", lambda model, image: model).start()
    if lever == "chunks":
        mock.patch.object(predict, "_PIXELS", {"cpu": 1024 * 48 * 48}).start()
    if lever == "channels_last":
        mock.patch.object(torch, "channels_last", torch.contiguous_format).start()
    if lever == "fill":
        mock.patch.object(machine.torch.utils, "deterministic").start()  # what emoexp sets goes nowhere
    mock.patch.object(machine, "_bf16_arithmetic", return_value=True).start()
    torch.set_num_threads(threads)
    own = WORDS.get(lever, [])
    side = Side(f"imbalance.epoch_size={steps * 128}", "imbalance=sampler", "device=cpu", *own, *words)
    if lever.endswith("compiled"):
        side.state.model.features = torch.compile(side.state.model.features, dynamic=False)  # type: ignore[assignment]
    return {"epoch": lambda: timed(side.epoch), "validate": lambda: timed(side.validate), "memory": memory}


def memory() -> float:
    """The largest resident set so far, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def raced(order: str, levers: Sequence[str], options: argparse.Namespace) -> tuple[Rounds, dict[str, float]]:
    """Laps of each round, and the memory of each variant."""
    laps: Rounds = []
    with ExitStack() as stack:
        asked = (options.steps, options.threads, options.words)
        sides = {name: stack.enter_context(Contestant(name, variant, name, *asked)) for name in levers}
        for number in range(options.rounds + 1):
            lap = {name: sides[name](order) for name in (levers if number % 2 else list(reversed(levers)))}
            say(f"round {number or 'of warming up'}: " + ", ".join(f"{n} {lap[n].cpu:.2f} s" for n in levers))
            laps.append(lap)
        return laps[1:], {name: side("memory") for name, side in sides.items()}


def table(what: dict[str, str], laps: Rounds, resident: dict[str, float]) -> list[str]:
    """Ratios to the variant that has everything, as Markdown."""
    rows = ["| without | time, to all levers | resident, MB |", "| --- | --- | --- |"]
    for name in laps[0]:
        ratios = [lap[name].cpu / lap[ALL].cpu for lap in laps]
        rows.append(f"| {what[name]} | {spread(ratios, 2)} | {resident[name]:.0f} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=8, help="of 128 images, in each epoch")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--only", help="levers, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/levers.md"))
    parser.add_argument("words", nargs="*", default=["data=faces"], help="more of the training's command line")
    options = parser.parse_args()
    lines = [
        "# What each lever is worth",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{shlex.join(['python', *sys.argv])}`",
        "",
        f"{processor()}, {cores()} cores, {options.threads} threads. Processor time, and the largest resident set: "
        f"median (smallest to largest) of {options.rounds} rounds.",
    ]
    for title, order, what in (("Training", "epoch", TRAINING), ("Evaluation", "validate", EVALUATION)):
        levers = [name for name in what if not options.only or name == ALL or name in options.only.split(",")]
        lines += ["", f"## {title}", "", *table(what, *raced(order, levers, options))]
    text = "\n".join([*lines, ""])
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
