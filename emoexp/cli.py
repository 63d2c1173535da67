"""What all commands share: their help, suggestions for misspelt names, and errors in one line."""

import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from emoexp.config import option_files, options, words
from emoexp.runs import streams, system_errors


def command(name: str, job: Callable[[], None]) -> None:
    """Run a command: print our own help, or let Hydra compose and run the job. Where composing fails, say why."""
    read_names_as_utf8()
    streams.tolerate_lost_output()
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(name))
        return
    with exit_on_error():
        option_files.check(sys.argv[1:])
        sys.argv[1:] = words.prepare(sys.argv[1:])
    register_sweeper()
    _hold_stderr()
    try:
        job()
    except SystemExit as stop:
        printed = _release_stderr()
        if stop.code and printed is not None:
            print(*explain(name, sys.argv[1:], printed), sep="\n", file=sys.stderr)
        raise
    finally:
        composing_succeeded()


def read_names_as_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale knows ASCII alone (LC_ALL=C): names of files and classes could
    be neither shown nor written there."""
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - the same command


ALONE = 0.9  # a name that is as near as this is the only suggestion

# What Hydra prints while it composes is held back: it advises to add an unknown key with +, which hides the mistake.
_stderr: list[TextIO] = []


def _hold_stderr() -> None:
    if os.environ.get("HYDRA_FULL_ERROR", "0") == "0":
        _stderr.append(sys.stderr)
        sys.stderr = io.StringIO()


def _release_stderr() -> str | None:
    """What was held back, or None where composing had ended before."""
    if not _stderr:
        return None
    held, sys.stderr = sys.stderr, _stderr.pop()
    return held.getvalue() if isinstance(held, io.StringIO) else ""


def composing_succeeded() -> None:
    """Record that composing succeeded: a later error is not about names."""
    if printed := _release_stderr():
        sys.stderr.write(printed)


def explain(name: str, arguments: list[str], printed: str) -> Iterator[str]:
    """Why a configuration could not be composed, and the nearest names. printed: Hydra's message, or our own."""
    if key := re.search(r"^Could not override '([^']+)'", printed, re.M):
        yield from _no_such_key(name, key[1], arguments)
        return
    if option := re.search(r"^(?:In '[^']*': )?Could not find '([\w/]+)/([^'/]+)'", printed, re.M):
        yield f"error: {option[1]}={option[2]} is none of {', '.join(options.listed(option[1])) or 'its options'}"
    elif lines := list(words.without_advice(printed)):
        yield lines[0] if lines[0].startswith("error: ") else f"error: {lines[0]}"
        yield from lines[1:]
    yield from suggestions(name, arguments)


def _no_such_key(name: str, key: str, arguments: list[str]) -> Iterator[str]:
    """That there is no such key, which keys stand beside it under the choices of the command line, and where it is."""
    parent, _, leaf = key.rpartition(".")
    folders = {*options.GROUPS.values(), "experiment"}
    choices = [word for word in arguments if word.partition("=")[0] in folders and "," not in word]
    node = None
    with suppress(Exception), initialize_config_module("emoexp.conf", version_base="1.3"):
        node = OmegaConf.select(compose(name, choices), parent) if parent else None
    if not isinstance(node, DictConfig):
        yield f"error: {key} is no key of {name}"
        yield from suggestions(name, arguments)
        return
    if parent == "data" and node.get("name") == "faces":
        yield (
            f"error: {key}: the images of data=faces are drawn by this program, which reads no files for them. For "
            "images of your own add data=folder, for FER2013 data=fer2013"
        )
        return
    keys = [str(one) for one in node if one != "name"]
    group = options.GROUPS.get(parent, "")
    beside = ", ".join(f"{parent}.{one}" for one in keys) or "none"
    yield f"error: {key} is no key of {f'{group}={node.name}' if 'name' in node else parent}; there are {beside}"
    if near := difflib.get_close_matches(leaf, keys, n=1):
        yield f"did you mean {parent}.{near[0]}?"
    elif others := [option for option in options.listed(group) if group and leaf in options.option(group, option)]:
        yield f"{leaf} is a key of {', '.join(f'{group}={option}' for option in others)}"


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
    except (ValueError, ArithmeticError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (OSError, MemoryError, RuntimeError) as error:
        if (said := system_errors.explained(error)) is None:
            raise  # a fault of the program's
        print(f"error: {said}", file=sys.stderr)
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
            # a group is chosen by its folder, imbalance/loss=focal, not by its key
            names = dict.fromkeys(options.GROUPS.get(known, known) for known in keys)
            yield from _nearest(key, [known for known in names if "." in known] if "." in key else list(names), "")


def _nearest(name: str, candidates: list[str], prefix: str) -> Iterator[str]:
    if name not in candidates:
        similar = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
        same_ending = [key for key in candidates if re.split(r"[./]", key)[-1] == re.split(r"[./]", name)[-1]]
        if similar and difflib.SequenceMatcher(None, name, similar[0]).ratio() > ALONE:
            similar, same_ending = similar[:1], []
        if matches := list(dict.fromkeys([*same_ending, *similar])):
            yield f"did you mean {' or '.join(prefix + match for match in matches)}?"


def known_keys(name: str) -> list[str]:
    """Every key of a command and of every option, such as optimizer.lr, and every group."""
    root = OmegaConf.to_container(OmegaConf.create(options.text("", name) or ""))
    assert isinstance(root, dict)
    keys = list(_nested_keys("", {key: value for key, value in root.items() if key not in ("defaults", "hydra")}))
    keys += [*options.GROUPS, *options.GROUPS.values(), "experiment", "ablation"]
    for path, group in options.GROUPS.items():
        for choice in options.listed(group):
            keys += _nested_keys(f"{path}.", options.option(group, choice))
    return list(dict.fromkeys(keys))


def _nested_keys(prefix: str, node: Mapping[Any, Any]) -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _nested_keys(f"{prefix}{key}.", value)
