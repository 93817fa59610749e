"""Weights from the Hub: the only module that knows its client."""

from pathlib import Path

from huggingface_hub import hf_hub_download, resolve_revision
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from deqzoo.errors import WeightsError
from deqzoo.zoo.layout import CONFIG_FILE, WEIGHTS_FILE


def fetch(repo: str, revision: str | None = None) -> Path:
    """Returns a folder with the config and weights of a repository, both of one commit.

    What is cached is not fetched again, and needs no network if `revision` is a commit or was seen before.

    Args:
        repo: "org/name".
        revision: a commit, tag or branch; None for the default branch.

    Raises:
        WeightsError: if it does not exist, may not be read, or cannot be reached.
    """
    wanted = f"{repo}@{revision}" if revision else repo
    try:
        # A branch may move between two downloads: it is resolved once.
        commit = resolve_revision(repo, revision=revision)
        config = hf_hub_download(repo, CONFIG_FILE, revision=commit)
        weights = hf_hub_download(repo, WEIGHTS_FILE, revision=commit)
    except HFValidationError as error:
        raise WeightsError(
            f"{repo!r} is no name of a repository on the Hub. It has the form org/name: correct it."
        ) from error
    except GatedRepoError as error:
        raise WeightsError(
            f"The repository {repo} on the Hub is gated. Its owner decides who may read it: ask for access "
            "on its page, then log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(
            f"The repository {repo} on the Hub has no revision {revision!r}. Use a branch, tag or commit "
            "that it has, or none for its default branch."
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"There is no repository {repo} on the Hub, or it is private. Correct the name, or log in with "
            "`hf auth login`."
        ) from error
    except (RevisionResolutionError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise WeightsError(
            f"{wanted} is not in the cache, and the Hub cannot be reached. Once fetched it works offline: "
            "connect and load it once (HF_HUB_OFFLINE must be unset), or copy the cache (HF_HOME) from a "
            "machine that has it."
        ) from error
    except EntryNotFoundError as error:
        raise WeightsError(
            f"{wanted} on the Hub lacks {CONFIG_FILE} or {WEIGHTS_FILE}. Both are needed: is it a model of deqzoo?"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"Fetching {wanted} from the Hub failed: {str(error).splitlines()[0]}. Try again later; if it "
            "goes on, check the connection and the free disk space."
        ) from error
    if Path(config).parent != Path(weights).parent:
        raise WeightsError(f"{wanted} gave files of two commits: {config} and {weights}. Empty that cache folder.")
    return Path(weights).parent
