"""Weights from the Hub, played by a server on the loopback device.

The Hub's client reads its environment when it is imported: each situation is a process of its own.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from deqzoo import create_model
from deqzoo.zoo import save
from deqzoo.zoo.tensors import sha256, write_tensors

from .hub_client import ask, environment
from .hub_server import HubServer

NAME = "pcdeq-mnist-linear"

READ = """
from deqzoo.zoo import manifest
from deqzoo.zoo.manifest import Published
from deqzoo.zoo.stored import open_published, open_stored

def read(source):
    if isinstance(source, dict):
        manifest.published = lambda name: Published(**source)
        stored = attempt(open_published, "pcdeq-mnist-linear")
    else:
        stored = attempt(open_stored, source)
    return stored if isinstance(stored, str) else float(stored.tensors["fc.bias"][0])
"""
EACH = READ + "found = [read(source) for source in given]"
"""For each source: the first bias of its weights, or the message of the error."""


def files(folder: Path, bias: float) -> dict[str, bytes]:
    """Returns the files of a repository whose first bias says which commit it is."""
    torch.manual_seed(0)
    net: Any = create_model(NAME)
    net.fc.bias.data[0] = bias
    save(net, folder / str(bias), name=NAME)
    return {path.name: path.read_bytes() for path in (folder / str(bias)).iterdir()}


def described(files: dict[str, bytes]) -> dict[str, bytes]:
    """Returns files in which config.json has hash and size of the weights."""
    config, content = json.loads(files["config.json"]), files["model.safetensors"]
    config["deqzoo"]["weights"] = {"sha256": sha256(content), "size": len(content)}
    return {**files, "config.json": json.dumps(config).encode()}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory):
    """A running Hub, the commits of org/good, and the hash and size of the weights in the first of them."""
    folder = tmp_path_factory.mktemp("files")
    with HubServer() as server:
        first, second = files(folder, 1.0), files(folder, 2.0)
        ids = [server.commit("org/good", first), server.commit("org/good", second)]
        server.repos["org/good"].tags["v1"] = ids[0]
        server.commit("org/mixed", {**first, "config.json": second["config.json"]})
        padded = {"fc.bias": torch.tensor([7.0]), "padding": torch.zeros(6_000_000)}  # beyond the client's chunks
        write_tensors(padded, folder / "large")
        server.commit("org/large", described({**first, "model.safetensors": (folder / "large").read_bytes()}))
        server.commit("org/partial", {"config.json": first["config.json"]})
        server.commit("org/secret", first)
        server.repos["org/secret"].private = True
        pinned = json.loads(first["config.json"])["deqzoo"]["weights"]
        yield server, ids, pinned


@pytest.fixture(scope="module")
def online(hub: Any, tmp_path_factory: pytest.TempPathFactory):
    """A cache that has seen both commits of org/good, and what was answered."""
    server, ids, pinned = hub
    home = tmp_path_factory.mktemp("home")
    record = {"source": "hub", "repo": "org/good", "revision": ids[0], **pinned}
    sources = ["hf-hub:org/good", f"hf-hub:org/good@{ids[0]}", "hf-hub:org/good@v1", record,
               {**record, "revision": ids[1]}, "hf-hub:org/mixed", "hf-hub:org/partial", "hf-hub:org/absent",
               "hf-hub:org/good@v9", "hf-hub:a/b/c"]  # fmt: skip
    return home, record, ask(EACH, env=environment(home, server.url), given=sources)


def test_weights_come_at_one_commit_are_checked_and_work_offline(hub: Any, online: Any):
    server, _, _ = hub
    home, record, online = online
    assert online[:4] == [2.0, 1.0, 1.0, 1.0]
    for found, expected in zip(
        online[4:],
        [
            "was changed after it was published",  # a moved pin
            "was changed after it was published",
            "org/partial on the Hub lacks config.json or model.safetensors",
            "There is no repository org/absent on the Hub, or it is private",
            "org/good on the Hub has no revision 'v9'",
            "'a/b/c' is no name of a repository on the Hub. It has the form org/name",
        ],
        strict=True,
    ):
        assert expected in found
    fetched = [seen for seen in server.requests_seen if "/resolve/" in seen]
    assert fetched
    assert not any("/resolve/main/" in seen for seen in fetched)

    asked = len(server.requests_seen)
    offline = ask(
        EACH,
        env=environment(home, server.url, HF_HUB_OFFLINE="1"),
        given=["hf-hub:org/good", record, "hf-hub:org/absent"],
    )
    assert offline[:2] == [2.0, 1.0]
    assert "org/absent is not in the cache, and the Hub cannot be reached" in offline[2]
    assert len(server.requests_seen) == asked


def test_without_a_network_the_cache_answers_and_the_rest_is_a_clear_error(hub: Any, online: Any):
    _, ids, _ = hub
    dead = environment(online[0], "http://127.0.0.1:9")
    found = ask(EACH, env=dead, given=[f"hf-hub:org/good@{ids[0]}", "hf-hub:org/absent"])
    assert found[0] == 1.0
    assert "org/absent is not in the cache, and the Hub cannot be reached" in found[1]


def test_faults_of_the_way_resume_or_fail_cleanly_and_never_give_half_a_model(hub: Any, tmp_path: Path):
    server, _, pinned = hub
    script = f"""{READ}
