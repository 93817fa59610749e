"""Uploads that meet a real Hub's troubles: afterwards a repository has the whole release, or is as it was."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from .hub_client import ask, environment
from .hub_server import COMMIT_OF_NOTHING, HubServer

SCRIPT = """
from pathlib import Path
from deqzoo.zoo.hub_push import push

def send(repo, weights=b"first " * 1000, card="---\\nlicense: apache-2.0\\n---\\n", **options):
    folder = Path(given) / repo.replace("/", "-")
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "README.md").write_text(card)
    done = attempt(push, folder, repo, message="a release", **options)
    return done if isinstance(done, str) else [done.commit, done.tag]

found["first"] = send("org/plain")
found["again"] = send("org/plain")
found["second"] = send("org/plain", b"second " * 1000)
found["named"] = send("org/plain", b"third " * 1000, tag="mnist-1")
found["taken"] = send("org/plain", b"fourth " * 1000, tag="v1")
found["branch"] = send("org/plain", b"fifth " * 1000, branch="dev")
found["public"] = send("org/plain", private=True)
(Path(given) / "org-told").mkdir()
told = Path(given) / "org-told" / "remarks.txt"
told.write_text("One of two runs.")
found["told"] = send("org/told")
told.unlink()
found["untold"] = send("org/told", b"second " * 1000)
found["private"] = send("org/secret", private=True)

faults(cut_uploads=1)
found["cut once"] = send("org/cut", b"cut " * 1000)
faults(cut_uploads=99)
found["cut"] = send("org/lost", b"lost " * 1000)
faults(cut_uploads=0)
found["resumed"] = send("org/lost", b"lost " * 1000)
faults(chunk_size=2000)
found["parts"] = send("org/parts", b"parts " * 1000)
faults(chunk_size=None, rival={"theirs.txt": "mine"})
found["rival"] = send("org/plain", b"sixth " * 1000)
found["metadata"] = send("org/bad", card="---\\nlicense: [3\\n---\\n")
found["name"] = send("no-owner")
os.environ["HF_TOKEN"] = "hf_wrong"
found["token"] = send("org/plain", b"seventh " * 1000)
"""


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory):
    """A Hub after the script, and what the script found."""
    folder = tmp_path_factory.mktemp("push")
    with HubServer() as server:
        yield server, ask(SCRIPT, env=environment(folder, server.url), given=str(folder))


def weights(server: HubServer, repo: str, revision: str) -> bytes:
    """Returns the weights at a revision."""
    found = server.repos[repo]
    commit = found.resolve(revision)
    assert commit is not None
    return found.commits[commit]["model.safetensors"]


def test_what_was_told_of_an_earlier_release_is_not_told_of_the_next(pushed: Any):
    server, found = pushed
    first, second = (server.repos["org/told"].commits[found[key][0]] for key in ("told", "untold"))
    assert first["remarks.txt"] == b"One of two runs."
    assert first.keys() - second.keys() == {"remarks.txt"}


def test_releases_are_counted_and_stay(pushed: Any):
    server, found = pushed
    assert [found[key][1] for key in ("first", "second", "named")] == ["v1", "v2", "mnist-1"]
    assert found["again"] == found["first"]  # nothing new, nothing made
    assert weights(server, "org/plain", "v1") == b"first " * 1000
    assert weights(server, "org/plain", "v2") == b"second " * 1000
    assert "org/plain has a release 'v1' already" in found["taken"]


def test_a_branch_is_made_where_it_is_missing(pushed: Any):
    server, found = pushed
    assert server.repos["org/plain"].branches["dev"] == found["branch"][0]
    assert weights(server, "org/plain", "dev") == b"fifth " * 1000


def test_private_is_never_public(pushed: Any):
    server, found = pushed
    assert server.repos["org/secret"].private
    assert not server.repos["org/plain"].private
    assert "PublishError: org/plain exists and is public" in found["public"]


def test_a_connection_that_is_cut_is_taken_up_again(pushed: Any):
    server, found = pushed
    assert found["cut once"][1] == "v1"
    assert weights(server, "org/cut", "v1") == b"cut " * 1000


def test_a_connection_that_stays_cut_leaves_the_repository_as_it_was(pushed: Any):
    server, found = pushed
    assert "PublishError: org/lost was not published" in found["cut"]
    assert "publish again, which sends only what is missing" in found["cut"]
    repo = server.repos["org/lost"]
    assert list(repo.commits) == [COMMIT_OF_NOTHING, found["resumed"][0]]  # none in between
    assert found["resumed"][1] == "v1"


def test_large_files_go_in_parts(pushed: Any):
    server, _ = pushed
    assert weights(server, "org/parts", "v1") == b"parts " * 1000
    digest = hashlib.sha256(b"parts " * 1000).hexdigest()
    assert f"PUT /lfs/{digest}/3" in server.requests_seen


def test_what_somebody_else_committed_meanwhile_is_not_overwritten(pushed: Any):
    server, found = pushed
    assert "PublishError: org/plain was changed by somebody else" in found["rival"]
    repo = server.repos["org/plain"]
    assert repo.commits[repo.branches["main"]]["theirs.txt"] == b"mine"
    assert weights(server, "org/plain", "main") == b"third " * 1000


def test_refusals_are_told(pushed: Any):
    server, found = pushed
    assert "PublishError: The Hub refused to take org/bad" in found["metadata"]
    assert "PublishError: 'no-owner' is no name of a repository on the Hub. It has the form org/name" in found["name"]
    assert "PublishError: The Hub does not let you write to org/plain" in found["token"]
    assert "hf auth login" in found["token"]
    assert "no-owner" not in json.dumps(list(server.repos))


def test_offline_nothing_is_sent(tmp_path: Path):
    script = SCRIPT.partition('found["again"]')[0]
    found = ask(script, env=environment(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1"), given=str(tmp_path))
    assert "org/plain was not published: HF_HUB_OFFLINE is set" in found["first"]


def test_the_default_way_of_the_client_sends_the_same_release(tmp_path: Path):
    pytest.importorskip("hf_xet")
    cas = tmp_path / "cas"
    cas.mkdir()
    script = SCRIPT.partition('found["again"]')[0]
    with HubServer(cas) as server:
        found = ask(script, env=environment(tmp_path, server.url, xet=True), given=str(tmp_path))
        assert found["first"][1] == "v1"
        assert "GET /api/models/org/plain/xet-write-token/main" in server.requests_seen
        assert not any("/lfs/" in seen for seen in server.requests_seen)
        assert any(path.is_file() for path in cas.rglob("*"))
