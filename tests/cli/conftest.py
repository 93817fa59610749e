"""What tests of the command line share."""

from typing import Any

import pytest

from deqzoo.cli import main


@pytest.fixture
def deqzoo(capsys: pytest.CaptureFixture[str]):
    """Runs a command line; returns its exit code, stdout and stderr."""

    def run(*argv: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([*argv])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run
