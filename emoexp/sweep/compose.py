"""Turns a command line into the cells of a sweep; all of them are composed and checked before one starts."""

import dataclasses
import json
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

from emoexp.config import checks, naming, sources
from emoexp.config.data import Brought, DataSource
from emoexp.config.schema import Experiment, Sweep
from emoexp.sweep import tune
from emoexp.sweep.cells import Cell, CellRequest, Plan, SweepFolder, sweep_name

MAX_SHOWN = 12  # invalid cells that a message lists


def plan(loader: ConfigLoader, master: DictConfig, words: Sequence[str]) -> Plan:
    """The plan of all combinations of the values in an ablation's file and on a command line, composed and checked.

    A word of the command line replaces the file's values of its key, so that an ablation can be narrowed or widened.

    Raises:
        ValueError: cells that do not compose or have a value out of range (the message names all of them), or several
            values for a setting of the whole sweep.
    """
    parser = OverridesParser.create(config_loader=loader)
    ablation = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    overrides = parser.parse_overrides([*ablation, *words])
    axes = _axes(overrides, len(ablation))
    if "ablation" in axes:
        raise ValueError("ablation is swept one at a time: a file of your own may hold what two of them vary")
    cells, errors = [], {}
    all_settings: list[Sweep] = []
    composer = _Composer(loader, master, axes)
    for override in overrides:
        if override.is_interval_sweep():
            raise ValueError(
                f"{override.input_line} draws from an interval, which a sweeper such as Optuna's takes; here a sweep "
                f"takes values, {override.key_or_group}=0.001,0.003,0.01, or whole numbers, range(6)"
            )
    for combination in BasicSweeper.split_arguments(overrides, None)[0]:
        try:
            cell, settings = composer.cell(combination)
        except (ValueError, HydraException, OmegaConfBaseException) as error:
            errors[" ".join(combination)] = str(error).partition("\n")[0]
            continue
        cells.append(cell)
        all_settings.append(settings)
    if errors:
        lines = [f"  {combination}\n    {error}" for combination, error in errors.items()]
        more = [f"  and {len(lines) - MAX_SHOWN} more"] if len(lines) > MAX_SHOWN else []
        head = f"nothing was started; {len(errors)} cells are wrong:"
        raise ValueError("\n".join([head, *lines[:MAX_SHOWN], *more]))
    settings = _shared_settings(cells, all_settings, axes)
    cells = _with_contents(cells)
    unique = list({cell.name: cell for cell in cells}.values())
    title = OmegaConf.select(master, "hydra.runtime.choices.ablation") or "_x_".join(axes) or "seeds"
    axes = [axis for axis in axes if axis in unique[0].axes]
    name = sweep_name(title, unique, axes, settings)
    return Plan(name, tuple(axes), tuple(unique), settings, len(cells) - len(unique))


def _axes(overrides: Sequence[Override], num_ablation: int) -> list[str]:
    """The keys that a sweep varies: those of the ablation's file, which come first, and those with several values."""
    varied = [
        str(override.get_key_element()).removeprefix("+")
        for index, override in enumerate(overrides)
        if index < num_ablation or override.is_sweep_override()
    ]
    return [key for key in dict.fromkeys(varied) if key != "seed"]


class _Composer:
    """Composes cells. Hydra needs a tenth of a second for each: those that differ only in their seed share it."""

    def __init__(self, loader: ConfigLoader, master: DictConfig, axes: Sequence[str]) -> None:
        self._loader, self._master, self._axes = loader, master, axes
        self._composed: dict[tuple[str, ...], tuple[Cell, Sweep]] = {}  # by the words without the seed

    def cell(self, words: Sequence[str]) -> tuple[Cell, Sweep]:
        """A cell and its sweep's settings. Raises what composing and checking raise."""
        seed = next((word[5:] for word in words if re.fullmatch(r"seed=\d{1,18}", word)), None)
        words_without_seed = tuple(word for word in words if not word.startswith("seed="))
        if seed is not None and words_without_seed in self._composed:
            cell, settings = self._composed[words_without_seed]
            return dataclasses.replace(cell.with_experiment((), seed=int(seed)), overrides=tuple(words)), settings
        config = self._loader.load_sweep_config(self._master, list(words))
        cell_and_settings = _cell(config, words, self._axes)
        if not re.search(
            r"\$\{[^}]*\bseed\b", OmegaConf.to_yaml(config)
        ):  # no other value depends on the seed, as data.seed=${seed} does
            self._composed[words_without_seed] = cell_and_settings
        return cell_and_settings


