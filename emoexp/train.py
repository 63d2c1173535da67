"""Train one classifier: python -m emoexp.train imbalance=sampler activation=mish"""

import hydra
from omegaconf import DictConfig

from emoexp import commands, config


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="train")
def job(composed: DictConfig) -> None:
    """One configuration, composed by Hydra."""
    commands.guarded(run, composed)


def run(composed: DictConfig) -> None:
    """Check a configuration, then train it."""
    experiment, machine = config.checked(composed)
    from emoexp import training  # torch, only now

    training.train(experiment, machine)


def main() -> None:
    """The command."""
    commands.command("train", job)


if __name__ == "__main__":
    main()
