"""Choices that each are allowed and do not go together: refused before anything is read or trained."""

from typing import Any

from emoexp.config import options

Node = dict[str, Any]
LEAKING = "pared_down_vgg"  # the one experiment that may choose protocol=leaky


def check(plain: Node) -> None:
    """Refuse what does not go together in a training's plain configuration.

    Raises:
        ValueError: names the two, and which to change.
    """
    _check_protocol(plain)
    _check_long_tail(plain["data"])
    _check_deferred(plain["imbalance"])
    _check_monitor(plain)


def _check_protocol(plain: Node) -> None:
    if plain["protocol"] != "leaky":
        return
    if plain["experiment"] != LEAKING:
        raise ValueError(f"protocol=leaky copies before the split, a breach that only experiment={LEAKING} may show")
    profile = _long_tail(plain["data"])["profile"]
    if profile != "none":
        raise ValueError(
            f"data.long_tail.profile={profile} takes images out of training after the split, and protocol=leaky makes "
            "its copies before it; leave data.long_tail.profile=none, or protocol=clean"
        )


def _check_long_tail(data: Node) -> None:
    """Values of a long tail that is not made."""
    node, usual = _long_tail(data), _long_tail(options.option("data", data["name"]))
    for key, value in node.items() if node["profile"] == "none" else ():
        if value != usual.get(key, value):
            raise ValueError(
                f"data.long_tail.{key}={value} does nothing where data.long_tail.profile is none; choose "
                "data.long_tail.profile=exponential or step as well"
            )


def _check_deferred(imbalance: Node) -> None:
    """Columns that come late or go early and do nothing even then; a classifier may be retrained all the same."""
    schedule, usual = imbalance["schedule"], options.chosen("imbalance", "none")
    if schedule.get("retrain", "none") != "none":
        return
    for when in ("late", "early"):
        for column in schedule.get(when, []):
            node = imbalance.get(column)  # a word that is no column is refused where the schedule is made
            if node and node["name"] == usual[column] and not node.get("smoothing"):
                raise ValueError(
                    f"imbalance.schedule.{when} names {column}, but imbalance/{column}={node['name']} does nothing "
                    f"anyway; choose another imbalance/{column}, or name what should be: "
                    f"'imbalance.schedule.{when}=[...]', of sampling, weights, loss, mix"
                )


def _long_tail(data: Node) -> Node:
    node: Node = data.get("long_tail") or {"profile": "none"}
    return node


def _check_monitor(plain: Node) -> None:
    """The last epoch counts, beside what stops or slows when the monitored value is no better."""
    if plain["monitor"] != "epoch":
        return
    if plain["patience"] is not None:
        raise ValueError(
            f"monitor=epoch keeps the last epoch, and each is later than the one before: patience={plain['patience']} "
            "could never stop. Add patience=null, or monitor a value of validation such as val/macro_f1"
        )
    if plain["scheduler"].get("name") == "plateau":
        raise ValueError(
            "scheduler=plateau waits for a monitored value that is no longer better, and monitor=epoch always is; "
            "choose another scheduler, or monitor a value of validation such as val/macro_f1"
        )
