"""What class-aware sampling owes to its turns and what to its decks: python benchmarks/turns.py turns --seed 0

`both` is imbalance=class_aware. `turns`: classes take turns, but their images are drawn by chance. `decks`: classes are
drawn by chance, but their images are dealt without replacement. imbalance=sampler has neither.
"""

import argparse

import torch
from hydra import compose, initialize_config_module
from torch import Tensor

from emoexp import rng
from emoexp.config import checks
from emoexp.imbalance import sampling
from emoexp.imbalance.strategy import Strategy
from emoexp.training import run

PROFILE = ["experiment=small", "image_size=24", "imbalance=class_aware", "threads=1", "tracking=none"]


def by_turns(plan: Strategy, epoch: int, seed: int) -> Tensor:
    """Classes in turn, images by chance."""
    turn_E = sampling.turns(plan.epoch(epoch).share_C, size=plan.epoch_size, seed=seed, epoch=epoch)
    item_E = torch.empty_like(turn_E)
    for c in range(len(plan.count_C)):
        member, mine = torch.nonzero(plan.label_P == c).flatten(), turn_E == c
        draw = rng.uniform_double(seed, "why", epoch, c, torch.arange(int(mine.sum())))
        item_E[mine] = member[(draw * len(member)).long()]
    return item_E


def by_decks(plan: Strategy, epoch: int, seed: int) -> Tensor:
    """Classes by chance, images from decks."""

    def classes(at: int) -> Tensor:
        share_C = plan.epoch(at).share_C
        return plan.label_P[sampling.order(plan.label_P, share_C, size=plan.epoch_size, seed=seed, epoch=at)]

    dealt_C = torch.zeros_like(plan.count_C)
    for at in range(epoch):
        dealt_C += torch.bincount(classes(at), minlength=len(dealt_C))
    return sampling.deal(plan.label_P, classes(epoch), dealt_C, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("order", choices=["turns", "decks", "both"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.order != "both":
        Strategy.order = {"turns": by_turns, "decks": by_decks}[asked.order]  # type: ignore[method-assign]
    with initialize_config_module("emoexp.conf", version_base="1.3"):
        words = [*PROFILE, f"seed={asked.seed}", f"outputs=outputs/turns/{asked.order}"]
        experiment, place = checks.checked(compose("train", words))
    print(asked.order, asked.seed, round(run.train(experiment, place)["test"]["macro_f1"], 4))


if __name__ == "__main__":
    main()