def _cell(config: DictConfig, words: Sequence[str], axes: Sequence[str]) -> tuple[Cell, Sweep]:
    keys = OmegaConf.to_container(config)
    assert isinstance(keys, dict)
    config = OmegaConf.masked_copy(config, [str(key) for key in keys if key != "hydra"])
    experiment, machine = checks.checked(config)
    values = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in words)}
    params = naming.params(experiment)
    for axis in axes:
        if axis.replace("/", ".") not in params and axis != "experiment" and not hasattr(machine, axis):
            if axis.partition(".")[0] not in {field.name for field in dataclasses.fields(Sweep)}:
                raise ValueError(f"{axis} is nothing that a run depends on")
    named_axes = {axis: str(params.get(axis.replace("/", "."), values.get(axis))) for axis in axes}
    return Cell(tuple(words), experiment, machine, named_axes), checks.sweep_of(config)


def _with_contents(cells: list[Cell]) -> list[Cell]:
    """The cells with the content of their images in their experiment, since it is part of what a run is.

    Images that cannot be read leave a cell as it is: the check of the cell, before anything is trained, says why.
    """
    identified_data: dict[str, DataSource] = {}
    found = []
    for cell in cells:
        experiment = cell.experiment
        key = json.dumps([experiment.data.plain(), experiment.image_size, experiment.channels], default=str)
        if key not in identified_data:
            try:
                identified_data[key] = _identified(cell).data
            except (ValueError, OSError):
                identified_data[key] = experiment.data
        found.append(dataclasses.replace(cell, experiment=dataclasses.replace(experiment, data=identified_data[key])))
    return found


def _identified(cell: Cell) -> Experiment:
    """A cell's experiment with the content of its images. Raises what reading them raises."""
    experiment = cell.experiment
    if not isinstance(experiment.data, Brought):
        return experiment
    cache = sources.folder_of(cell.machine.cache)
    return sources.identified(
        experiment, sources.read_source(experiment.data, experiment.image_size, experiment.channels, cache)
    )


def _check_identified(cell: Cell) -> None:
    """Raises ValueError where a run has no name because its images cannot be read."""
    data = cell.experiment.data
    if isinstance(data, Brought) and data.content is None and not data.usual_contents:
        try:
            _identified(cell)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"the names of these runs hold the content of their images, which cannot be read: {error}. Without the "
                "images, name the runs themselves: 'runs=[outputs/<run>,outputs/<run>]', or data.content=<12 digits, "
                "from the runs' config.yaml>"
            ) from error


def _shared_settings(cells: list[Cell], all_settings: list[Sweep], axes: Sequence[str]) -> Sweep:
    """The settings of a sweep. Raises ValueError where cells differ in a setting of the sweep or of their machine."""
    machines = [cell.machine for cell in cells]
    for objects in (all_settings, machines):
        for name in (field.name for field in dataclasses.fields(objects[0])):
            if any(getattr(values, name) != getattr(objects[0], name) for values in objects):
                raise ValueError(f"{name} is about the whole sweep and cannot be swept")
    tune = all_settings[0].tune
    if tune.lr and "optimizer.lr" in axes:
        raise ValueError("optimizer.lr is either swept or searched by tune.lr, not both")
    if tune.lr and any(cell.experiment.monitor == "epoch" for cell in cells):
        raise ValueError(
            "tune.lr takes the rate whose monitored value is best, and monitor=epoch is the same for all: monitor a "
            "value of validation such as val/macro_f1, or leave tune.lr=null"
        )
    if tune.lr and tune.seed in {cell.experiment.seed for cell in cells}:
        raise ValueError(f"tune.seed={tune.seed} is one of the seeds that are compared; choose another for the search")
    return all_settings[0]


@dataclass(frozen=True)
class SweepRequest:
    """A sweep as a report asks for it: its folder, its axes without the seed, its cells."""

    folder: Path
    axes: list[str]
    cells: list[CellRequest]


def sweep_request(words: list[str]) -> SweepRequest:
    """The cells that the words of a sweep's command line span; nothing is started.

    Raises:
        ValueError: as `plan`.
    """
    state = GlobalHydra.instance()
    outer_hydra, state.hydra = state.hydra, None  # Hydra's state of the command that calls this
    try:
        with initialize_config_module("emoexp.conf", version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            master = loader.load_configuration("train", overrides=list(words), run_mode=RunMode.MULTIRUN)
            planned = plan(loader, master, words)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(str(error)) from error
    finally:
        GlobalHydra.instance().hydra = outer_hydra
    for cell in planned.cells:
        _check_identified(cell)
    folder = Path(str(master.hydra.sweep.dir)) / planned.name
    tuned: Sequence[Cell | None] = planned.cells
    if planned.settings.tune.lr:
        tuned = tune.with_best_rates(planned, SweepFolder(folder).finished_runs())
    requests = []
    for cell, best in zip(planned.cells, tuned, strict=True):
        # where no rate was chosen, the request gets a name that no run has: an untuned run must not take its place
        name = best.name if best else f"{cell.label} (no learning rate chosen)"
        requests.append(CellRequest(name, cell.axes, cell.experiment.seed, best.chosen if best else {}))
    return SweepRequest(folder, list(planned.axes), requests)
