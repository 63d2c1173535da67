"""What is wrong with a data set, before anyone trains: python -m emoexp.audit data=fer2013 data.root=..."""

import sys

import hydra
from omegaconf import DictConfig

from emoexp import cli

EXIT_FINDINGS = 3  # exit code where the audit finds something that audit.fail_on names


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="audit")
def job(composed: DictConfig) -> None:
    """Check one configuration, composed by Hydra, then audit."""
    with cli.errors_in_one_line():
        from emoexp.config import checks  # here, because --help does not need it

        options = checks.plain(composed)
        from emoexp.auditing import audit  # here: it imports torch and matplotlib

        if audit.audit(options):
            sys.exit(EXIT_FINDINGS)


def main() -> None:
    """The command."""
    cli.command("audit", job)


if __name__ == "__main__":
    main()
