"""Ask a trained model about images without labels: python -m emoexp.predict run=outputs/<run> images=<folder>"""

import hydra
from omegaconf import DictConfig

from emoexp import cli


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="predict")
def job(composed: DictConfig) -> None:
    """Check one configuration, composed by Hydra, then predict."""
    with cli.errors_in_one_line():
        from emoexp.config import checks  # here, because --help does not need it

        options = checks.plain(composed)
        from emoexp.inference import predict_images  # here: it imports torch

        predict_images.predict(options)


def main() -> None:
    """The command."""
    cli.command("predict", job)


if __name__ == "__main__":
    main()
