"""What all commands share: their help, suggestions for misspelt names, and errors in one line."""

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
    """Run a command: print our own help, or let Hydra compose and run the job. Where composing fails, suggest names."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(name))
        return
    _state["composed"] = False
    register_sweeper()
    try:
        job()
    except SystemExit as stop:
        if stop.code and not _state["composed"]:
            print(*suggestions(name, sys.argv[1:]), sep="\n", file=sys.stderr)
        raise


_state = {"composed": False}  # whether composing succeeded; a later error is not about names


def composing_succeeded() -> None:
    """Record that composing succeeded: for a later error no names are suggested."""
    _state["composed"] = True


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """As `exit_on_error`; but in a sweep an error stays an exception, which Hydra handles."""
    composing_succeeded()
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        yield
        return
    with exit_on_error():
        yield


@contextmanager
def exit_on_error() -> Iterator[None]:
    """An error of the user's input becomes one line and exit code 1, an interruption a line and exit code 130."""
    try:
        yield
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def register_sweeper() -> None:
    """Register our sweeper with Hydra, whose own search does not find it in an editable installation."""
    from hydra_plugins.emoexp import Sweeper

    Plugins.instance().register(Sweeper)


def help_text(name: str) -> str:
    """The help of a command: every option group with a line on each option, then the scalars."""
    text = options.text("", name) or ""
    groups = [
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
    for group in [*dict.fromkeys(groups), *(["experiment"] if "experiment:" in text else [])]:
        lines += [f"{group}="] + [f"  {option:26} {line}" for option, line in options.listed(group).items()] + [""]
    lines += [text.partition("\n\n")[2].partition("\nhydra:")[0].rstrip()]
    lines += [
        "",
        "--cfg job shows the composed configuration; --multirun sweeps: activation=mish,relu 'seed=range(3)'",
    ]
    return "\n".join(lines)


def suggestions(name: str, arguments: list[str]) -> Iterator[str]:
    """For each override whose key or option does not exist, a suggestion of similar ones that do."""
    keys = known_keys(name)
    for argument in arguments:
        key, equals, value = argument.lstrip("+~").partition("=")
        if not equals or key.startswith(("hydra", "-")):
            continue
        group = key.partition("@")[0]
        if group in (*options.GROUPS.values(), "experiment"):
            candidates = list(options.listed(group))
            for choice in value.split(","):
                yield from _nearest(choice, candidates, f"{group}=")
        elif key not in keys:
            candidates = [name for name in keys if "." in name] if "." in key else keys
            yield from _nearest(key, candidates, "")


def _nearest(name: str, candidates: list[str], prefix: str) -> Iterator[str]:
    if name not in candidates:
        similar = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
        same_ending = [key for key in candidates if key.rpartition(".")[2] == name.rpartition(".")[2]]
        if matches := list(dict.fromkeys([*similar, *same_ending])):
            yield f"did you mean {' or '.join(prefix + match for match in matches)}?"


def known_keys(name: str) -> list[str]:
    """Every key of every option, such as optimizer.lr."""
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
