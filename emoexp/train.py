"""Train one classifier: python -m emoexp.train imbalance=sampler activation=mish"""

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from emoexp import cli


# pkg://emoexp.conf is the folder conf/: pyproject.toml gives it this name
@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="train")
def job(composed: DictConfig) -> None:
    """Check one configuration, composed by Hydra, then train it."""
    with cli.errors_in_one_line():
        from emoexp.config import checks  # here, because --help does not need it

        refuse_sweep_options(composed)
        experiment, machine = checks.checked(composed)
        from emoexp.training import run  # here: it imports torch

        run.train(experiment, machine)


def refuse_sweep_options(composed: DictConfig) -> None:
    """Raises ValueError for an option that only a sweep has."""
    hydra_config = HydraConfig.get()
    ablation = hydra_config.runtime.choices.get("ablation")
    options = [f"ablation={ablation}"] if ablation else []
    options += [name for name in ("dry_run", "tune.lr") if OmegaConf.select(composed, name)]
    if options and hydra_config.mode != RunMode.MULTIRUN:
        raise ValueError(f"{', '.join(options)} is about a sweep: add --multirun")


def main() -> None:
    """The command."""
    cli.command("train", job)


if __name__ == "__main__":
    main()
