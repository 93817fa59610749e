"""Images from shards and from files of the Hub's kind: every one once in evaluation, the same ones after a pause."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from deqzoo.data import RandomCrop, TimmStream
from deqzoo.errors import DataError

from .test_image_data import Recorder, assert_same, trainer

pytest.importorskip("webdataset")

SHARDS = (7, 4, 6)


def write_shards(root: Path, name: str, counts: tuple[int, ...], classes: int = 10) -> str:
    """Writes tar files of 32 x 32 images, all pixels of which are their number, and that as label, modulo `classes`."""
    number = 0
    for index, count in enumerate(counts):
        with tarfile.open(root / f"{name}-{index}.tar", "w") as tar:
            for _ in range(count):
                png = io.BytesIO()
                Image.fromarray(np.full((32, 32, 3), number, dtype=np.uint8)).save(png, "png")
                for ending, content in (("png", png.getvalue()), ("cls", str(number % classes).encode())):
                    member = tarfile.TarInfo(f"some.where/{number:04d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                number += 1
    return f"{name}-{{0..{len(counts) - 1}}}.tar"


@pytest.fixture
def shards(tmp_path) -> dict:
    """The options of a data module with 17 images in three shards, for training and evaluation alike."""
    names = write_shards(tmp_path, "some", SHARDS)
    return {"root": tmp_path, "train": names, "val": names, "like": "cifar10", "num_workers": 0}


def numbers(batch) -> list[int]:
    found = batch.images[:, 0, 0, 0]
    assert torch.equal(batch.images, found.view(-1, 1, 1, 1).expand_as(batch.images))
    assert torch.equal(batch.labels, found.long() % 10)
    return found.tolist()


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


class OneOf:
    """A process among others, as a trainer tells it."""

    overfit_batches = 0.0

    def __init__(self, rank: int, world_size: int) -> None:
        self.global_rank = rank
        self.world_size = world_size


def of_processes(world_size: int, options: dict) -> list[TimmStream]:
    made = []
    for rank in range(world_size):
        data = TimmStream(**options)
        data.trainer = OneOf(rank, world_size)  # pyright: ignore[reportAttributeAccessIssue]
        made.append(data)
    return made


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (1, 2), (2, 0), (2, 2), (3, 0), (5, 1)])
def test_evaluation_has_every_image_once(world_size, num_workers, shards):
    seen, lengths = [], set()
    for data in of_processes(world_size, shards | {"num_workers": num_workers, "eval_batch_size": 2}):
        loader = data.test_dataloader()
        batches = [numbers(batch) for batch in loader]
        assert len(batches) == len(loader)
        assert all(0 < len(batch) <= 2 for batch in batches)
        lengths.add(len(batches))
        seen += flat(batches)
    assert sorted(seen) == list(range(sum(SHARDS)))
    assert len(lengths) == 1


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (1, 2), (2, 1), (3, 0)])
def test_training_batches_are_full_and_as_many_on_every_process(world_size, num_workers, shards):
    seen, lengths = [], set()
    for data in of_processes(world_size, shards | {"num_workers": num_workers, "batch_size": 4}):
        loader = data.train_dataloader()
        first, again = [numbers(b) for b in loader], [numbers(b) for b in loader]
        assert first == again
        loader.set_epoch(1)
        assert [numbers(b) for b in loader] != first
        assert {len(batch) for batch in first} == {4} and len(first) == len(loader)
        lengths.add(len(first))
        seen.append(set(flat(first)))
    assert len(lengths) == 1
    # Each process has its own shards.
    assert sum(map(len, seen)) == len(set.union(*seen))
    if world_size == 1:
        assert seen[0] == set(range(17)) or num_workers


def test_nothing_depends_on_or_disturbs_the_random_numbers_of_a_run(shards):
    data = TimmStream(**shards, crop=RandomCrop(), augment=())
    state = torch.get_rng_state()
    one = list(data.train_dataloader())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    for a, b in zip(one, data.train_dataloader(), strict=True):
        assert torch.equal(a.images, b.images) and a.key == b.key is not None


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path., callbacks:UserWarning")
def test_a_run_is_resumed_in_the_middle_of_an_epoch(shards, tmp_path):
    def fit(**options):
        net = Recorder()
        ckpt = options.pop("ckpt_path", None)
        trainer(max_epochs=2, limit_val_batches=0, **options).fit(
            net, TimmStream(**shards, batch_size=4), ckpt_path=ckpt
        )
        return net.seen["train"]

    whole = fit()
    assert len(whole) == 10
    saved = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=7)
    first = fit(max_steps=7, callbacks=[saved], enable_checkpointing=True)
    assert_same(first + fit(ckpt_path=tmp_path / "saved" / "step=7.ckpt"), whole)


def test_the_number_behind_a_split_is_checked_when_it_is_counted(shards):
    def batches(count: int):
        return list(TimmStream(**shards | {"val": f"{shards['val']}|{count}"}).test_dataloader())

    assert sum(len(batch.labels) for batch in batches(17)) == 17
    for wrong in (16, 18):
        with pytest.raises(DataError, match=rf"hold 17 samples, not {wrong}\. .*correct the number behind"):
            batches(wrong)


def test_shards_that_are_missing_or_damaged_are_named(shards, tmp_path):
    shard = tmp_path / "some-1.tar"
    content = shard.read_bytes()
    # In the middle of an image: headers can still be counted.
    position = content.index(b"\x89PNG")
    shard.write_bytes(content[: position + 8] + bytes(20) + content[position + 28 :])
    with pytest.raises(DataError, match=r"some-1\.tar gave this process 3 samples instead of 4.*if it is damaged"):
        list(TimmStream(**shards).test_dataloader())
    shard.unlink()
    for stage in ("fit", "test"):
        with pytest.raises(DataError, match=r"The shard .*some-1\.tar could not be read.*correct the split"):
            TimmStream(**shards).setup(stage)


def test_more_processes_than_there_is_data_for(shards):
    with pytest.raises(DataError, match=r"3 shard\(s\) of .* to train 4 processes on"):
        of_processes(4, shards)[0].train_dataloader()
    with pytest.raises(DataError, match=r"17 samples of .* on 20 processes with 1 batch\(es\) each"):
        of_processes(20, shards)[0].test_dataloader()


def test_wrong_options_are_refused(shards, monkeypatch):
    with pytest.raises(DataError, match=r"reader = 'tfds/mnist' streams nothing.*'hfids/<name>'"):
        TimmStream(**shards, reader="tfds/mnist")
    with pytest.raises(DataError, match="no data set whose images are specified"):
        TimmStream(**shards | {"like": "imagenet"})
    with pytest.raises(ValueError, match=r"val_size = 5.*name a split with `val`"):
        TimmStream(**shards, val_size=5)
    with pytest.raises(DataError, match=r"no single one can be had by its number"):
        TimmStream(**shards).image_set("test")
    with pytest.raises(DataError, match=r"val = None leaves nothing to test on"):
        TimmStream(**shards | {"val": None}).test_dataloader()
    with pytest.raises(DataError, match=r"timm could not open 'train' of wds.*can follow the split"):
        TimmStream(**shards | {"train": "train"}).setup("fit")
    with pytest.raises(DataError, match=r"A sample has the label 10, and cifar10 has 10 classes"):
        list(TimmStream(**shards | {"val": write_shards(shards["root"], "wrong", (11,), classes=11)}).test_dataloader())
    for package, reader in (("webdataset", "wds"), ("datasets", "hfids/mnist")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DataError, match=rf"needs the package {package}.*`pip install deqzoo\[stream\]`"):
            TimmStream(**shards, reader=reader)


@pytest.fixture
def hub(tmp_path) -> dict:
    """The same images in the form in which the Hub keeps them: files of a data set, two for each split."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for split in ("train", "validation"):
        for part, chosen in enumerate((range(9), range(9, 17))):
            rows = [{"image": Image.fromarray(np.full((32, 32, 3), i, np.uint8)), "label": i % 10} for i in chosen]
            path = tmp_path / "images" / f"{split}-{part:05d}-of-00002.parquet"
            path.parent.mkdir(exist_ok=True)
            datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    name = f"hfids/{tmp_path / 'images'}"
    return {
        "root": tmp_path / "cache",
        "reader": name,
        "train": "train|17",
        "val": "validation|17",
        "like": "cifar10",
        "num_workers": 0,
    }


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_data_of_the_hub_is_streamed_likewise(world_size, hub):
    seen, lengths = [], set()
    for data in of_processes(world_size, hub | {"eval_batch_size": 3, "batch_size": 2}):
        data.setup("fit")
        batches = [numbers(batch) for batch in data.val_dataloader()]
        seen += flat(batches)
        loader = data.train_dataloader()
        train = [numbers(batch) for batch in loader]
        assert train == [numbers(batch) for batch in loader]
        assert {len(batch) for batch in train} == {2} and len(train) == len(loader)
        lengths.add((len(batches), len(train)))
    assert sorted(seen) == list(range(17))
    assert len(lengths) == 1


@pytest.mark.parametrize("count", [16, 18])
def test_another_number_of_samples_than_the_hub_has_is_told(count, hub):
    with pytest.raises(DataError, match=rf"gave this process 17 samples instead of {count}"):
        list(TimmStream(**hub | {"val": f"validation|{count}"}).test_dataloader())


def test_data_of_the_hub_needs_a_number(hub):
    with pytest.raises(DataError, match=r"timm could not open 'train' of hfids.*number of samples can follow"):
        TimmStream(**hub | {"train": "train"}).setup("fit")
