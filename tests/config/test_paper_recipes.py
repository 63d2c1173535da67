"""Experiments that carry the recipe of a paper's own code: what they set, and that they are CIFAR-10-LT otherwise."""

import pytest
from composing import checked

from emoexp.config import naming, options

RECIPES = {
    "drw": {"weight_scale": "batch"},
    "ldam_drw": {"weight_scale": "batch"},
    "influence_balanced": {"weight_scale": "sum_to_classes", "alpha": 1000.0, "rate": 0.01},
    "class_balanced_focal": {"weight_scale": "sum_to_classes"},
    "remix_drw": {"weight_scale": "sum_to_classes"},
}


def test_every_paper_recipe_is_listed():
    found = {
        name.removeprefix("cifar10_lt_") for name in options.listed("experiment") if name.startswith("cifar10_lt_")
    }
    assert found == set(RECIPES)


@pytest.mark.parametrize("row", RECIPES)
def test_a_recipe_is_the_row_with_its_authors_values(row):
    base, recipe = (checked(f"experiment={name}", "data.root=x")[0] for name in ("cifar10_lt", f"cifar10_lt_{row}"))
    plain = recipe.plain()
    if "alpha" not in RECIPES[row]:
        assert naming.strategy(recipe.imbalance) == f"{row}.weight_scale_{RECIPES[row]['weight_scale']}"
    assert plain["imbalance"]["weight_scale"] == RECIPES[row]["weight_scale"]
    if "alpha" in RECIPES[row]:
        assert plain["imbalance"]["loss"]["alpha"] == RECIPES[row]["alpha"]
        assert plain["imbalance"]["schedule"]["rate"] == RECIPES[row]["rate"]
    others = {key for key, value in plain.items() if key != "imbalance" and value != base.plain()[key]}
    assert others == {"augmentation"} and plain["augmentation"] == base.plain()["augmentation"] | {"pad": "black"}
