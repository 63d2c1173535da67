"""The configuration: what is allowed, what is refused, and how a person is told."""

import copy
import dataclasses
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import torch
from composing import checked, composed
from omegaconf import OmegaConf

from emoexp import cli
from emoexp.config import build, checks, fields, option, options, schema
from emoexp.config.data import Augmentation, Leaks, LongTail, Official, OnCorrupt, Parts
from emoexp.config.imbalance import Loss
from emoexp.config.models import Activation, Architecture, Head, Mish
from emoexp.config.optimizers import Optimizer
from emoexp.data import images, leaks, long_tail, splits
from emoexp.models import mish

CONF = Path(__file__).parents[2] / "conf"
OPTIONS = [(group, option) for group in dict.fromkeys(options.GROUPS.values()) for option in options.listed(group)]


OTHERS = {group: list(options.listed(group)) for group, _ in OPTIONS if group not in ("imbalance", "data")}


@pytest.mark.parametrize("data", options.listed("data"))
def test_every_data_set_composes_and_is_valid(data):
    experiment, _ = checked(f"data={data}", *([] if data == "faces" else ["data.root=somewhere"]))
    assert experiment.data.name == data


@pytest.mark.parametrize("names", list(zip_longest(*OTHERS.values())), ids=str)
def test_every_other_option_composes_and_is_valid(names):
    """One option of each group at a time, as composing takes a sixth of a second."""
    chosen = {group: name for group, name in zip(OTHERS, names, strict=True) if name}
    experiment, machine = checked(*(f"{group}={name}" for group, name in chosen.items()))
    for group, name in chosen.items():
        node = machine if group == "tracking" else experiment
        for key in group.split("/"):
            node = getattr(node, key)
        assert node.name == name


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_says_what_it_is(group, option):
    text = (CONF / group / f"{option}.yaml").read_text()
    assert text.startswith("# ") and len(options.listed(group)[option]) >= 10
    assert options.option(group, option)["name"] == option == OmegaConf.create({"x": option}).x


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("imbalance.loss=focal", "it is focal; an option is chosen by imbalance/loss=focal"),
        ("epochs=0", "epochs is a whole number from 1 on; it is 0"),
        ("epochs=many", "epochs is a whole number from 1 on; it is many"),
        ("batch_size=1", "batch_size is a whole number from 2 on; it is 1"),
        ("channels=2", "channels is one of 1, 3; it is 2"),
        ("precision=fp8", "precision is one of fp32, tf32, bf16; it is fp8"),
        ("deterministic=7.5", "deterministic is true or false; it is 7.5"),
        ("threads=two", "threads is a whole number from 1 on, or null; it is two"),
        ("resume=maybe", "resume is one of auto, force, never"),
        ("monitor=val/f1", "monitor is one of val/macro_f1"),
        ("clip_norm=-1", "clip_norm is a number above 0, or null; it is -1"),
        ("seed=-1", "seed is a whole number from 0 to below 2^63; it is -1"),
        ("allow=mine", "allow is a list of texts; it is mine"),
        ("+epoch=3", "epoch is no key of train; there are seed, epochs,"),
        ("optimizer.lr=nan", "optimizer.lr is a number above 0; it is nan"),
        ("optimizer.lr=-1", "optimizer.lr is a number above 0; it is -1"),
        ("optimizer.lr=abc", "optimizer.lr is a number above 0; it is abc"),
        ("optimizer.fused=3", "optimizer.fused is true or false; it is 3"),
        ("optimizer.betas=[0.9]", "optimizer.betas is a list of 2 numbers from 0 to below 1; it is [0.9]"),
        ("+optimizer.wieght_decay=3", "optimizer.wieght_decay is no key of optimizer=adamw; there are name, lr,"),
        ("+optimizer.wieght_decay=3", "did you mean weight_decay?"),
        ("optimizer.tail=0.5", "optimizer.tail=0.5 does nothing where optimizer.rho is 0"),
        ("optimizer=sgd optimizer.momentum=0", "optimizer.nesterov=true needs a momentum"),
        ("architecture.dropout=2", "architecture.dropout is a number from 0 to below 1; it is 2"),
        (
            "architecture.widths=[a,b]",
            "architecture.widths is a list of 1 or more whole numbers from 1 to 65536; it is",
        ),
        ("architecture.widths=3", "architecture.widths is a list"),
        ("architecture.dense=1.5", "architecture.dense is a whole number from 1 to 65536; it is 1.5"),
        ("architecture=resnet32 architecture.depth=33", "architecture.depth is 6n + 2"),
        ("architecture=vgg_a image_size=16", "architecture=vgg_a needs image_size of at least 32; it is 16"),
        (
            "activation.name=mihs",
            "activation=mihs is none of elu, gelu, leaky_relu, mish, relu, swish; did you mean",
        ),
        ("~activation.name", "activation: the option's file has no name"),
        (
            "+activation._target_=torch.nn.Hardswish",
            "_target_ is torch.nn.Hardswish, but activation=mish is",
        ),
        ("scheduler=plateau scheduler.factor=1", "scheduler.factor is a number above 0 to below 1; it is 1"),
        ("scheduler=steps scheduler.at=0.8", "scheduler.at is a list of numbers above 0 to 1; it is 0.8"),
        ("scheduler=steps scheduler.at=[0.9,0.8]", "scheduler.at is a list of shares of the training that rise"),
        ("scheduler=steps scheduler.at=[0.9]", "scheduler.factors has one factor for each share of scheduler.at"),
        (
            "imbalance.epoch_size=0",
            "imbalance.epoch_size is one of pool, originals, or a whole number from 1 on",
        ),
        ("imbalance/loss=focal imbalance.loss.gamma=yes", "imbalance.loss.gamma is a number from 0 on; it is yes"),
        ("imbalance/mix=mixup imbalance.mix.alpha=nan", "imbalance.mix.alpha is a number above 0; it is nan"),
        ("imbalance/mix=remix imbalance.mix.tau=0", "imbalance.mix.kappa=3.0 does nothing where tau is 0"),
        ("imbalance=crt imbalance.schedule.start=0", "imbalance.schedule.start=0 leaves one stage"),
        (
            "imbalance=drw imbalance.schedule.late=[wieghts]",
            "imbalance.schedule.late is a list of words among",
        ),
        ("imbalance=drw imbalance.schedule.early=[weights]", "weights is both late and early; it would never act"),
        ("imbalance/posthoc=offsets imbalance.posthoc.most=0.01", "imbalance.posthoc.most is from one to 10000 times"),
        (
            "imbalance=augment imbalance.copies.transform.flip=2",
            "imbalance.copies.transform.flip is a number from",
        ),
        (
            "augmentation.translate_step=0.1",
            "augmentation.translate_step=0.1 is larger than",
        ),
        ("data.intensity=[1,0]", "data.intensity is the weakest, then the strongest; it is [1, 0]"),
        ("data=folder data.identity='(a)(b)'", "data.identity='(a)(b)' has 2 groups; exactly one must hold"),
        ("data=folder data.identity='('", "data.identity='(' is no regular expression"),
        ("split.val=0.6 split.test=0.5", "leave nothing for training"),
        ("split=kfold split.fold=5", "split.fold is from 0 to 4"),
        ("tracking.uri=folder", "is a folder, and MLflow no longer keeps runs in folders"),
        ("tracking.timeout_s=0", "tracking.timeout_s is a number above 0 to below 3600; it is 0"),
        ("monitor=epoch", "monitor=epoch keeps the last epoch, and each is later than the one before: patience=10"),
        ("monitor=epoch patience=null scheduler=plateau", "scheduler=plateau waits for a monitored value"),
    ],
)
def test_wrong_values_are_named(override, told):
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        checked(*override.split())
    assert "\n" not in str(caught.value)


