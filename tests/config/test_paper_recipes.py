"""Experiments that carry the recipe of a paper's own code: what they set, and that they are CIFAR-10-LT otherwise."""

from typing import Any

import pytest
from composing import checked

from emoexp.config import naming, options

RECIPES: dict[str, dict[str, Any]] = {  # keys of the plain experiment, by path
    "drw": {"imbalance.weight_scale": "batch"},
    "ldam_drw": {"imbalance.weight_scale": "batch"},
    "influence_balanced": {
        "imbalance.weight_scale": "sum_to_classes",
        "imbalance.loss.alpha": 1000.0,
        "imbalance.schedule.rate": 0.01,
    },
    "class_balanced_focal": {"imbalance.weight_scale": "sum_to_classes"},
    "remix_drw": {"imbalance.weight_scale": "sum_to_classes"},
    "mislas": {
        "epochs": 210,
        "scheduler.factors": [0.1, 0.01],
        "imbalance.schedule.start": 0.9524,
        "imbalance.schedule.rates": "cosine",
    },
    "crt": {"epochs": 230, "imbalance.schedule.start": 0.8696, "imbalance.schedule.rates": "thirds"},
    "lws": {"epochs": 230, "imbalance.schedule.start": 0.8696, "imbalance.schedule.rates": "thirds"},
    "tau_norm": {"imbalance.posthoc.bias": "keep"},
    "mixup": {"epochs": 400},
    "cmo": {"imbalance.mix.box": "floored"},
}


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_every_paper_recipe_is_listed():
    prefix = "cifar10_lt_"
    found = {name.removeprefix(prefix) for name in options.listed("experiment") if name.startswith(prefix)}
    assert found == set(RECIPES)


@pytest.mark.parametrize("row", RECIPES)
def test_a_recipe_is_the_row_with_its_authors_values_and_nothing_else(row):
    words = [["experiment=cifar10_lt", f"imbalance={row}"], [f"experiment=cifar10_lt_{row}"]]
    base, recipe = (flat(checked(*chosen, "data.root=x")[0].plain()) for chosen in words)
    different = {key: value for key, value in recipe.items() if value != base[key]}
    assert different == RECIPES[row] | {"augmentation.pad": "black"}


def test_stages_end_where_the_papers_say():
    for row, first, epochs in (("mislas", 200, 210), ("crt", 200, 230), ("lws", 200, 230)):
        experiment = checked(f"experiment=cifar10_lt_{row}", "data.root=x")[0]
        assert experiment.epochs == epochs
        assert experiment.imbalance.schedule.build().second_stage_start(epochs) == first


def test_names_say_that_a_recipe_is_another():
    names = {row: naming.name(checked(f"experiment=cifar10_lt_{row}", "data.root=x")[0]) for row in RECIPES}
    usual = {
        row: naming.name(checked("experiment=cifar10_lt", f"imbalance={row}", "data.root=x")[0]) for row in RECIPES
    }
    assert not set(names.values()) & set(usual.values()) and len(set(names.values())) == len(RECIPES)
