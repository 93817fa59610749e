"""Weights from the Hub, always of one commit."""

import contextlib
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, resolve_revision, snapshot_download

from deqzoo.errors import WeightsError
from deqzoo.zoo.hub_errors import told_fetching
from deqzoo.zoo.layout import CONFIG_FILE, WEIGHTS_FILE
from deqzoo.zoo.tensors import sha256


def parse(text: str) -> tuple[str, str | None]:
    """Returns repository and revision, None for the default branch, of "org/name[@revision]"."""
    repo, _, revision = text.partition("@")
    return repo, revision or None


def fetch(repo: str, revision: str | None = None) -> Path:
    """Returns a folder with the config and weights of a repository, both of one commit.

    What is cached is not fetched again, and needs no network if `revision` is a commit or was seen before.

    Args:
        repo: "org/name".
        revision: a commit, tag or branch; None for the default branch.

    Raises:
        WeightsError: if it does not exist, may not be read, or cannot be reached.
    """
    with told_fetching(repo, revision):
        # A branch may move between two downloads: it is resolved once.
        commit = resolve_revision(repo, revision=revision)
        config = hf_hub_download(repo, CONFIG_FILE, revision=commit)
        weights = hf_hub_download(repo, WEIGHTS_FILE, revision=commit)
    if Path(config).parent != Path(weights).parent:
        raise WeightsError(
            f"{repo} gave files of two commits: {config} and {weights}. They belong together: empty that cache folder."
        )
    return Path(weights).parent


def fetch_release(repo: str, revision: str | None = None) -> Path:
    """Returns a folder with all files of a repository, of one commit. As `fetch` otherwise."""
    with told_fetching(repo, revision):
        commit = resolve_revision(repo, revision=revision)
        folder = Path(snapshot_download(repo, revision=commit))
    fetch(repo, commit)  # complains about what is missing
    return folder


def differing_files(repo: str, folder: Path) -> list[str] | None:
    """Returns how the files of a snapshot differ from those of its commit on the Hub, in words; None if offline.

    Args:
        repo: "org/name".
        folder: as `fetch_release` returned it.
    """
    try:
        found = HfApi().verify_repo_checksums(repo, revision=folder.name, local_dir=folder)
    except OSError:  # which all of the client's errors about the network are
        return None
    differing = [f"{m['path']} has {m['algorithm']} {m['actual']}, not {m['expected']}" for m in found.mismatches]
    return differing + [f"{path} is missing" for path in found.missing_paths]


def discard(folder: Path) -> bool:
    """Forgets the weights in a snapshot, if they are not what the Hub announced: the next `fetch` gets them anew.

    The cache names large files after the SHA-256 that was announced. Weights of a pin that is wrong are kept.

    Returns:
        Whether they were removed.
    """
    link = folder / WEIGHTS_FILE
    with contextlib.suppress(OSError):
        blob = link.resolve()
        if sha256(blob.read_bytes()) != blob.name:
            link.unlink()
            blob.unlink(missing_ok=True)
            return True
    return False
