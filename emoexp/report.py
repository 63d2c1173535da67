"""Put the finished cells of a sweep together: python -m emoexp.report ablation=activation"""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emoexp import cli
from emoexp.config import options

_words: list[str] = []  # of the sweep
_WITH_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")  # options of Hydra's


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="report")
def job(composed: DictConfig) -> None:
    """The report's own configuration, composed by Hydra: find the cells, then put them together."""
    with cli.errors_in_one_line():
        from emoexp.config import checks  # its classes, only now: --help needs none of them

        own = checks.plain(composed)
        from emoexp.reporting import report  # numpy, matplotlib, only now

        report.report(own, [*_words, *searched()] if _words else [])


def searched() -> list[str]:
    """A folder of one's own options, given with --config-dir, as a word that the sweep's composing understands."""
    places = [source.path for source in HydraConfig.get().runtime.config_sources if source.provider == "command-line"]
    return [f"hydra.searchpath=[{','.join(f'file://{place}' for place in places)}]"] if places else []


def divided(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of a command line that are the report's own, and those of the sweep; `outputs` is both's, unless runs=
    or filter= names the runs. --multirun, which a sweep's line has, says nothing here."""
    keys = {str(name) for name in OmegaConf.create(options.text("", "report") or "")} | {"tracking"}
    own, sweep = [], []
    rest = iter(words)
    for word in rest:
        if word in ("--multirun", "-m"):
            continue
        key = word.lstrip("+~").partition("=")[0].partition(".")[0]
        mine = word.startswith("-") or key in keys
        own += [word] if mine else []
        own += [next(rest, "")] if word in _WITH_VALUE else []
        sweep += [word] if not mine or key == "outputs" else []
    named = any(word.startswith(("runs=", "filter=")) for word in own)
    return own, [word for word in sweep if not (named and word.startswith("outputs="))]


def main() -> None:
    """The command."""
    own, _words[:] = divided(sys.argv[1:])
    sys.argv[1:] = own
    cli.command("report", job)


if __name__ == "__main__":
    main()
