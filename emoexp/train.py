"""Train one classifier: python -m emoexp.train imbalance=sampler activation=mish"""

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from emoexp import cli
from emoexp.config import checks


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="train")
def job(composed: DictConfig) -> None:
    """One configuration, composed by Hydra."""
    cli.guarded(run, composed)


def run(composed: DictConfig) -> None:
    """Check a configuration, then train it."""
    of_a_sweep(composed)
    experiment, machine = checks.checked(composed)
    from emoexp.training import run as training  # torch, only now

    training.train(experiment, machine)


def of_a_sweep(composed: DictConfig) -> None:
    """Refuse for a single run what only a sweep can do."""
    known = HydraConfig.get()
    ablation = known.runtime.choices.get("ablation")
    asked = [f"ablation={ablation}"] if ablation else []
    asked += [name for name in ("dry_run", "tune.lr") if OmegaConf.select(composed, name)]
    if asked and known.mode != RunMode.MULTIRUN:
        raise ValueError(f"{', '.join(asked)} is about a sweep: add --multirun")


def main() -> None:
    """The command."""
    cli.command("train", job)


if __name__ == "__main__":
    main()
