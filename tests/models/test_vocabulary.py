"""Vocabularies read and write text without loss, travel as JSON, and say what they do not know."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deqzoo.errors import VocabularyError
from deqzoo.models import bpe
from deqzoo.models.bpe import BPEVocabulary
from deqzoo.models.vocabulary import CharVocabulary, WordVocabulary, vocabulary_from

LINES = " the cat saw the dog \n the dog slept \n\n"


@given(st.text(min_size=1), st.data())
def test_characters_come_back(text, data):
    vocabulary = CharVocabulary.of([text])
    part = data.draw(st.text(alphabet=sorted(set(text))))
    ids = vocabulary.encode(part)
    assert vocabulary.decode(ids) == part
    assert len(vocabulary) == len(set(text))
    assert all(0 <= i < len(vocabulary) for i in ids)


def test_characters_are_numbered_by_code_point():
    assert CharVocabulary.of(["ba", "c\nb"]).chars == "\nabc"


def test_unknown_characters_are_named():
    with pytest.raises(VocabularyError, match=r"does not: 'é', '€'\. It knows 3 characters and no token for others"):
        CharVocabulary.of(["abc"]).encode("ab€éc€")


def test_words_are_numbered_by_frequency_and_lines_end_in_a_token():
    vocabulary = WordVocabulary.of([LINES])
    assert vocabulary.words == ("<eos>", "the", "dog", "cat", "saw", "slept", "<unk>")
    assert vocabulary.encode(LINES) == [1, 3, 4, 1, 2, 0, 1, 2, 5, 0, 0]
    assert vocabulary.decode(vocabulary.encode(LINES)) == "the cat saw the dog\nthe dog slept\n\n"
    # The end of a text is not the end of a line.
    assert vocabulary.encode("the bird") == [1, 6]
    assert vocabulary.decode([1, 6]) == "the <unk>"


@pytest.mark.parametrize("most", [2, 3, 4, 6, 7, 9])
def test_rare_words_give_way_to_the_unknown(most):
    vocabulary = WordVocabulary.of([LINES], max_tokens=most)
    assert len(vocabulary) == min(most, 7)
    assert {"<unk>", "<eos>"} <= set(vocabulary.words)


def test_no_more_tokens_than_asked_for_where_the_unknown_is_a_word_of_the_text():
    assert WordVocabulary.of(["a a a b b <unk> c"], max_tokens=3).words == ("a", "<unk>", "<eos>")


def test_bytes_are_never_unknown():
    pytest.importorskip("tokenizers")
    vocabulary = BPEVocabulary.of([LINES * 20], max_tokens=280)
    for text in (LINES, "naïve €\n\n", "\t日本"):
        assert vocabulary.decode(vocabulary.encode(text)) == text
    assert len(vocabulary.encode(LINES)) < len(LINES)
    assert 256 < len(vocabulary) <= 280


def test_without_its_package_bpe_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(VocabularyError, match=r"needs the package tokenizers.*pip install deqzoo\[bpe\]"):
        bpe.BPEVocabulary.of(["abc"], max_tokens=300)


@pytest.mark.parametrize("make", [CharVocabulary.of, WordVocabulary.of, lambda t: BPEVocabulary.of(t, max_tokens=270)])
def test_a_vocabulary_travels_as_json(make):
    if make is not CharVocabulary.of and make is not WordVocabulary.of:
        pytest.importorskip("tokenizers")
    vocabulary = make([LINES])
    again = vocabulary_from(json.loads(json.dumps(vocabulary.as_dict())))
    assert again == vocabulary
    assert again.difference(vocabulary) == ""
    assert again.encode(LINES) == vocabulary.encode(LINES)


@pytest.mark.parametrize(
    "plain",
    [
        None,
        {},
        {"level": "char"},
        {"level": "char", "tokens": "aba"},
        {"level": "char", "tokens": ""},
        {"level": "word", "tokens": ["<unk>", "<eos>", "a b"]},
        {"level": "word", "tokens": ["<unk>", "a"]},
        {"level": "word", "tokens": ["<unk>", "<eos>", 3]},
        {"level": "byte", "tokens": "ab"},
    ],
    ids=str,
)
def test_what_is_no_vocabulary_is_refused(plain):
    with pytest.raises(VocabularyError, match=r"is no vocabulary. One has a level"):
        vocabulary_from(plain)


def test_damaged_pieces_are_refused():
    pytest.importorskip("tokenizers")
    with pytest.raises(VocabularyError, match=r"The vocabulary is damaged"):
        vocabulary_from({"level": "bpe", "tokenizer": "{"})


def test_differences_are_told():
    chars, words = CharVocabulary.of(["abc"]), WordVocabulary.of(["a b"])
    assert chars.difference(CharVocabulary.of(["abd"])) == "token 2 is 'c' against 'd'"
    assert chars.difference(words) == "3 tokens of level char against 4 of level word"
