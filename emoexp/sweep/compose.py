"""A command line as the cells of a sweep: every one composed and checked before anything starts."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emoexp.config import checks, naming
from emoexp.config.schema import Sweep
from emoexp.sweep import cells as sweeping
from emoexp.sweep import tune
from emoexp.sweep.cells import Cell, Plan

SHOWN = 12  # invalid cells that a message names


def plan(loader: ConfigLoader, master: DictConfig, words: Sequence[str]) -> Plan:
    """Every cell that an ablation's file and the words of a command line span, composed and checked.

    A word of the command line replaces the file's for the same key, so that an ablation can be narrowed or widened.

    Raises:
        ValueError: a cell that does not compose or has a value out of range (all of them are named), or words that
            would differ between cells although they are about the whole sweep.
    """
    parser = OverridesParser.create(config_loader=loader)
    spread = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    overrides = parser.parse_overrides([*spread, *words])
    axes = _axes(overrides, len(spread))
    if "ablation" in axes:
        raise ValueError("ablation is swept one at a time: a file of your own may hold what two of them vary")
    found, wrong = [], {}
    settings: list[Sweep] = []
    make = _Composer(loader, master, axes)
    for combination in BasicSweeper.split_arguments(overrides, None)[0]:
        try:
            cell, about = make.cell(combination)
        except (ValueError, HydraException, OmegaConfBaseException) as error:
            wrong[" ".join(combination)] = str(error).partition("\n")[0]
            continue
        found.append(cell)
        settings.append(about)
    if wrong:
        lines = [f"  {words}\n    {error}" for words, error in wrong.items()]
        more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise ValueError("\n".join([f"nothing was started; {len(wrong)} cells are wrong:", *lines[:SHOWN], *more]))
    about = _checked(found, settings, axes)
    unique = list({cell.name: cell for cell in found}.values())
    doubled = len(found) - len(unique)
    title = OmegaConf.select(master, "hydra.runtime.choices.ablation") or "_x_".join(axes) or "seeds"
    axes = [axis for axis in axes if axis in unique[0].axes]
    return Plan(sweeping.sweep_name(title, unique, axes, about), tuple(axes), tuple(unique), about, doubled)


def _axes(overrides: Sequence[Override], spread: int) -> list[str]:
    """The keys that a sweep varies: those of the ablation's file, and those with several values."""
    varied = [
        str(override.get_key_element()).removeprefix("+")
        for place, override in enumerate(overrides)
        if place < spread or override.is_sweep_override()
    ]
    return [key for key in dict.fromkeys(varied) if key != "seed"]


class _Composer:
    """Composes cells. Hydra takes a tenth of a second for one; cells that differ in their seed alone share it."""

    def __init__(self, loader: ConfigLoader, master: DictConfig, axes: Sequence[str]) -> None:
        self._loader, self._master, self._axes = loader, master, axes
        self._made: dict[tuple[str, ...], tuple[Cell, Sweep]] = {}

    def cell(self, words: Sequence[str]) -> tuple[Cell, Sweep]:
        """A cell and its sweep's settings. Raises what composing and checking raise."""
        seed = next((word[5:] for word in words if re.fullmatch(r"seed=\d{1,18}", word)), None)
        others = tuple(word for word in words if not word.startswith("seed="))
        if seed is not None and others in self._made:
            cell, about = self._made[others]
            return dataclasses.replace(cell.having((), seed=int(seed)), overrides=tuple(words)), about
        composed = self._loader.load_sweep_config(self._master, list(words))
        made = _cell(composed, words, self._axes)
        if not re.search(r"\$\{[^}]*\bseed\b", OmegaConf.to_yaml(composed)):  # somebody's data.seed: ${seed}
            self._made[others] = made
        return made


def _cell(composed: DictConfig, words: Sequence[str], axes: Sequence[str]) -> tuple[Cell, Sweep]:
    with_hydra = OmegaConf.to_container(composed)
    assert isinstance(with_hydra, dict)
    composed = OmegaConf.masked_copy(composed, [str(key) for key in with_hydra if key != "hydra"])
    experiment, machine = checks.checked(composed)
    values = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in words)}
    known = naming.params(experiment)
    for axis in axes:
        if axis.replace("/", ".") not in known and axis != "experiment" and not hasattr(machine, axis):
            if axis.partition(".")[0] not in {field.name for field in dataclasses.fields(Sweep)}:
                raise ValueError(f"{axis} is nothing that a run depends on")
    shown = {axis: str(known.get(axis.replace("/", "."), values.get(axis))) for axis in axes}
    return Cell(tuple(words), experiment, machine, shown), checks.sweep_of(composed)


def _checked(cells: list[Cell], settings: list[Sweep], axes: Sequence[str]) -> Sweep:
    """The settings of a sweep, which all its cells share, as they share their machine."""
    machines = [cell.machine for cell in cells]
    for parts in (settings, machines):
        for name in (field.name for field in dataclasses.fields(parts[0])):
            if any(getattr(other, name) != getattr(parts[0], name) for other in parts):
                raise ValueError(f"{name} is about the whole sweep and cannot be swept")
    tune = settings[0].tune
    if tune.lr and "optimizer.lr" in axes:
        raise ValueError("optimizer.lr is either swept or searched by tune.lr, not both")
    if tune.lr and any(cell.experiment.monitor == "epoch" for cell in cells):
        raise ValueError(
            "tune.lr takes the rate whose monitored value is best, and monitor=epoch is the same for all: monitor a "
            "value of validation such as val/macro_f1, or leave tune.lr=null"
        )
    if tune.lr and tune.seed in {cell.experiment.seed for cell in cells}:
        raise ValueError(f"tune.seed={tune.seed} is one of the seeds that are compared; choose another for the search")
    return settings[0]


@dataclass(frozen=True)
class Wanted:
    """A cell as a report asks for it: the name of its run, its axes, its seed, what a search chose for it."""

    name: str
    axes: dict[str, str]
    seed: int
    chosen: dict[str, float]


@dataclass(frozen=True)
class Spanned:
    """What a command line spans: the sweep's folder, its axes without the seed, its cells."""

    folder: Path
    axes: list[str]
    cells: list[Wanted]


def spanned(words: list[str]) -> Spanned:
    """The cells that the words of a sweep's command line span; nothing is started.

    Raises:
        ValueError: as `plan`.
    """
    state = GlobalHydra.instance()
    before, state.hydra = state.hydra, None  # of the command that asks, which Hydra has composed
    try:
        with initialize_config_module("emoexp.conf", version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            master = loader.load_configuration("train", overrides=list(words), run_mode=RunMode.MULTIRUN)
            made = plan(loader, master, words)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(str(error)) from error
    finally:
        GlobalHydra.instance().hydra = before
    folder = Path(str(master.hydra.sweep.dir)) / made.name
    tuned = tune.chosen(made, sweeping.Folder(folder).found()) if made.settings.tune.lr else made.cells
    rows = []
    for cell, best in zip(made.cells, tuned, strict=True):
        name = best.name if best else f"{cell.label} (no learning rate chosen)"  # an untuned run must not stand for it
        rows.append(Wanted(name, cell.axes, cell.experiment.seed, best.chosen if best else {}))
    return Spanned(folder, list(made.axes), rows)
