"""The words of a command line: texts are taken as they stand, and what cannot be composed is explained."""

import re
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from emoexp import cli
from emoexp.config import words


def value_of(word: str):
    """What Hydra reads of a word as we give it to it."""
    (prepared,) = words.prepare([word])
    return OverridesParser.create().parse_override(prepared).value()


@pytest.mark.parametrize("key", ["data.root", "run", "outputs", "data.identity"])
@pytest.mark.parametrize(
    "text",
    [
        "2024_11_26",
        "1e5",
        "7",
        "pink & green",
        "#1",
        "a=b",
        r"^(.+)_\d+",
        'out[put]s/"b"',
        "a\nb",
        "{x",
        "it's",
        "(a",
        "été",
    ],
)
def test_a_path_or_pattern_is_the_text_that_was_typed(key, text):
    assert value_of(f"{key}={text}") == text


@pytest.mark.parametrize("name", ["x,y", "${seed}", "a,${b}", "{x},y"])
def test_a_path_that_is_there_is_neither_a_sweep_nor_an_interpolation(tmp_path, name):
    (tmp_path / name).mkdir()
    (word,) = words.prepare([f"run={tmp_path / name}"])
    assert OmegaConf.create({"run": OverridesParser.create().parse_override(word).value()}).run == f"{tmp_path / name}"
    missing = f"data.root={tmp_path}/a,{tmp_path}/b"
    assert words.prepare([missing]) == [missing], "a sweep over two roots"


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0$"), min_size=1, max_size=12))
def test_quotes_keep_every_text(text):
    assert OverridesParser.create().parse_override(f"run={words.quoted(text)}").value() == text


@pytest.mark.parametrize(
    "word",
    [
        "data.root=null",
        "data.root=A,B",
        "images=[a.png,b.png]",
        "optimizer.lr=3",
        "seed=range(3)",
        "--cfg",
        "data.root='x y'",
    ],
)
def test_what_hydra_reads_rightly_is_left_to_it(word):
    assert words.prepare([word]) == [word]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["activation=mish,", "relu"], "Write 'activation=mish,relu'"),
        (["seed=0,1,"], "Write 'seed=0,1'"),
        (["monitor=a=b"], """Write 'monitor="a=b"', with both kinds of quotation marks"""),
    ],
)
def test_a_word_that_cannot_be_read_is_shown_mended(typed, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        words.prepare(typed)


NO_KEY = """Could not override '{}'.
To append to your config use +{}
Key '{}' is not in struct
    full_key: {}
    object_type=dict

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["imbalnce=sampler"], ["error: imbalnce is no key of train", "did you mean imbalance?"]),
        (["loss=focal"], ["error: loss is no key of train", "did you mean imbalance/loss?"]),
        (["data.root=x"], ["error: data.root: the images of data=faces are drawn by this program", "data=folder"]),
        (
            ["imbalance=focal", "imbalance.loss.gama=1"],
            ["no key of imbalance/loss=focal", "did you mean imbalance.loss.gamma?"],
        ),
        (["imbalance.loss.epsilon=1"], ["epsilon is a key of imbalance/loss=influence_balanced"]),
    ],
)
def test_an_unknown_key_is_explained_without_the_advice_to_add_it(arguments, told):
    key = arguments[-1].partition("=")[0]
    printed = "\n".join(cli.explain("train", arguments, NO_KEY.replace("{}", key)))
    assert all(text in printed for text in told) and "+" not in printed and "struct" not in printed


def test_an_unknown_option_is_explained():
    printed = "In 'train': Could not find 'imbalance/loss/focl'\n\nAvailable options in 'imbalance/loss':\n\tcdt\n"
    first, second = cli.explain("train", ["imbalance/loss=focl"], printed)
    assert (
        first.startswith("error: imbalance/loss=focl is none of balanced_softmax, ")
        and "imbalance/loss=focal" in second
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["imbalnce=sampler"], "error: imbalnce is no key of train\ndid you mean imbalance?\n"),
        (["+imbalnce=sampler"], "error: imbalnce is no key of train; there are seed, "),
        (
            ["--multirun", "optimizer.lr=interval(0.001,0.1)"],
            "error: optimizer.lr=interval(0.001,0.1) draws from an interval",
        ),
    ],
)
def test_the_command_says_so_and_leaves_nothing(arguments, told, tmp_path):
    command = [sys.executable, "-m", "emoexp.train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith(told) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "word", ["imbalance=null", "tracking=3", "activation={a: 1}", "data=[a]", "imbalance/loss=true"]
)
def test_a_group_is_chosen_by_a_name(word):
    with pytest.raises(ValueError, match="is chosen by the name of one of its options, "):
        words.prepare([word])
    assert words.prepare(["experiment=null", "ablation=null"]) == ["experiment=null", "ablation=null"]
