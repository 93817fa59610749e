"""Tables of what was tried before a recipe was settled."""

from pathlib import Path

import pytest

from deqzoo.errors import WeightsError
from deqzoo.zoo.tried import read_tried, tried_section, write_tried


def test_tables_are_written_as_they_are_read_and_removed_with_their_run(tmp_path: Path):
    rows = [["setting", "loss"], ['Muon, "warm"', "2"], ["two\nlines", ""]]
    write_tried(rows, tmp_path)
    assert read_tried(tmp_path / "tried.csv") == rows
    write_tried([], tmp_path)
    assert not (tmp_path / "tried.csv").exists()
    assert tried_section(tmp_path) is None
    write_tried([], tmp_path)


def test_cells_are_text_whatever_they_hold(tmp_path: Path):
    write_tried([["a|b", "<unk>"], ["two\nlines", "*x* _y_ `z` \\"]], tmp_path)
    told = tried_section(tmp_path)
    assert told is not None
    assert told.splitlines()[-3:] == [
        r"| a\|b | \<unk> |",
        "|---|---|",
        r"| two lines | \*x\* \_y\_ \`z\` \\ |",
    ]


def test_spreadsheets_begin_with_a_mark(tmp_path: Path):
    (tmp_path / "tried.csv").write_bytes(b'\xef\xbb\xbf"a, b",c\n1,2\n')
    assert read_tried(tmp_path / "tried.csv") == [["a, b", "c"], ["1", "2"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"tried\.csv has no rows below a header.*remove it"),
        (b"rate,loss\n", "no rows below a header"),
        (b"rate,loss\n0.1\n", r"rows of \[1, 2\] cells.*in quotes"),
        (b'rate,loss\n0.1,"2\n0.2,3\n', "no CSV.*UTF-8"),
        (b"rate\n\xff\n", "no CSV.*UTF-8"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "tried.csv").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_tried(tmp_path / "tried.csv")
