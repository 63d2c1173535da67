"""A run folder from a stranger: nothing in it runs code, is followed elsewhere, or is believed unchecked."""

import dataclasses
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import tiny

from emoexp.inference import trained
from emoexp.runs import checkpoint
from emoexp.training import run as training

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    """A finished run, with a fit."""
    folder = tmp_path_factory.mktemp("honest")
    training.train(*tiny(folder, "epochs=1", "imbalance/posthoc=logit_adjustment", "threads=1"))
    (run,) = (folder / "outputs").iterdir()
    return run


@pytest.fixture
def received(honest, tmp_path) -> Path:
    """A copy of it, which a test alters."""
    return shutil.copytree(honest, tmp_path / "received")


def load(run: Path, allow: tuple[str, ...] = ()) -> trained.TrainedModel:
    return trained.load(str(run), "cpu", None, None, list(allow))


def altered(run: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """best.pt with a change, and the checksum that belongs to it."""
    best = checkpoint.load(run / "best.pt")
    change(best)
    checkpoint.save(run / "best.pt", best)
    return run


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change that sets a value."""

    def change(best: dict[str, Any]) -> None:
        node: Any = best
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    """A change that takes a key away."""

    def change(best: dict[str, Any]) -> None:
        node: Any = best
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]

    return change


def spoil_weights(best: dict[str, Any]) -> None:
    next(iter(best["model"].values())).view(-1)[0] = math.nan


def rename_weight(best: dict[str, Any]) -> None:
    best["model"]["other"] = best["model"].pop(next(iter(best["model"])))


def more_weights(best: dict[str, Any]) -> None:
    best["model"]["other"] = torch.zeros(3)


def narrow_weight(best: dict[str, Any]) -> None:
    name = next(iter(best["model"]))
    best["model"][name] = best["model"][name][:1].clone()


def other_type(best: dict[str, Any]) -> None:
    name = next(iter(best["model"]))
    best["model"][name] = best["model"][name].double()


CLASSES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
SPEC = "model_spec"
ELU = {"name": "mine", "_target_": "torch.nn.ELU", "_partial_": True}
ALTERED = {
    "class names too few": (put(SPEC, "class_names", value=CLASSES[:3]), "is an index into 3 classes|of shape"),
    "class names too many": (put(SPEC, "class_names", value=[*CLASSES, "x", "y"]), r"of shape \[9"),
    "class names are numbers": (put(SPEC, "class_names", value=[1, 2, 3, 4, 5, 6, 7]), "class_names is a list of 2"),
    "class names all the same": (put(SPEC, "class_names", value=["a"] * 7), "class_names are distinct"),
    "class names a text": (put(SPEC, "class_names", value="angry"), "class_names is a list of 2"),
    "image size of a million": (put(SPEC, "image_size", value=10**6), "from 8 to 4096; it is 1000000"),
    "image size a text": (put(SPEC, "image_size", value="48"), "image_size is a whole number"),
    "image size of another network": (put(SPEC, "image_size", value=32), "of shape"),
    "four channels": (put(SPEC, "channels", value=4), "channels is one of 1, 3; it is 4"),
    "other channels": (put(SPEC, "channels", value=3), "of shape"),
    "no mean": (drop(SPEC, "mean"), r"model_spec\.mean is missing"),
    "mean nan": (put(SPEC, "mean", value=math.nan), r"model_spec\.mean is a number from 0 to 1; it is nan"),
    "mean a list": (put(SPEC, "mean", value=[0.5]), r"model_spec\.mean is a number"),
    "std zero": (put(SPEC, "std", value=0.0), r"model_spec\.std is a number above 0; it is 0\.0"),
    "std infinite": (put(SPEC, "std", value=math.inf), r"model_spec\.std is a number above 0; it is inf"),
    "no model": (drop("model"), "model is missing"),
    "model a list": (put("model", value=[1]), "model holds tensors by their names"),
    "model of numbers": (put("model", value={"a": 1.0}), r"model\.a is a tensor; it is of type float"),
    "weights nan": (spoil_weights, "numbers that are not finite"),
    "weights of another shape": (narrow_weight, r"of shape .* in the file"),
    "weights of another type": (other_type, r"in the file it is torch\.float64"),
    "a weight renamed": (rename_weight, "is missing: the specification describes"),
    "a weight too many": (more_weights, r"model\.other has no place in the network"),
    "widths that no memory holds": (put(SPEC, "architecture", "widths", value=[60000, 60000]), "of shape"),
    "widths negative": (put(SPEC, "architecture", "widths", value=[-1]), "widths is a list of 1 or more whole"),
    "an unknown network": (put(SPEC, "architecture", "name", value="gpt"), "architecture=gpt is none of"),
    "an unknown key": (put(SPEC, "architecture", "depth", value=3), r"architecture\.depth is no key"),
    "a network that is a list": (put(SPEC, "architecture", value=[1]), "architecture is an option, a node"),
    "a description that is a list": (put(SPEC, value=[1]), "model_spec is a node of keys"),
    "an unknown head": (put(SPEC, "head", value={"kind": "tanh"}), r"head\.kind is one of"),
    "precision fp8": (put(SPEC, "precision", value="fp8"), "precision is one of fp32, tf32, bf16; it is fp8"),
    "majority 99": (put(SPEC, "majority", value=99), "majority is an index into 7 classes; it is 99"),
    "majority negative": (put(SPEC, "majority", value=-1), "majority is a whole number from 0 on"),
    "an unknown protocol": (put(SPEC, "protocol", value="mine"), "protocol is one of clean, leaky"),
    "epoch zero": (put("epoch", value="0"), "epoch is a whole number from 1 on; it is 0"),
    "a key of nobody's": (put("x", value=1), "x is no key of best.pt"),
    "fit a text": (put("posthoc", value="x"), "posthoc is a node of keys"),
    "fit without its scale": (drop("posthoc", "scale"), "a stored fit holds"),
    "fit scale nan": (put("posthoc", "scale", value=math.nan), r"posthoc\.scale is a number above 0"),
    "fit of other classes": (put("posthoc", "shift_C", value=torch.zeros(3)), r"posthoc\.shift_C .*7 classes"),
    "fit nan": (put("posthoc", "shift_C", value=torch.full((7,), math.nan)), "not finite"),
    "fit a number": (put("posthoc", "weight_CF", value=3.0), r"posthoc\.weight_CF is a tensor"),
    "interpolation": (put(SPEC, "activation", value=ELU | {"alpha": "${oc.env:HOME}"}), "is a plain value"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_best_model_is_one_error_that_names_the_file_and_the_key(name, received):
    change, told = ALTERED[name]
    altered(received, change)
    with pytest.raises(ValueError, match=told) as caught:
        load(received)
    assert str(caught.value).startswith(f"{received / 'best.pt'}: ") and len(str(caught.value).splitlines()) == 1


def test_an_honest_model_is_loaded(received):
    assert load(received).spec["class_names"] == CLASSES


FORGED = {
    "nested": {"_target_": "emoexp.checkpoint.torch.utils.collect_env.run", "_args_": ["touch PWNED"]},
    "nested allowed": {"_target_": "torch.utils.collect_env.run", "_args_": ["touch PWNED"]},
    "nested in a list": [{"_target_": "os.system", "command": "touch PWNED"}],
}
OUTERMOST = [
    "emoexp.models.compiler.library",
    "emoexp.runs.files.write_json",
    "emoexp.config.build.build_object",
    "torch.load",
    "torch.utils.cpp_extension.load_inline",
    "os.symlink",
]


@pytest.mark.parametrize("slot", ["activation", "architecture"])
@pytest.mark.parametrize("forged", FORGED)
def test_what_is_hidden_in_an_option_is_not_built(slot, forged, received, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    altered(received, put(SPEC, slot, "x", value=FORGED[forged]))
    with pytest.raises(ValueError, match=rf"{slot}\.x is no key of model_spec\.{slot}="):
        load(received)
    altered(received, put(SPEC, slot, value=ELU | {"x": FORGED[forged]}))
    with pytest.raises(ValueError, match=rf"best\.pt: model_spec\.{slot}\."):
        load(received, allow=("torch",))
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("slot", ["activation", "architecture"])
@pytest.mark.parametrize("target", OUTERMOST)
def test_no_function_of_ours_or_torchs_is_called_by_name(slot, target, received):
    altered(received, put(SPEC, slot, value={"name": "mine", "_target_": target, "_partial_": True}))
    with pytest.raises(ValueError, match=re.escape(f"model_spec.{slot}._target_ is {target}; here may be built: ")):
        load(received)


@pytest.mark.parametrize("name", ["best.pt", "seen.npy", "figures", "config.yaml"])
def test_a_link_in_a_run_folder_is_refused(name, received, tmp_path):
    target = (received / name).rename(tmp_path / "elsewhere")
    (received / name).symlink_to(target)
    with pytest.raises(ValueError, match=re.escape(f"{received / name} is a link; a run's folder holds plain files")):
        load(received)


def test_a_pipe_in_a_run_folder_is_refused(received):
    os.mkfifo(received / "tables" / "x.csv")
    with pytest.raises(ValueError, match=r"x\.csv is no plain file"):
        load(received)


@pytest.mark.parametrize("name", ["seen.npy", "run.log", "lock", "history.jsonl"])
def test_training_never_writes_through_a_link(name, tmp_path):
    words = tiny(tmp_path, "epochs=1", "threads=1")
    training.train(*words)
    (run,) = (tmp_path / "outputs").iterdir()
    other = tmp_path / "other"
    other.write_text("mine")
    (run / name).unlink()
    (run / name).symlink_to(other)
    (run / "status.json").write_text((run / "status.json").read_text().replace("FINISHED", "KILLED"))
    with pytest.raises(ValueError, match=f"{name} is a link"):
        training.train(*words)
    assert other.read_text() == "mine"


def test_what_a_killed_process_left_anywhere_in_the_folder_is_removed(tmp_path):
    words = tiny(tmp_path, "epochs=1", "threads=1")
    training.train(*words)
    (run,) = (tmp_path / "outputs").iterdir()
    left = [run / "tables" / ".test_per_class.csv.77.140.tmp", run / "predictions" / ".val.npz.77.tmp"]
    for path in left:
        path.write_text("half")
    training.train(*words)
    assert not [path for path in left if path.exists()]


LAST = {
    "epoch -1": (put("epoch", value=-1), "epoch is a whole number from 0 to 2; it is -1"),
    "epoch 99": (put("epoch", value=99), "epoch is a whole number from 0 to 2; it is 99"),
    "epoch a text": (put("epoch", value="1"), "epoch is a whole number from 0 to 2; it is 1"),
    "epoch without its row": (put("epoch", value=2), "history has a row for each of the 2 finished epochs; it has 1"),
    "step of a billion": (put("step", value=10**9), "step is a whole number from 0 to .*; it is 1000000000"),
    "history of numbers": (put("history", value=[1]), "history is a list of rows"),
    "history of another epoch": (put("history", 0, "epoch", value=7), "history has a row for each"),
    "weights nan": (spoil_weights, "numbers that are not finite"),
    "weights of another shape": (narrow_weight, "of shape"),
    "no optimizer": (drop("optimizer"), "optimizer is missing"),
    "an optimizer of others": (put("optimizer", value={"state": {}, "param_groups": []}), "optimizer.param_groups has"),
    "an optimizer that is a text": (put("optimizer", value="sgd"), "Delete the file"),
    "sums of others": (put("running", value={"x": torch.zeros(1)}), "running\\.x is a tensor of 0 dimensions"),
    "a key of nobody's": (put("x", value=1), "x is no key of last.pt"),
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> tuple[Path, Any]:
    """A run that was killed after the first of two epochs, and the words that continue it."""
    folder = tmp_path_factory.mktemp("interrupted")
    words = tiny(folder, "epochs=2", "threads=1")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "epoch_line", interrupt)
        training.train(*words)
    return folder, words


def interrupt(*ignored: object) -> str:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", LAST)
def test_training_does_not_go_on_from_what_it_cannot_have_written(name, interrupted, tmp_path):
    folder, words = interrupted
    change, told = LAST[name]
    (run,) = (folder / "outputs").iterdir()
    shutil.copytree(run, tmp_path / "outputs" / run.name)
    last = tmp_path / "outputs" / run.name / "last.pt"
    payload = checkpoint.load(last)
    change(payload)
    checkpoint.save(last, payload)
    experiment, machine = words
    with pytest.raises(ValueError, match=told) as caught:
        training.train(experiment, dataclasses.replace(machine, outputs=str(tmp_path / "outputs")))
    assert str(caught.value).startswith(f"{last}: ") and len(str(caught.value).splitlines()) == 1