from pathlib import Path
def cached():
    return [str(path) for path in Path(os.environ["HF_HOME"]).rglob("snapshots/*/model.safetensors")]
faults(cut_downloads=99)
found["cut"] = read("hf-hub:org/good")
found["left"] = cached()
faults(cut_downloads=1)
found["resumed"] = read("hf-hub:org/good")
faults(cut_downloads=1)
found["large"] = read("hf-hub:org/large")
faults(cut_downloads=0, corrupted=["model.safetensors"])
found["corrupted"] = read("hf-hub:org/good@v1")
found["kept"] = len(cached())
faults(corrupted=[])
found["mended"] = read("hf-hub:org/good@v1")
os.environ["HF_TOKEN"] = "hf_wrong"
found["token"] = read("hf-hub:org/secret")
"""
    found = ask(script, env=environment(tmp_path, server.url))
    assert "WeightsError: Fetching org/good from the Hub failed" in found["cut"]
    assert "goes on where it stopped" in found["cut"]
    assert found["left"] == []
    assert found["resumed"] == 2.0
    assert found["large"] == 7.0
    assert server.ranges_seen == ["bytes=10485760-"]  # only the rest was asked for
    corrupted = found["corrupted"]
    assert "DamagedWeightsError: " in corrupted
    assert "model.safetensors was changed after it was published: its SHA-256 is " in corrupted
    assert f"not {pinned['sha256']}" in corrupted
    assert "They were removed from the cache" in corrupted
    assert found["kept"] == 2  # those of the other commit and of the other repository
    assert found["mended"] == 1.0
    assert "no repository org/secret on the Hub, or it is private" in found["token"]


def test_a_cache_that_cannot_be_written_is_read_and_otherwise_named(hub: Any, online: Any, tmp_path: Path):
    server, ids, _ = hub
    server.commit("org/late", server.repos["org/good"].commits[ids[0]])
    home = tmp_path / "home"
    shutil.copytree(online[0], home, symlinks=True)
    env = environment(home, server.url)
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:  # whom permissions do not stop, unless the right to ignore them is given up
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not there to give up rights")
        before = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all")
    folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
    try:
        for folder in folders:
            folder.chmod(0o555)
        found = ask(EACH, env=env, given=[f"hf-hub:org/good@{ids[0]}", "hf-hub:org/late"], before=before)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert found[0] == 1.0
    assert "failed: " in found[1]
    assert "that the cache (HF_HOME) can be written" in found[1]


def test_download_fetches_for_machines_without_a_network(hub: Any, tmp_path: Path):
    server, _, _ = hub
    carried = tmp_path / "carried"
    script = """
from pathlib import Path
from deqzoo.zoo.download import download
found["cache"] = str(download("hf-hub:org/good@v1"))
found["copy"] = str(download("hf-hub:org/good@v1", Path(given)))
found["name"] = str(download("PcDEQ_mnist", Path(given)))
found["unknown"] = attempt(download, "hf-hub:org/absent", Path(given))
"""
    found = ask(script, env=environment(tmp_path / "home", server.url), given=str(carried))
    assert "snapshots" in found["cache"]
    assert found["copy"] == str(carried / "good")
    assert found["name"] == str(carried / "pcdeq-mnist")
    assert "There is no repository org/absent" in found["unknown"]
    offline = environment(tmp_path / "elsewhere", "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert ask(EACH, env=offline, given=[found["copy"]]) == [1.0]
