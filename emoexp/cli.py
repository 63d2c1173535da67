"""What every command does around its job: its help, the nearest name for a misspelt one, and errors in one line."""

import difflib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import OmegaConf

from emoexp.config import options


def command(name: str, job: Callable[[], None]) -> None:
    """Run an entry point: our own --help, Hydra for the rest, and the nearest name where composing failed."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(name))
        return
    _state["started"] = False
    register_sweeper()
    try:
        job()
    except SystemExit as stop:
        if stop.code and not _state["started"]:
            print(*suggestions(name, sys.argv[1:]), sep="\n", file=sys.stderr)
        raise


_state = {"started": False}  # whether composing succeeded: afterwards an error is not one of names


def composing_succeeded() -> None:
    """From here on an error is not one of names."""
    _state["started"] = True


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """As `reported`; in a sweep an error stays an exception, for Hydra."""
    composing_succeeded()
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        yield
        return
    with reported():
        yield


@contextmanager
def reported() -> Iterator[None]:
    """A person's mistake becomes one line and exit code 1; an interruption says how to go on, exit code 130."""
    try:
        yield
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def register_sweeper() -> None:
    """Make our sweeper known to Hydra, whose own search does not see into an editable installation."""
    from hydra_plugins.emoexp import Sweeper

    Plugins.instance().register(Sweeper)


def help_text(name: str) -> str:
    """Every option group of a command with its options and a line on each, then its scalars."""
    text = options.text("", name) or ""
    used = [
        group
        for path, group in options.GROUPS.items()
        if path.partition(".")[0] in text and path != "imbalance.copies.transform"
    ]
    lines = [
        text.partition("\n")[0].lstrip("# "),
        "",
        f"  python -m emoexp.{name} [group=option] [key=value] ...",
        "",
    ]
    for group in [*dict.fromkeys(used), *(["experiment"] if "experiment:" in text else [])]:
        lines += [f"{group}="] + [f"  {option:26} {line}" for option, line in options.listed(group).items()] + [""]
    lines += [text.partition("\n\n")[2].partition("\nhydra:")[0].rstrip()]
    lines += [
        "",
        "--cfg job shows the composed configuration; --multirun sweeps: activation=mish,relu 'seed=range(3)'",
    ]
    return "\n".join(lines)


def suggestions(name: str, arguments: list[str]) -> Iterator[str]:
    """For each override whose key or option does not exist, the nearest that does."""
    keys = known_keys(name)
    for argument in arguments:
        key, equals, value = argument.lstrip("+~").partition("=")
        if not equals or key.startswith(("hydra", "-")):
            continue
        group = key.partition("@")[0]
        if group in (*options.GROUPS.values(), "experiment"):
            pool = list(options.listed(group))
            for choice in value.split(","):
                yield from _nearest(choice, pool, f"{group}=")
        elif key not in keys:
            leaves = [known for known in keys if "." in known] if "." in key else keys
            yield from _nearest(key, leaves, "")


def _nearest(name: str, pool: list[str], prefix: str) -> Iterator[str]:
    if name not in pool:
        near = difflib.get_close_matches(name, pool, n=3, cutoff=0.5)
        leaf = [key for key in pool if key.rpartition(".")[2] == name.rpartition(".")[2]]
        if found := list(dict.fromkeys([*near, *leaf])):
            yield f"did you mean {' or '.join(prefix + entry for entry in found)}?"


def known_keys(name: str) -> list[str]:
    """Every key that some choice of options knows, such as optimizer.lr."""
    root = OmegaConf.to_container(OmegaConf.create(options.text("", name) or ""))
    assert isinstance(root, dict)
    keys = [str(key) for key in root if key not in ("defaults", "hydra")] + [
        *options.GROUPS,
        *options.GROUPS.values(),
        "experiment",
    ]
    for path, group in options.GROUPS.items():
        keys += [f"{path}.{key}" for choice in options.listed(group) for key in options.option(group, choice)]
    return list(dict.fromkeys(keys))
