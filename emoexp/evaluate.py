"""Judge a trained model on other images: python -m emoexp.evaluate run=outputs/<run> data=folder data.root=..."""

import hydra
from omegaconf import DictConfig

from emoexp import cli
from emoexp.config import checks


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="evaluate")
def job(composed: DictConfig) -> None:
    """One configuration, composed by Hydra."""
    cli.guarded(run, composed)


def run(composed: DictConfig) -> None:
    """Check a configuration, then evaluate."""
    plain = checks.plain(composed)
    from emoexp.inference import evaluate  # torch, only now

    evaluate.evaluate(plain)


def main() -> None:
    """The command."""
    cli.command("evaluate", job)


if __name__ == "__main__":
    main()
