"""Ask a trained model about images without labels: python -m emoexp.predict run=outputs/<run> images=<folder>"""

import hydra
from omegaconf import DictConfig

from emoexp import commands, config


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="predict")
def job(composed: DictConfig) -> None:
    """One configuration, composed by Hydra."""
    commands.guarded(run, composed)


def run(composed: DictConfig) -> None:
    """Check a configuration, then predict."""
    plain = config.plain(composed)
    from emoexp import evaluation  # torch, only now

    evaluation.predict(plain)


def main() -> None:
    """The command."""
    commands.command("predict", job)


if __name__ == "__main__":
    main()
