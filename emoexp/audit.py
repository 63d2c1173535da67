"""What is wrong with a data set, before anyone trains: python -m emoexp.audit data=fer2013 data.root=..."""

import sys

import hydra
from omegaconf import DictConfig

from emoexp import cli

FOUND = 3  # exit code where a finding that audit.fail_on names is there


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="audit")
def job(composed: DictConfig) -> None:
    """Check one configuration, composed by Hydra, then audit."""
    with cli.errors_in_one_line():
        from emoexp.config import checks  # its classes, only now: --help needs none of them

        options = checks.plain(composed)
        from emoexp.auditing import audit  # torch and figures, only now

        if audit.audit(options):
            sys.exit(FOUND)


def main() -> None:
    """The command."""
    cli.command("audit", job)


if __name__ == "__main__":
    main()