def values_outside(kind: Any) -> Iterator[Any]:
    """Values that a field's kind does not allow: below and above its range, not finite, and of another type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        yield from (value for value in values_outside(inner[0]) if value is not None)
    elif origin is Annotated:
        yield from values_outside(inner[0])
        for mark in inner[1:]:
            yield from outside(mark, inner[0])
    elif origin is Literal:
        yield from ("another", 0.5, None)
    elif origin is list:
        yield from ("text", None, 1.5, *([value] for value in values_outside(inner[0])))
    elif kind is float:
        yield from (math.nan, math.inf, "text", None, True, [1.0])
    elif kind is int:
        yield from (1.5, "text", None, True, math.nan)
    elif kind is bool:
        yield from (1, "text", None)
    elif kind is str:
        yield from (3, None, ["text"])


def outside(mark: fields.Range | fields.Length, kind: Any) -> Iterator[Any]:
    """Just below and above what a range or a length allows."""
    if isinstance(mark, fields.Length):
        yield "" if kind is str else []
        if mark.most is not None:
            yield "x" * (mark.most + 1) if kind is str else [0.5] * (mark.most + 1)
        return
    step = 1 if kind is int else 1e-9
    yield from (int(end) if kind is int else end for end in (mark.above, mark.below) if end is not None)
    yield from (kind(end) - step for end in (mark.least,) if end is not None)
    yield from (kind(end) + step for end in (mark.most,) if end is not None)


def every_field() -> Iterator[tuple[str, str, str, Any]]:
    """Each field of each option: its folder, the option's name, the field's path in it and its kind."""
    for folder, base in schema.BASES.items():
        for name, known in base.known.items():
            for key, kind in fields.kinds(known).items():
                if kind is LongTail:
                    yield from ((folder, name, f"{key}.{inner}", its) for inner, its in fields.kinds(kind).items())
                elif key != "name" and kind is not Augmentation:
                    yield folder, name, key, kind


@cache
def composed_option(folder: str, name: str) -> dict[str, Any]:
    usual = options.option(folder, name)
    return usual | ({"transform": options.option("augmentation", "standard")} if "redraw" in usual else {})


FIELDS = [pytest.param(*field, id="-".join(field[:3])) for field in every_field()]


@pytest.mark.parametrize(("folder", "name", "key", "kind"), FIELDS)
def test_every_field_refuses_what_is_outside(folder, name, key, kind):
    path, usual = folder.replace("/", "."), composed_option(folder, name)
    assert option.read(schema.BASES[folder], usual, path).plain() == usual
    tried = list(values_outside(kind))
    assert len(tried) >= 2
    for value in tried:
        node = copy.deepcopy(usual)
        holder = node["long_tail"] if "." in key else node
        holder[key.rpartition(".")[2]] = value
        told = f"{path}.{key} is {fields.described(kind)}; it is {fields.shown(value)}"
        with pytest.raises(ValueError, match=re.escape(told)):
            option.read(schema.BASES[folder], node, path)


@pytest.mark.parametrize("root", [schema.Experiment, schema.Machine, schema.Sweep])
def test_every_scalar_of_the_root_refuses_what_is_outside(root):
    whole = dict(OmegaConf.to_container(composed(), throw_on_missing=True))
    for key, kind in fields.kinds(root).items():
        if isinstance(kind, type) and issubclass(kind, option.Values):
            continue
        for value in values_outside(kind):
            if fields.described(kind).startswith("text") and value == 3:
                continue  # a folder may be called 3
            told = f"{key} is {fields.described(kind)}; it is {fields.shown(value)}"
            with pytest.raises(ValueError, match=re.escape(told)):
                check = checks.sweep_of if root is schema.Sweep else checks.checked
                check(OmegaConf.create(whole | {key: value}))


@pytest.mark.parametrize("root", [schema.Experiment, schema.Machine, schema.Sweep])
def test_the_root_says_the_defaults_of_its_classes(root):
    file = options.option("", "train")
    for field in dataclasses.fields(root):
        if field.default is not dataclasses.MISSING:
            assert file[field.name] == field.default, field.name
    if root is schema.Sweep:
        assert file["tune"] == schema.Tune().plain()
    assert schema.Machine.__dataclass_fields__["allow"].default_factory() == file["allow"]


def test_words_that_a_module_and_a_field_share_are_the_same():
    assert set(get_args(fields.kinds(LongTail)["profile"])) == set(long_tail.PROFILES)
    assert set(get_args(Leaks)) == set(leaks.POLICIES) and set(get_args(OnCorrupt)) == set(images.POLICIES)
    assert set(get_args(fields.kinds(Parts)["mode"])) == set(splits.MODES)
    assert set(get_args(fields.kinds(Official)["val_from"])) == set(splits.VAL_FROM)
    assert set(get_args(fields.kinds(Mish)["kernel"])) == set(mish.KERNELS)


def test_the_last_epoch_may_count():
    assert checked("monitor=epoch", "patience=null")[0].monitor == "epoch"


@pytest.mark.parametrize("experiment", options.listed("experiment"))
def test_every_experiment_composes_and_is_valid(experiment):
    assert checked(f"experiment={experiment}")[0].epochs >= 1


OF_OTHERS = [
    "os.system",
    "torch.load",
    "torch.hub.load",
    "builtins.eval",
    "emoexpert.x",
    "emoexp",
    "os",
    "emoexp.rng;os.system",
]
NEVER = [  # what lies in emoexp or torch and is no option of any group
    *OF_OTHERS,
    "emoexp.train.job",
    "emoexp.models.compiler.library",
    "emoexp.models.mish.torch.load",
    "emoexp.runs.files.write_json",
    "emoexp.config.build.build_object",
    "emoexp.runs.checkpoint.torch.utils.collect_env.run",
    "torch.nn.utils.clip_grad_norm_",
    "torch.nn.modules.module.torch.load",
    "torch.optim.lr_scheduler.StepLR",
]


@pytest.mark.parametrize("target", NEVER)
@pytest.mark.parametrize("group", schema.BASES)
def test_a_group_builds_nothing_but_its_own(group, target):
    node = {"name": "mine", "_target_": target, "_partial_": True, "lr": 0.1}
    with pytest.raises(ValueError, match=r"_target_ is .*; here may be built: .* add allow=\["):
        option.read(schema.BASES[group], node, group)


@pytest.mark.parametrize("target", OF_OTHERS)
def test_a_target_on_the_command_line_is_refused(target):
    with pytest.raises(ValueError, match=r"activation\._target_ is .* but activation=mish is built by this package"):
        checked(f"+activation._target_='{target}'")


MINE = {"name": "mine", "_target_": "json.dumps", "_partial_": True}


@pytest.mark.parametrize(
    ("below", "told"),
    [
        ({"a": {"_target_": "os.system"}}, "activation.a._target_ is os.system; here may be built: nothing without"),
        ({"a": [{"b": {"_target_": "torch.nn.ReLU"}}]}, "activation.a[0].b._target_ is torch.nn.ReLU"),
        ({"_args_": ["x"]}, "activation._args_[0] is a key that nothing reads"),
        ({"a": {"_recursive_": False}}, "activation.a._recursive_ is a key that nothing reads"),
        ({"a": "${oc.env:HOME}"}, "activation.a is a plain value; it is ${oc.env:HOME}"),
    ],
)
def test_what_stands_below_a_target_is_checked_too(below, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        option.read(Activation, MINE | below, "activation", ["json"])


def test_a_run_folder_has_nothing_built_below_an_option():
    node = MINE | {"a": {"_target_": "json.loads"}}
    assert option.read(Activation, node, "activation", ["json"]).plain() == node
    with pytest.raises(ValueError, match=re.escape("activation.a._target_: below an option that a run folder holds")):
        option.read(Activation, node, "activation", ["json"], from_run_folder=True)


def test_an_alias_of_something_else_is_refused():
    homes = build.ours("runs.files")
    with pytest.raises(ValueError, match="stands for something of no module"):
        build.build_object({"_target_": "emoexp.runs.files.fcntl"}, [], homes)
    with pytest.raises(ValueError, match="stands for something of contextlib"):
        build.build_object({"_target_": "emoexp.runs.files.contextmanager"}, [], homes)
    with pytest.raises(ValueError, match=re.escape("here may be built: emoexp.runs.files")):
        build.build_object({"_target_": "emoexp.runs.files.os.mkdir"}, [], homes)


def test_a_package_of_ones_own_is_let_in_by_name():
    node = {"_target_": "json.dumps", "obj": [1, {"_target_": "json.loads", "s": "[2]"}]}
    with pytest.raises(ValueError, match=re.escape("add allow=[json]")):
        build.build_object(node, [], {})
    assert build.build_object(node, ["json"], {}) == "[1, [2]]"


def test_a_target_that_is_not_there():
    with pytest.raises(ValueError, match=r"json\.nothing cannot be found"):
        build.build_object({"_target_": "json.nothing"}, ["json"], {})
    with pytest.raises(ValueError, match=r"json\.dumps does not take these keys: missing a required argument: 'obj'"):
        build.build_object({"_target_": "json.dumps"}, ["json"], {})


OWN = {"name": "hard", "_target_": "torch.nn.Hardtanh", "_partial_": True, "max_val": 2.0}


def test_a_class_of_torchs_is_an_option_by_its_file():
    made = option.read(Activation, OWN, "activation")
    assert made.plain() == OWN and made.name == "hard" and made.build()().max_val == 2.0
    assert made.having(max_val=3.0).build()().max_val == 3.0
    with pytest.raises(ValueError, match="activation=hard: the option's file needs _partial_: true"):
        option.read(Activation, {**OWN, "_partial_": False}, "activation")


def test_keys_of_ours_beside_a_class_of_somebodys_own_are_checked():
    node = {"name": "rms", "_target_": "torch.optim.RMSprop", "_partial_": True, "lr": 0.1, "decay": "weights"}
    made = option.read(Optimizer, node, "optimizer")
    assert (made.lr, made.decay, made.rho, made.tail) == (0.1, "weights", 0.0, None)
    assert made.build([{"params": [torch.nn.Parameter(torch.zeros(1))]}]).param_groups[0]["lr"] == 0.1
    for key, value in {"lr": -1, "decay": "some", "rho": -0.1, "tail": 0}.items():
        with pytest.raises(ValueError, match=f"optimizer.{key} is "):
            option.read(Optimizer, {**node, key: value}, "optimizer")


def test_a_loss_of_somebodys_own_says_which_last_layer_it_wants():
    node = {"name": "mine", "_target_": "emoexp.imbalance.losses.ldam", "_partial_": True, "margin": 0.5, "scale": 9.0}
    with pytest.raises(ValueError, match="head: cosine and scale: <a number above 0> belong together"):
        option.read(Loss, node, "imbalance.loss")
    assert option.read(Loss, {**node, "head": "cosine"}, "imbalance.loss").last_layer() == Head("cosine", 9.0)
    assert option.read(Loss, {**node, "head": "linear"}, "imbalance.loss").last_layer() == Head()


def test_the_head_is_a_key_of_its_own():
    assert checked("imbalance/loss=ldam")[0].imbalance.head() == Head("cosine", 30.0)
    assert checked("imbalance=ldam", "imbalance.loss.head=linear")[0].imbalance.head() == Head()
    assert checked("imbalance=lws")[0].imbalance.head() == Head(factors=True)
    for head in (Head(), Head("cosine", 3.0), Head(factors=True), Head("cosine", 3.0, True)):
        assert Head.read(head.plain()) == head
    assert Head("cosine", 3.0).plain() == {"kind": "normalised", "scale": 3.0}  # as older versions wrote it
    for wrong in ({"kind": "quadratic"}, {"kind": "normalised"}, {"kind": "normalised", "scale": -1}, {"a": 1}):
        with pytest.raises(ValueError, match="head"):
            Head.read(wrong)


OLD = {"name": "emotion_cnn", "_target_": "emoexp.networks.EmotionCNN", "widths": [4, 8], "dense": 8}


def test_a_run_folder_of_an_earlier_version_is_read_by_its_names():
    made = option.read(Architecture, OLD, "architecture", from_run_folder=True)
    assert (made.widths, made.conv_dropout, made.dropout) == ([4, 8], 0.0, 0.5)  # keys that it lacks: the file's
    relu = {"name": "relu", "_target_": "torch.nn.ReLU", "_partial_": True}
    assert option.read(Activation, relu, "activation", from_run_folder=True).build() is torch.nn.ReLU


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (
            {**OLD, "widths": [-4]},
            "architecture.widths is a list of 1 or more whole numbers from 1 to 65536; it is [-4]",
        ),
        ({**OLD, "depth": 3}, "architecture.depth is no key of architecture=emotion_cnn"),
        (
            {**OLD, "name": "mine"},
            "architecture._target_ is emoexp.networks.EmotionCNN; here may be built: emoexp.models",
        ),
        ({"name": "mine", "_target_": "os.system"}, "add allow=[os]"),
        ({"name": "mine", "_target_": "torch.optim.SGD"}, "add allow=[torch]"),
        (
            {
                "name": "mine",
                "deep": [{"er": {"_target_": "emoexp.rng.reseed"}}],
                "_target_": "emoexp.models.vgg_a.VggA",
            },
            "architecture.deep[0].er._target_: below an option that a run folder holds nothing is built",
        ),
        ({"name": "mine"}, "architecture=mine is none of emotion_cnn"),
        ("text", "architecture is an option, a node with a name; it is text"),
    ],
)
def test_what_a_run_folder_may_not_hold(node, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        option.read(Architecture, node, "architecture", from_run_folder=True)


def test_a_run_folder_may_name_a_layer_or_network_that_takes_plain_values():
    assert option.read(Activation, OWN, "activation", from_run_folder=True).build()().max_val == 2.0
    node = {"name": "narrow", "_target_": "emoexp.models.emotion_cnn.EmotionCNN", "widths": [2], "dense": 3}
    made = option.read(Architecture, node, "architecture", from_run_folder=True)
    model = made.build(num_classes=2, channels=1, image_size=8, activation=torch.nn.ReLU)
    assert model.classifier.in_features == 3


def test_a_run_folder_may_name_what_the_command_line_allows():
    node = {"name": "mine", "_target_": "torch_like.nets.Mine", "width": 3}
    assert option.read(Architecture, node, "architecture", ["torch_like"], from_run_folder=True).plain() == node


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
    for group, name in OPTIONS:
        assert f"  {name} " in done.stdout, (group, name)
    for scalar in ("seed", "epochs", "batch_size", "image_size", "device", "threads", "monitor", "patience"):
        assert f"\n{scalar}: " in done.stdout


WRONG = [
    "precision=fp8",
    "optimizer.lr=-1",
    "batch_size=0",
    "imbalance/mix=mixup imbalance.mix.alpha=nan",
    "imbalance/loss=focal imbalance.loss.gamma=-1",
    "architecture.dropout=2",
    "scheduler=plateau scheduler.factor=-1",
    "epochs=many",
    "tracking.uri=somewhere",
    "data.label_noise=1",
]


def test_configuration_is_checked_before_torch_is_imported_and_leaves_nothing(tmp_path):
    code = (
        "import sys; from hydra.core.global_hydra import GlobalHydra; from emoexp import train\n"
        f"for words in {[line.split() for line in WRONG]}:\n"
        "    sys.argv = ['train', *words]\n"
        "    GlobalHydra.instance().clear()\n"
        "    try: train.main()\n"
        "    except SystemExit as stop: print(stop.code, sorted({'torch', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert done.stdout.splitlines() == ["1 []"] * len(WRONG), done.stderr
    assert len(done.stderr.splitlines()) == len(WRONG) and not list(tmp_path.iterdir())
