"""Texts are read whole, cut without loss, and given out the same way every time."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from deqzoo.data import (
    EmbeddedText,
    EveryToken,
    PennTreebank,
    RandomWindows,
    Streams,
    TextData,
    TextSet,
    TinyShakespeare,
    WikiText103,
    open_text,
)
from deqzoo.errors import DataError, VocabularyError
from deqzoo.models.vocabulary import CharVocabulary

from .conftest import FullData

TEXT = "".join(chr(97 + i * i % 26) + ("\n" if i % 7 == 0 else "") for i in range(500))


def numbered(count: int) -> TextSet:
    """A text whose tokens are their own positions."""
    return TextSet(tokens=torch.arange(count, dtype=torch.int32), num_chars=count - 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def scored(source, indices) -> list[int]:
    """The positions of the scored targets in batches."""
    found = []
    for batch in (source.batch(i, None) for i in indices):
        assert torch.equal(batch.targets, batch.tokens + 1)  # the next token, always
        found += batch.targets[batch.scored].tolist()
    return found


@pytest.mark.parametrize("count", [2, 3, 8, 9, 10, 17, 33, 100])
@pytest.mark.parametrize(("length", "stride"), [(8, None), (8, 8), (8, 3), (8, 1), (1, None), (200, 50)])
def test_every_token_is_scored_exactly_once(count, length, stride):
    windows = EveryToken(numbered(count), length, stride=stride)
    found = scored(windows, torch.arange(len(windows)).split(3))
    assert sorted(found) == list(range(1, count))
    for i in range(1, len(windows)):
        batch = windows.batch(torch.tensor([i]))
        first = int(batch.scored[0].int().argmax())
        assert first >= min(length, count - 1) - windows.stride  # what is promised as context


@pytest.mark.parametrize("stride", [0, 9])
def test_a_stride_that_would_leave_out_tokens_is_refused(stride):
    with pytest.raises(ValueError, match=rf"stride = {stride} for windows of 8 tokens"):
        EveryToken(numbered(20), 8, stride=stride)


@pytest.mark.parametrize("count", [2, 3, 10, 11, 50, 64, 65])
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("length", [1, 4, 100])
def test_streams_score_every_token_once_and_go_on(count, rows, length):
    streams = Streams(numbered(count), length, num_rows=rows)
    indices = [torch.tensor([i]) for i in range(len(streams))]
    assert sorted(scored(streams, indices)) == list(range(1, count))
    batches = [streams.batch(i) for i in indices]
    assert [b.goes_on for b in batches] == [False] + [True] * (len(batches) - 1)
    for before, after in pairwise(batches):
        assert torch.equal(before.targets[:, -1], after.tokens[:, 0])


def test_streams_of_several_processes_are_those_of_one():
    whole = Streams(numbered(100), 5, num_rows=6)
    parts = [Streams(numbered(100), 5, num_rows=6, rows=slice(r, None, 2)) for r in range(2)]
    found = [t for part in parts for t in scored(part, [torch.tensor([i]) for i in range(len(part))])]
    assert len(parts[0]) == len(whole)
    assert sorted(found) == list(range(1, 100))


@pytest.mark.parametrize("count", [2, 7, 8, 9, 30, 1000])
def test_random_windows_lie_anywhere_within_the_text(count):
    windows = RandomWindows(numbered(count), 8)
    starts = set()
    for key in range(60):
        batch = windows.batch(torch.arange(len(windows)), key)
        assert bool(batch.scored.all())
        assert torch.equal(batch.targets, batch.tokens + 1)
        assert int(batch.tokens.min()) >= 0
        assert int(batch.targets.max()) < count
        starts |= set(batch.tokens[:, 0].tolist())
    if count < 100:
        assert starts == set(range(max(count - 8, 1)))
    assert torch.equal(windows.batch(torch.arange(1), 3).tokens, windows.batch(torch.arange(1), 3).tokens)


def test_a_file_is_cut_and_read_with_its_own_characters(file):
    data = TextData(file, context=16, batch_size=4)
    assert data.text("train") + data.text("val") == data.text("all") == TEXT
    assert len(data.text("val")) == len(TEXT) - int(0.9 * len(TEXT))
    assert data.text("test") == data.text("val")
    assert data.vocabulary == CharVocabulary.of([TEXT])
    text = data.text_set("val")
    assert data.vocabulary.decode(text.tokens.tolist()) == data.text("val")
    assert (text.num_chars, text.chars_per_token) == (text.num_targets, 1.0)


def test_words_are_cut_at_lines_and_characters_counted_as_written(file):
    data = TextData(file, level="word", val_share=0.3)
    assert data.text("train").endswith("\n")
    text = data.text_set("val")
    first = data.text("val").split()[0]
    assert text.num_chars == len(data.text("val")) - len(first)
    assert text.num_targets == len(data.text("val").split()) + data.text("val").count("\n") - 1


def test_several_files_are_one_text(file, tmp_path):
    other = tmp_path / "other.txt"
    other.write_bytes("\ufeffline\r\nend".encode())
    assert TextData([other, file]).text("all") == "line\nend\n" + TEXT


def test_a_folder_has_a_file_for_each_part(tmp_path):
    for name, text in (("a.train.txt", "aabb"), ("a.valid.txt", "abab"), ("a.test.txt", "bbaa")):
        (tmp_path / name).write_text(text)
    data = TextData(tmp_path)
    assert [data.text(part) for part in ("train", "val", "test")] == ["aabb", "abab", "bbaa"]
    (tmp_path / "b.test.txt").write_text("x")
    with pytest.raises(DataError, match=r"several files for test: a.test.txt, b.test.txt"):
        TextData(tmp_path).text("train")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"is empty. A text has two tokens at least"),
        (b"\x89PNG\r\n\xff\xfe", r"is no text: byte 0 is not UTF-8"),
        (b"ab\0\0cd", r"is no text: it holds zero bytes"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, told):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=told):
        TextData(tmp_path / "x").setup("fit")


def test_missing_short_and_foreign_texts_are_refused(tmp_path, file):
    with pytest.raises(DataError, match=r"could not be read: No such file"):
        TextData(tmp_path / "no.txt").text("train")
    (tmp_path / "one.txt").write_text("a")
    with pytest.raises(DataError, match=r"has 1 token\(s\) of level char"):
        TextData(tmp_path / "one.txt", val_share=0.0).text_set("train")
    with pytest.raises(DataError, match=r"The part 'val' of text.txt is empty"):
        TextData(file, val_share=0.0).text_set("val")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no files with train, valid or test"):
        TextData(tmp_path / "empty").text("train")
    with pytest.raises(VocabularyError, match=r"characters that the vocabulary does not"):
        TextData(file, vocabulary=CharVocabulary.of(["abc"])).text_set("all")


@pytest.mark.parametrize("options", [{"context": 0}, {"val_share": 1.0}, {"level": "line"}, {"level": "bpe"}])
def test_values_out_of_range_are_refused(options, file):
    with pytest.raises(ValueError, match=r": (correct the value|set both)"):
        TextData(file, **options)


def test_the_same_seed_gives_the_same_batches_and_resumes(file):
    def tokens(seed, epoch, state=None):
        batches = TextData(file, context=16, batch_size=4, seed=seed).train_dataloader()
        batches.set_epoch(epoch)
        if state:
            batches.load_state_dict(state)
        return [b.tokens for b in batches]

    whole = tokens(0, 1)
    assert all(map(torch.equal, whole, tokens(0, 1)))
    assert not all(map(torch.equal, whole, tokens(0, 2)))
    assert not all(map(torch.equal, whole, tokens(1, 1)))
    assert all(map(torch.equal, whole[3:], tokens(0, 1, {"epoch": 1, "batch": 3})))


def test_overfitting_reads_the_same_windows_in_every_epoch(file):
    class Overfitting:
        overfit_batches, world_size, global_rank = 2, 1, 0

    def first(epoch):
        module = TextData(file, context=16, batch_size=4)
        module.trainer = Overfitting()  # pyright: ignore[reportAttributeAccessIssue]
        batches = module.train_dataloader()
        batches.set_epoch(epoch)
        return next(iter(batches)).tokens

    assert torch.equal(first(0), first(1))


@pytest.mark.parametrize("data", [TinyShakespeare, PennTreebank, WikiText103])
def test_named_texts_say_where_to_get_them(data, tmp_path):
    with pytest.raises(DataError, match=rf"{data.dataset} is not in .*from https://.*--root"):
        data(tmp_path).text("train")


def test_names_and_paths_are_opened(file, tmp_path):
    assert isinstance(open_text("Tiny_Shakespeare", like="ptb"), TinyShakespeare)
    assert open_text(file, like="ptb").text("all") == TEXT
    with pytest.raises(DataError, match=r"'tiny-shakspeare' is neither.*Did you mean 'tiny-shakespeare'"):
        open_text("tiny-shakspeare", like="ptb")
    with pytest.raises(DataError, match=r"There is no text of 'ptb' in the package"):
        open_text(None, like="ptb")


def test_the_package_holds_the_validation_part():
    data = open_text(None, like="tiny-shakespeare")
    assert isinstance(data, EmbeddedText)
    assert len(data.text("val")) == 111_540
    assert data.text("val").startswith("?\n\nGREMIO:\nGood morrow")
    with pytest.raises(DataError, match=r"has no part 'train'"):
        data.text("train")


def test_tiny_shakespeare_has_its_published_size(full_data: FullData):
    shakespeare = TinyShakespeare(full_data("shakespeare"))
    assert (len(shakespeare.text("all")), len(shakespeare.vocabulary)) == (1_115_394, 65)
    assert CharVocabulary.of([shakespeare.text("train")]) == shakespeare.vocabulary
    assert shakespeare.text("val") == EmbeddedText("tiny-shakespeare").text("val")


def test_penn_treebank_has_its_published_size(full_data: FullData):
    treebank = PennTreebank(full_data("ptb"))
    assert len(treebank.vocabulary) == 10_000
    assert [len(treebank.text_set(p).tokens) for p in ("train", "val", "test")] == [929_589, 73_760, 82_430]
