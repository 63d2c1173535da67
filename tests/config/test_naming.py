"""What a run is called: by its resolved choices, and by nothing else."""

import re

import pytest
from composing import checked
from hypothesis import given
from hypothesis import strategies as st

from emoexp.config import naming, options


def name(*overrides: str) -> str:
    return naming.name(checked(*overrides)[0])


def strategy(*overrides: str) -> str:
    return naming.strategy(checked(*overrides)[0].imbalance)


@pytest.mark.parametrize("row", options.listed("imbalance"))
def test_rows_are_called_by_their_names(row):
    experiment, _ = checked(f"imbalance={row}")  # every row composes, and its values are valid
    assert naming.strategy(experiment.imbalance) == experiment.imbalance.name == row


@pytest.mark.parametrize(
    ("overrides", "called"),
    [
        ("imbalance=sampler imbalance/loss=focal", "sampling_inverse.loss_focal"),
        ("imbalance=sampler imbalance/sampling=uniform", "none"),
        ("imbalance/sampling=inverse", "sampler"),
        ("imbalance/copies=cap imbalance/weights=inverse", "augment_weighted_loss"),
        ("imbalance=augment imbalance.copies.factor=8.0", "copies_cap_factor8.0"),
        ("imbalance=augment augmentation@imbalance.copies.transform=strong", "copies_cap_transformstrong"),
        ("imbalance.loss.smoothing=0.1", "loss_cross_entropy_smoothing0.1"),
    ],
)
def test_strategies_are_called_by_their_columns(overrides, called):
    assert strategy(*overrides.split()) == called


@pytest.mark.parametrize(
    "overrides",
    [
        "device=cpu",
        "threads=1",
        "outputs=elsewhere",
        "cache=null",
        "resume=force",
        "tracking=none",
        "allow=[mine]",
        "seed=0",
        "optimizer.lr=3e-3",
        "imbalance=none",
        "imbalance/loss=cross_entropy",
        "imbalance=sampler imbalance/sampling=uniform",
    ],
)
def test_names_do_not_depend_on_plumbing_or_on_defaults_spelt_out(overrides):
    assert name(*overrides.split()) == name()


def test_a_row_and_its_columns_are_one_run():
    assert name("imbalance=sampler") == name("imbalance/sampling=inverse")
    assert name("imbalance=augment") == name("imbalance/copies=cap")


def test_names_do_not_depend_on_where_the_data_lie():
    assert name("data=fer2013", "data.root=a") == name("data=fer2013", "data.root=b")


SCIENCE = [
    "seed=1",
    "epochs=3",
    "precision=bf16",
    "deterministic=true",
    "patience=null",
    "clip_norm=1.0",
    "optimizer.lr=1e-3",
    "optimizer=sgd",
    "activation=relu",
    "imbalance=sampler",
    "imbalance.epoch_size=originals",
    "imbalance/sampling=power imbalance.sampling.exponent=0.3",
    "imbalance/sampling=power imbalance.sampling.exponent=0.4",
    "data.size=8000",
    "split.seed=1",
    "augmentation=none",
    "augmentation.flip=0.4",
    "imbalance=augment",
    "imbalance=augment imbalance.copies.redraw=epoch",
    "imbalance=augment imbalance.copies.transform.rotate=3.0",
    "scheduler=cosine",
    "monitor=val/accuracy",
    "image_size=32",
    "channels=3",
]


def test_every_choice_has_a_name_of_its_own():
    names = [name(*overrides.split()) for overrides in SCIENCE]
    assert len({*names, name()}) == len(SCIENCE) + 1


def test_names_are_safe():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,160}", name(*overrides.split())) for overrides in SCIENCE)


def test_order_of_overrides_does_not_matter():
    assert name("seed=3", "activation=relu") == name("activation=relu", "seed=3")


@given(st.text(max_size=300))
def test_safe(text):
    assert re.fullmatch(r"[A-Za-z0-9._-]{0,150}", naming.safe(text))


def test_params_show_every_axis_and_value():
    flat = naming.params(checked("imbalance=sampler", "activation=mish")[0])
    assert flat["imbalance"] == "sampler" and flat["imbalance.sampling"] == "inverse" and flat["activation"] == "mish"
    assert flat["optimizer.lr"] == 3e-3 and flat["seed"] == 0 and flat["architecture"] == "emotion_cnn"
    assert not any("_target_" in key for key in flat)
