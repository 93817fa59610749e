"""Batches: a pure function of seed, epoch, index and rank, and nobody left out or counted twice."""

import pytest
import torch

from deqzoo.data import EvalBatches, ImageSet, TrainBatches
from deqzoo.data.batches import derive_seed
from deqzoo.data.image_set import split_by_class
from deqzoo.errors import DataError


def numbers(batches) -> list[list[int]]:
    """Returns which images are in each batch."""
    return [batch.images[:, 0, 0, 0].tolist() for batch in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


def keys(batches) -> list[int]:
    return [batch.key for batch in batches]


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own(numbered):
    batches = TrainBatches(numbered, batch_size=32)
    epochs = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        epochs.append(numbers(batches))
        assert [len(b) for b in epochs[-1]] == [32, 32, 32, 4] and len(batches) == 4
        assert sorted(flat(epochs[-1])) == list(range(100))
    assert epochs[0] != epochs[1] and flat(epochs[0]) != list(range(100))


def test_labels_stay_with_their_images(numbered):
    for batch in TrainBatches(numbered, batch_size=32):
        assert torch.equal(batch.labels, numbered.labels[batch.images[:, 0, 0, 0].long()])


def test_order_and_keys_follow_the_seed(numbered):
    torch.manual_seed(0)
    first = TrainBatches(numbered, batch_size=32, seed=3)
    torch.manual_seed(1)
    again = TrainBatches(numbered, batch_size=32, seed=3)
    other = TrainBatches(numbered, batch_size=32, seed=4)
    assert numbers(first) == numbers(again) != numbers(other)
    assert keys(first) == keys(again) and not set(keys(first)) & set(keys(other))


def test_keys_differ_between_steps_epochs_and_ranks(numbered):
    seen = []
    for rank in (0, 1):
        batches = TrainBatches(numbered, batch_size=10, rank=rank, world_size=2)
        for epoch in range(3):
            batches.set_epoch(epoch)
            seen += keys(batches)
    assert len(seen) == len(set(seen)) == 30


def test_drop_last_leaves_out_the_incomplete_batch(numbered):
    batches = TrainBatches(numbered, batch_size=32, drop_last=True)
    assert [len(b) for b in numbers(batches)] == [32, 32, 32] and len(batches) == 3


def test_without_shuffling_every_epoch_is_in_order(numbered):
    batches = TrainBatches(numbered, batch_size=32, shuffle=False)
    batches.set_epoch(7)
    assert flat(numbers(batches)) == list(range(100))


def test_a_restored_position_continues_its_epoch_and_no_other(numbered):
    whole = TrainBatches(numbered, batch_size=16)
    whole.set_epoch(2)
    expected = list(zip(numbers(whole), keys(whole), strict=True))
    iterator = iter(whole)
    for _ in range(3):
        next(iterator)
    assert whole.state_dict() == {"epoch": 2, "batch": 3}

    resumed = TrainBatches(numbered, batch_size=16)
    resumed.load_state_dict(whole.state_dict())
    iterator = iter(resumed)  # a trainer makes the iterator before it announces the epoch
    resumed.set_epoch(2)
    assert [(b.images[:, 0, 0, 0].tolist(), b.key) for b in iterator] == expected[3:]
    resumed.set_epoch(3)
    assert len(numbers(resumed)) == 7

    resumed.load_state_dict({"epoch": 2, "batch": 7})
    resumed.set_epoch(3)
    assert len(numbers(resumed)) == 7


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_share_what_one_process_would_get(numbered, world_size, drop_last):
    options = {"seed": 1, "drop_last": drop_last}
    alone = TrainBatches(numbered, batch_size=4 * world_size, **options)
    ranks = [
        numbers(TrainBatches(numbered, batch_size=4, rank=rank, world_size=world_size, **options))
        for rank in range(world_size)
    ]
    assert len({tuple(len(batch) for batch in rank) for rank in ranks}) == 1
    assert len(ranks[0]) == len(alone) == len(numbers(alone))
    together = [set().union(*(rank[i] for rank in ranks)) for i in range(len(ranks[0]))]
    left_out = 100 % world_size if not drop_last else 0
    for ours, theirs in zip(together, numbers(alone), strict=True):
        assert ours <= set(theirs)
    assert sum(map(len, together)) == sum(map(len, numbers(alone))) - left_out


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 32), (1, 100), (2, 32), (3, 7), (7, 13), (8, 6)])
def test_an_evaluation_sees_every_image_once_and_no_rank_waits(numbered, world_size, batch_size):
    ranks = [
        EvalBatches(numbered, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    seen = [numbers(rank) for rank in ranks]
    assert len({len(rank) for rank in seen}) == 1 and len(seen[0]) == len(ranks[0])
    sizes = [len(batch) for rank in seen for batch in rank]
    assert min(sizes) >= 1 and max(sizes) <= batch_size
    assert sorted(i for rank in seen for batch in rank for i in batch) == list(range(100))
    assert all(batch.key is None for rank in ranks for batch in rank)


def test_too_few_images_are_refused(numbered):
    with pytest.raises(
        DataError, match=r"100 training images for 1 process\(es\) with batches of 128 and drop_last.*lower"
    ):
        TrainBatches(numbered, batch_size=128, drop_last=True)
    with pytest.raises(DataError, match=r"100 training images for 101 process"):
        TrainBatches(numbered, batch_size=1, world_size=101)
    with pytest.raises(DataError, match=r"100 images to evaluate on 101 processes.*fewer processes"):
        EvalBatches(numbered, batch_size=1, world_size=101)


@pytest.mark.parametrize("num_second", [1, 10, 33, 99])
def test_a_split_by_class_keeps_the_shares(numbered, num_second):
    first, second = split_by_class(numbered.labels, num_second, seed=0)
    assert len(second) == num_second
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(100))
    share = torch.bincount(numbered.labels) * num_second / 100
    assert (torch.bincount(numbered.labels[second], minlength=4) - share).abs().max() < 1


def test_a_split_by_class_is_shuffled_by_its_seed(numbered):
    splits = [split_by_class(numbered.labels, 20, seed=seed)[1].tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert splits[0][:10] != list(range(10))


def test_seeds_of_different_purposes_differ():
    assert derive_seed("a", 1, 2) == derive_seed("a", 1, 2)
    assert len({derive_seed("a", 1, 2), derive_seed("a", 2, 1), derive_seed("b", 1, 2), derive_seed("a", 12)}) == 4
    assert all(0 <= derive_seed("a", i) < 2**63 for i in range(100))


def test_an_image_set_refuses_what_it_cannot_hold():
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"2 images with 3 labels"):
        ImageSet(images=images, labels=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DataError, match=r"0 images with 0 labels"):
        ImageSet(images=images[:0], labels=torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match=r"torch.float32. A data set holds uint8"):
        ImageSet(images=images.float(), labels=torch.zeros(2, dtype=torch.int64))
