"""What the Hub's client raises, in words for whoever called `deqzoo.load` or `deqzoo publish`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import utils
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from deqzoo.errors import PublishError, WeightsError
from deqzoo.zoo.layout import CONFIG_FILE, WEIGHTS_FILE

_NETWORK: Any = utils.httpx.HTTPError  # pyright: ignore[reportAttributeAccessIssue]  # whichever library the client uses


@contextmanager
def told_fetching(repo: str, revision: str | None) -> Iterator[None]:
    """Raises `WeightsError` for what goes wrong while a repository is read."""
    wanted = f"{repo}@{revision}" if revision else repo
    try:
        yield
    except HFValidationError as error:
        raise WeightsError(invalid_name(repo)) from error
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
    except (HfHubHTTPError, FileMetadataError, _NETWORK, OSError) as error:
        raise WeightsError(
            f"Fetching {wanted} from the Hub failed: {_first_line(error)}. Try again later, which goes on where it "
            "stopped; if it keeps failing, check the connection, the free disk space, and that the cache (HF_HOME) "
            "can be written."
        ) from error


@contextmanager
def told_publishing(repo: str) -> Iterator[None]:
    """Raises `PublishError` for what goes wrong while a repository is written."""
    try:
        yield
    except PublishError:
        raise
    except HFValidationError as error:
        raise PublishError(invalid_name(repo)) from error
    except OfflineModeIsEnabled as error:
        raise PublishError(
            f"{repo} was not published: HF_HUB_OFFLINE is set. Publishing needs the Hub: unset it, or use --dry-run."
        ) from error
    except HfHubHTTPError as error:
        raise PublishError(_refused(repo, error)) from error
    except ValueError as error:  # what the client makes of metadata that the Hub finds invalid
        raise PublishError(f"The Hub refused to take {repo}: {_first_line(error)}. Correct what it names.") from error
    except (_NETWORK, OSError, RuntimeError) as error:
        raise PublishError(
            f"{repo} was not published: {_first_line(error)}. All files arrive in one commit, so that the repository "
            "is as it was: check the connection and publish again, which sends only what is missing."
        ) from error


def _refused(repo: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else None
    if status == 412 or status == 409:
        return (
            f"{repo} was changed by somebody else while it was being published. Nothing was overwritten: look at what "
            "is there now, then publish again."
        )
    if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
        return (
            f"The Hub does not let you write to {repo} ({_first_line(error)}). Publishing needs a token that may: log "
            "in with `hf auth login`, or set HF_TOKEN."
        )
    return f"The Hub refused to take {repo}: {_first_line(error)}. Correct what it names, or try again later."


def invalid_name(repo: str) -> str:
    """Returns what to say of a name that is none of a repository."""
    return f"{repo!r} is no name of a repository on the Hub. It has the form org/name: correct it."


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
