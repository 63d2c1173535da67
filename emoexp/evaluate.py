"""Judge a trained model on other images: python -m emoexp.evaluate run=outputs/<run> data=folder data.root=..."""

import hydra
from omegaconf import DictConfig

from emoexp import cli


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="evaluate")
def job(composed: DictConfig) -> None:
    """Check one configuration, composed by Hydra, then evaluate."""
    with cli.errors_in_one_line():
        from emoexp.config import checks  # here, because --help does not need it

        options = checks.plain(composed)
        from emoexp.inference import evaluate  # here: it imports torch

        evaluate.evaluate(options)


def main() -> None:
    """The command."""
    cli.command("evaluate", job)


if __name__ == "__main__":
    main()
