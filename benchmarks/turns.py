"""Why class-aware sampling differs from a weighted sampler: python benchmarks/turns.py turns --seed 0

It differs in two things, and each is tried alone. `turns`: classes take turns, but their images are drawn with
replacement. `without_replacement`: images are drawn without replacement, but their classes by chance. `both` is
imbalance=class_aware; imbalance=sampler does neither.
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


def turns_alone(plan: Strategy, epoch: int, seed: int) -> Tensor:
    """Classes in turn, images with replacement."""
    class_E = sampling.class_sequence(plan.epoch(epoch).share_C, size=plan.epoch_size, seed=seed, epoch=epoch)
    item_E = torch.empty_like(class_E)
    for c in range(len(plan.count_C)):
        member_N, is_c_E = torch.nonzero(plan.label_P == c).flatten(), class_E == c
        draw = rng.uniform_double(seed, "why", epoch, c, torch.arange(int(is_c_E.sum())))
        item_E[is_c_E] = member_N[(draw * len(member_N)).long()]
    return item_E


def without_replacement_alone(plan: Strategy, epoch: int, seed: int) -> Tensor:
    """Classes by chance, images without replacement."""

    def classes(number: int) -> Tensor:
        share_C = plan.epoch(number).share_C
        return plan.label_P[sampling.order(plan.label_P, share_C, size=plan.epoch_size, seed=seed, epoch=number)]

    drawn_C = torch.zeros_like(plan.count_C)
    for number in range(epoch):
        drawn_C += torch.bincount(classes(number), minlength=len(drawn_C))
    return sampling.without_replacement(plan.label_P, classes(epoch), drawn_C, seed=seed)


ORDERS = {"turns": turns_alone, "without_replacement": without_replacement_alone, "both": Strategy.order}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("order", choices=[*ORDERS])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    Strategy.order = ORDERS[asked.order]  # type: ignore[method-assign]
    with initialize_config_module("emoexp.conf", version_base="1.3"):
        words = [*PROFILE, f"seed={asked.seed}", f"outputs=outputs/turns/{asked.order}"]
        experiment, place = checks.checked(compose("train", words))
    print(asked.order, asked.seed, round(run.train(experiment, place)["test"]["macro_f1"], 4))


if __name__ == "__main__":
    main()
