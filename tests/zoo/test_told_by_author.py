"""What the author of a run puts down beside it."""

from pathlib import Path

import pytest

from deqzoo.errors import WeightsError
from deqzoo.zoo.remarks import read_remarks, remarks_section
from deqzoo.zoo.told_by_author import AUTHORS_FILES, ToldByAuthor, authors_sections

TOLD = ToldByAuthor(tried=[["rate", "loss"], ["0.1", "2"]], remarks=["One of two runs.", "Slow | sure."])
NOTHING = ToldByAuthor(tried=[], remarks=[])


@pytest.mark.parametrize("folder", [".", "version_0", "version_0/checkpoints"])
def test_it_is_found_in_the_folder_of_a_run(tmp_path: Path, folder: str):
    assert ToldByAuthor.beside(tmp_path / folder / "last.ckpt") == NOTHING
    TOLD.write(tmp_path)
    assert ToldByAuthor.beside(tmp_path / folder / "last.ckpt") == TOLD


def test_each_file_is_the_nearest_one(tmp_path: Path):
    nearer = tmp_path / "version_0"
    nearer.mkdir()
    TOLD.write(tmp_path)
    (nearer / "remarks.txt").write_text("Of this one.")
    assert ToldByAuthor.beside(nearer / "last.ckpt") == ToldByAuthor(tried=TOLD.tried, remarks=["Of this one."])


def test_it_is_written_as_it_is_read_and_removed_with_its_run(tmp_path: Path):
    TOLD.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(AUTHORS_FILES)
    assert ToldByAuthor.read(tmp_path) == TOLD
    assert all(authors_sections(tmp_path))
    for _ in range(2):
        NOTHING.write(tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert authors_sections(tmp_path) == (None, None)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_paragraphs_become_one_line_each_and_stay_text(tmp_path: Path, mark: bytes):
    (tmp_path / "remarks.txt").write_bytes(mark + b"\r\n\r\nOne\r\n  of two.\r\n \r\n\r\nA *b* <c>\r\n")
    assert read_remarks(tmp_path / "remarks.txt") == ["One of two.", "A *b* <c>"]
    told = remarks_section(tmp_path)
    assert told is not None
    assert told.endswith(":\n\n- One of two.\n- A \\*b\\* \\<c>")


@pytest.mark.parametrize(
    ("remark", "shown"),
    [
        ("# 3 is best", r"\# 3 is best"),
        ("> 90 %", r"\> 90 %"),
        ("2. run", r"2\. run"),
        ("2) run", r"2\) run"),
        ("- 3", r"\- 3"),
        ("+ cutmix", r"\+ cutmix"),
        ("[a](b)", r"\[a](b)"),
        ("0.1 - no list, #1 > 2.", "0.1 - no list, #1 > 2."),
    ],
)
def test_no_remark_becomes_a_heading_a_quotation_a_list_or_a_link(tmp_path: Path, remark: str, shown: str):
    (tmp_path / "remarks.txt").write_text(remark)
    told = remarks_section(tmp_path)
    assert told is not None
    assert told.splitlines()[-1] == f"- {shown}"


@pytest.mark.parametrize(
    ("content", "message"), [(b" \n\n", r"remarks\.txt is empty.*remove it"), (b"\xff\n", "no text.*UTF-8")]
)
def test_damaged_remarks_are_named(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "remarks.txt").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_remarks(tmp_path / "remarks.txt")
