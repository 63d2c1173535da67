"""Ask a trained model about images without labels: python -m emoexp.predict run=outputs/<run> images=<folder>"""

import hydra
from omegaconf import DictConfig

from emoexp import cli
from emoexp.config import checks


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="predict")
def job(composed: DictConfig) -> None:
    """One configuration, composed by Hydra."""
    cli.guarded(run, composed)


def run(composed: DictConfig) -> None:
    """Check a configuration, then predict."""
    plain = checks.plain(composed)
    from emoexp.inference import evaluate  # torch, only now

    evaluate.predict(plain)


def main() -> None:
    """The command."""
    cli.command("predict", job)


if __name__ == "__main__":
    main()
