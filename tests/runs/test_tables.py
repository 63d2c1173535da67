"""Rows as CSV and as text."""

import csv

import pytest

from emoexp.runs import tables


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x", "\tx"])
def test_spreadsheets_run_nothing(tmp_path, text):
    tables.write_table(tmp_path / "t.csv", [{"class": text, text: -1}])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["class", f"'{text}"], [f"'{text}", "-1"]]


def test_no_rows_are_an_empty_file(tmp_path):
    tables.write_table(tmp_path / "t.csv", [])
    assert (tmp_path / "t.csv").read_bytes() == b"" and tables.table([]) == ""


def test_tables_are_aligned():
    lines = tables.table([{"class": "a", "n": 1}, {"class": "long", "n": 0.123456}, {"class": "b", "n": None}])
    assert lines == "class       n\na           1\nlong   0.1235\nb           -"
