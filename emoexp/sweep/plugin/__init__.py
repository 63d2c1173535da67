"""What Hydra calls for --multirun. Installed as hydra_plugins.emoexp: Hydra looks for plugins only there."""

import sys

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Sweeper(HydraSweeper):
    """Plans the whole sweep, runs the cells that are not finished, and ends with a table of all cells.

    With Hydra's own launcher, `basic`, cells run in our warm workers; any other launcher gets the missing cells as
    jobs of its own kind.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Called by Hydra with the words of the command line. Ends the process unless every cell is finished."""
        from emoexp import cli
        from emoexp.sweep import compose, launchers, supervise

        assert self.hydra_context is not None and self.config is not None
        with cli.exit_on_error():
            plan = compose.plan(self.hydra_context.config_loader, self.config, arguments)
            cli.composing_succeeded()
            name = str(self.config.hydra.runtime.choices["hydra/launcher"])
            runner = None if name == "basic" else launchers.cell_runner(self.launcher, name)
            code = supervise.run_sweep(plan, self.config.hydra.sweep.dir, " ".join(arguments), runner)
        if code:
            sys.exit(code)
