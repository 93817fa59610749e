"""Texts of nothing, with the tokens of something."""

import pytest

from deqzoo.data import NoiseText
from deqzoo.errors import DataError
from deqzoo.models.text_spec import TEXT_SPECS


@pytest.mark.parametrize("like", ["tiny-shakespeare", "ptb"])
def test_it_has_the_vocabulary_and_length_that_it_should(like):
    data = NoiseText(like, num_tokens=3000, context=10, batch_size=4)
    assert len(data.vocabulary) == TEXT_SPECS[like].vocab_size
    assert data.level == TEXT_SPECS[like].level
    data.setup("fit")
    train, val = data.text_set("train").tokens, data.text_set("val").tokens
    # White space between words is no token, but lines that are empty at an end are lost with it.
    assert abs(len(train) - 3000) <= 2 and abs(len(val) - 300) <= 2
    assert int(train.max()) < len(data.vocabulary)
    # Rare ones are rare.
    assert int((train < 10).sum()) > 10 * int((train >= len(data.vocabulary) - 10).sum())
    [first, *_] = data.train_dataloader()
    assert first.tokens.shape == (4, 10)


def test_it_is_the_same_for_the_same_seed():
    texts = [NoiseText("ptb", num_tokens=100, seed=seed).text("train") for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_what_is_not_specified_is_refused():
    with pytest.raises(DataError, match=r"like = 'mnist' is no text whose tokens are specified\. Use one of tiny-sh"):
        NoiseText("mnist")
    with pytest.raises(ValueError, match="use 20 or more"):
        NoiseText("ptb", num_tokens=5)
