"""The configuration: what is allowed, what is refused, and how a person is told."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from composing import checked, composed
from omegaconf import OmegaConf

from emoexp import cli
from emoexp.config import build, options, schema

CONF = Path(__file__).parents[2] / "conf"
OPTIONS = [(group, option) for group in dict.fromkeys(schema.GROUPS.values()) for option in options.listed(group)]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_is_valid(group, option):
    overrides = [f"{group}={option}"]
    if group == "data" and option != "faces":
        overrides.append("data.root=somewhere")
    if option == "deferred":
        overrides.append("imbalance/weights=inverse")  # what comes late has to be something
    experiment, machine = checked(*overrides)
    node = machine.tracking if group == "tracking" else experiment
    for key in group.split("/") if group != "tracking" else []:
        node = node[key] if isinstance(node, dict) else getattr(node, key)
    assert node["name"] == option


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_says_what_it_is(group, option):
    text = (CONF / group / f"{option}.yaml").read_text()
    assert text.startswith("# ") and len(options.listed(group)[option]) >= 10
    assert options.option(group, option)["name"] == option == OmegaConf.create({"x": option}).x


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("epochs=0", "epochs is at least 1; it is 0"),
        ("batch_size=1", "batch_size is at least 2"),
        ("channels=2", "channels is one of 1, 3; it is 2"),
        ("precision=fp8", "precision is one of fp32, tf32, bf16"),
        ("resume=maybe", "resume is one of auto, force, never"),
        ("monitor=val/f1", "monitor is one of val/macro_f1"),
        ("clip_norm=-1", "clip_norm is above 0"),
        ("optimizer.lr=nan", "optimizer.lr is a number"),
        ("architecture.widths=[a,b]", "architecture.widths is a list"),
        ("~activation.name", "activation: the option's file has no name"),
        ("activation._partial_=false", "needs _partial_: true"),
        ("seed=-1", "seed is a whole number"),
        ("optimizer.lr=abc", "optimizer.lr is a number; it is 'abc'"),
        ("optimizer.fused=3", "optimizer.fused is true or false"),
        ("architecture.dense=1.5", "architecture.dense is a whole number"),
        ("architecture.widths=3", "architecture.widths is a list"),
        ("imbalance/loss=focal imbalance.loss.gamma=yes", "imbalance.loss.gamma is a number"),
        ("monitor=epoch", "monitor=epoch keeps the last epoch, and each is later than the one before: patience=10"),
        ("monitor=epoch patience=null scheduler=plateau", "scheduler=plateau waits for a monitored value"),
        ("scheduler=steps scheduler.at=0.8", "scheduler.at is a list"),
    ],
)
def test_wrong_values_are_named(override, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        checked(*override.split())


def test_the_last_epoch_may_count():
    assert checked("monitor=epoch", "patience=null")[0].monitor == "epoch"


@pytest.mark.parametrize("experiment", options.listed("experiment"))
def test_every_experiment_composes_and_is_valid(experiment):
    assert checked(f"experiment={experiment}")[0].epochs >= 1


@pytest.mark.parametrize("override", ["epochs=many", "deterministic=7.5", "threads=two"])
def test_hydra_checks_the_scalars(override):
    with pytest.raises(Exception, match=override.partition("=")[0]):
        composed(override)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.hub.load",
        "builtins.eval",
        "emoexpert.x",
        "emoexp",
        "os",
        "emoexp.rng;os.system",
    ],
)
@pytest.mark.parametrize("place", ["activation._target_", "imbalance.loss._target_", "+activation.deep.er._target_"])
def test_targets_outside_the_allowed_packages_are_refused(place, target):
    with pytest.raises(ValueError, match="may be built"):
        checked(f"{place}='{target}'")


def test_targets_in_lists_are_seen():
    with pytest.raises(ValueError, match="may be built"):
        checked("+activation.parts=[{_target_: os.system}]")


def test_commands_are_no_targets():
    with pytest.raises(ValueError, match="which is a command"):
        checked("activation._target_=emoexp.train.main")


def test_an_alias_of_something_else_is_refused():
    with pytest.raises(ValueError, match="stands for something of"):
        build.instantiate({"_target_": "emoexp.runs.files.os.mkdir"}, [])


def test_a_package_of_ones_own_is_let_in_by_name():
    with pytest.raises(ValueError, match=re.escape("add allow=[json]")):
        build.instantiate({"_target_": "json.dumps"}, [])
    assert build.instantiate({"_target_": "json.dumps", "obj": [1]}, ["json"]) == "[1]"


def test_a_target_that_is_not_there():
    with pytest.raises(ValueError, match=r"emoexp\.rng\.nothing cannot be found"):
        build.instantiate({"_target_": "emoexp.rng.nothing"}, [])


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("activation=mihs", "activation=mish"),
        ("imbalance=samplr", "imbalance=sampler"),
        ("imbalance/loss=focl", "imbalance/loss=focal"),
        ("epoch=3", "epochs"),
        ("optimizer.learning_rate=1", "optimizer."),
        ("lr=0.1", "optimizer.lr"),
    ],
)
def test_the_nearest_name_is_offered(argument, hint):
    if argument == "optimizer.learning_rate=1":
        assert not any("mish" in line for line in cli.suggestions("train", [argument]))
    else:
        assert any(hint in line for line in cli.suggestions("train", [argument]))


def run(*arguments: str, **keys) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emoexp.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **keys)


def test_a_misspelt_option_on_the_command_line(tmp_path):
    done = run("activation=mihs", cwd=tmp_path)
    assert done.returncode == 1 and "did you mean activation=mish?" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_a_wrong_value_on_the_command_line(tmp_path):
    done = run("precision=fp8", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: precision is one of")
    assert not list(tmp_path.iterdir())


def test_help_lists_every_option_without_heavy_imports(tmp_path):
    code = (
        "import sys; sys.argv = ['train', '--help']; from emoexp import train; train.main();"
        "print({name for name in ('torch', 'mlflow', 'sklearn', 'matplotlib') if name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.rstrip().endswith("set()")
    for group, option in OPTIONS:
        assert f"  {option} " in done.stdout, (group, option)
    for scalar in ("seed", "epochs", "batch_size", "image_size", "device", "threads", "monitor", "patience"):
        assert f"\n{scalar}: " in done.stdout


def test_configuration_is_checked_before_torch_is_imported(tmp_path):
    code = (
        "import sys; sys.argv = ['train', 'precision=fp8']; from emoexp import train\n"
        "try: train.main()\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.strip() == "False"
