"""Compare the finished runs of a sweep: python -m emoexp.report ablation=activation"""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emoexp import cli
from emoexp.config import options

_sweep_words: list[str] = []  # the words of the command line that name the sweep
_HYDRA_OPTIONS = (
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
)  # of which the next word is the value


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="report")
def job(composed: DictConfig) -> None:
    """Check the report's own configuration, composed by Hydra, then write the report."""
    with cli.errors_in_one_line():
        from emoexp.config import checks  # here, because --help does not need it

        report_options = checks.plain(composed)
        from emoexp.reporting import report  # here: it imports numpy and matplotlib

        report.report(report_options, [*_sweep_words, *search_path()] if _sweep_words else [])


def search_path() -> list[str]:
    """The folder of --config-dir as a word of the sweep's command line, so that the sweep finds its options too."""
    folders = [source.path for source in HydraConfig.get().runtime.config_sources if source.provider == "command-line"]
    return [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the report's own words and the words of the sweep.

    The word outputs= belongs to both, unless runs= or filter= names the runs. --multirun is dropped.
    """
    keys = {str(name) for name in OmegaConf.create(options.text("", "report") or "")} | {"tracking"}
    own_words, sweep_words = [], []
    iterator = iter(words)
    for word in iterator:
        if word in ("--multirun", "-m"):
            continue
        key = word.lstrip("+~").partition("=")[0].partition(".")[0]
        is_own = word.startswith("-") or key in keys
        own_words += [word] if is_own else []
        own_words += [next(iterator, "")] if word in _HYDRA_OPTIONS else []
        sweep_words += [word] if not is_own or key == "outputs" else []
    names_runs = any(word.startswith(("runs=", "filter=")) for word in own_words)
    return own_words, [word for word in sweep_words if not (names_runs and word.startswith("outputs="))]


def main() -> None:
    """The command."""
    own_words, _sweep_words[:] = split_words(sys.argv[1:])
    sys.argv[1:] = own_words
    cli.command("report", job)


if __name__ == "__main__":
    main()
