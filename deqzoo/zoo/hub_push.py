"""Releases to the Hub: one commit with all files, and a tag on it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

from deqzoo.errors import PublishError
from deqzoo.version import __version__
from deqzoo.zoo.hub_errors import invalid_name, told_publishing
from deqzoo.zoo.told_by_author import AUTHORS_FILES

_MAIN = "main"


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What is on the Hub now.

    Attributes:
        commit: with all files of the release.
        tag: on it.
        url: of the repository's page.
    """

    commit: str
    tag: str
    url: str


def files_of(folder: Path) -> list[tuple[str, int]]:
    """Returns (path in the folder, size in bytes) of what would be sent."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in found]


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    branch: str | None = None,
    tag: str | None = None,
    message: str,
    progress: bool = False,
) -> Pushed:
    """Sends a folder to a repository, which is made if it does not exist.

    All files arrive in one commit or not at all. Nothing that another has committed meanwhile is overwritten. What the
    author told of an earlier release and not of this one is removed. What the Hub has already is not sent again; if
    that is everything, the tag of the same release is kept.

    Args:
        folder: the release.
        repo: "org/name".
        private: whether others may not see it; an existing repository keeps what it is, and must agree.
        branch: to commit to, None for main; made from main if it does not exist.
        tag: for the release; None takes the next free one of v1, v2, ….
        message: of the commit.
        progress: whether to show the client's bars.

    Raises:
        PublishError: if the Hub does not take it, or cannot be reached.
    """
    if repo.count("/") != 1:
        raise PublishError(invalid_name(repo))
    api = HfApi(library_name="deqzoo", library_version=__version__)
    if not progress and not are_progress_bars_disabled():
        disable_progress_bars()
    with told_publishing(repo):
        url = str(api.create_repo(repo, private=private, exist_ok=True))
        if private and not api.model_info(repo).private:
            raise PublishError(
                f"{repo} exists and is public. --private only makes new repositories private: change its visibility "
                "on its page, or publish without --private."
            )
        if branch is not None:
            api.create_branch(repo, branch=branch, exist_ok=True)
        refs = api.list_repo_refs(repo)
        tags = {ref.name: ref.target_commit for ref in refs.tags}
        if tag in tags:
            raise PublishError(
                f"{repo} has a release {tag!r} already. Releases stay as they are, so that whoever pinned one keeps "
                "it: choose another --tag."
            )
        head = next(ref.target_commit for ref in refs.branches if ref.name == (branch or _MAIN))
        names = [name for name, _ in files_of(folder)]
        there = api.list_repo_files(repo, revision=head)
        changes = [
            *(CommitOperationAdd(name, str(folder / name)) for name in names),
            # What was told of an earlier release would be told of this one.
            *(CommitOperationDelete(name) for name in AUTHORS_FILES if name in there and name not in names),
        ]
        done = api.create_commit(repo, changes, commit_message=message, revision=branch, parent_commit=head)
        known = [name for name, target in tags.items() if target == done.oid]
        if known and tag is None:
            return Pushed(commit=done.oid, tag=known[-1], url=url)
        tag = tag or _next_tag(tags)
        api.create_tag(repo, tag=tag, revision=done.oid, tag_message=message)
    return Pushed(commit=done.oid, tag=tag, url=url)


def _next_tag(tags: Iterable[str]) -> str:
    numbers = [int(found[1]) for tag in tags if (found := re.fullmatch(r"v(\d+)", tag))]
    return f"v{max(numbers, default=0) + 1}"
