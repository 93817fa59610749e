"""Weights from the Hub, played by a server on the loopback device.

The Hub's client reads its environment when it is imported: each situation is a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deqzoo import create_model
from deqzoo.zoo import save

from .hub_server import HubServer

NAME = "pcdeq-mnist-linear"

SCRIPT = """
import json, sys
from deqzoo.errors import DeqzooError
from deqzoo.zoo import manifest
from deqzoo.zoo.manifest import Published
from deqzoo.zoo.stored import open_published, open_stored
answers = []
for source in json.loads(sys.argv[1]):
    try:
        if isinstance(source, dict):
            manifest.published = lambda name: Published(**source)
            stored = open_published("pcdeq-mnist-linear")
        else:
            stored = open_stored(source)
        answers.append(float(stored.tensors["fc.bias"][0]))
    except DeqzooError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def ask(sources: list, home: Path, endpoint: str, **environment: str) -> list:
    """Returns, for each source, the first bias of its weights, or the message of the error."""
    switches = ("XET", "TELEMETRY", "UPDATE_CHECK", "PROGRESS_BARS")
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env |= {f"HF_HUB_DISABLE_{switch}": "1" for switch in switches}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "OMP_NUM_THREADS": "1", **environment}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(sources)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def files(folder: Path, bias: float) -> dict[str, bytes]:
    """Returns the files of a repository whose first bias says which commit it is."""
    torch.manual_seed(0)
    net = create_model(NAME)
    net.fc.bias.data[0] = bias  # pyright: ignore
    save(net, folder / str(bias), name=NAME)
    return {path.name: path.read_bytes() for path in (folder / str(bias)).iterdir()}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory):
    """A running Hub and, in `ids`, the commits of org/good."""
    folder = tmp_path_factory.mktemp("files")
    with HubServer() as server:
        first, second = files(folder, 1.0), files(folder, 2.0)
        ids = [server.commit("org/good", first), server.commit("org/good", second)]
        server.commit("org/mixed", {**first, "config.json": second["config.json"]})
        server.commit("org/partial", {"config.json": first["config.json"]})
        pinned = json.loads(first["config.json"])["deqzoo"]["weights"]
        yield server, ids, pinned


def test_weights_come_at_one_commit_are_checked_and_work_offline(hub, tmp_path: Path):
    server, ids, pinned = hub
    record = {"source": "hub", "repo": "org/good", "revision": ids[0], **pinned}
    online = ask(
        ["hf-hub:org/good", f"hf-hub:org/good@{ids[0]}", record, {**record, "revision": ids[1]},
         "hf-hub:org/mixed", "hf-hub:org/partial", "hf-hub:org/absent", "hf-hub:org/good@v9", "hf-hub:a/b/c"],
        tmp_path, server.url,
    )  # fmt: skip
    assert online[:3] == [2.0, 1.0, 1.0]
    for found, expected in zip(
        online[3:],
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
    offline = ask(["hf-hub:org/good", record, "hf-hub:org/absent"], tmp_path, server.url, HF_HUB_OFFLINE="1")
    assert offline[:2] == [2.0, 1.0]
    assert "org/absent is not in the cache, and the Hub cannot be reached" in offline[2]
    assert len(server.requests_seen) == asked


def test_without_a_network_the_cache_answers_and_the_rest_is_a_clear_error(hub, tmp_path: Path):
    server, ids, _ = hub
    assert ask([f"hf-hub:org/good@{ids[0]}"], tmp_path, server.url) == [1.0]
    dead = "http://127.0.0.1:9"
    found = ask([f"hf-hub:org/good@{ids[0]}", "hf-hub:org/good"], tmp_path, dead)
    assert found[0] == 1.0
    assert "org/good is not in the cache, and the Hub cannot be reached" in found[1]
