"""Processes that talk to the Hub of the tests: its client reads the environment when it is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .hub_server import TOKEN

ROOT = Path(__file__).parents[2]

PRELUDE = """
import json, os, sys, time, urllib.request, warnings
time.sleep = lambda seconds: None  # the client waits between its attempts

def faults(**values):
    request = urllib.request.Request(os.environ["HF_ENDPOINT"] + "/faults", json.dumps(values).encode(), method="POST")
    urllib.request.urlopen(request).read()

def attempt(call, *args, **options):
    from deqzoo.errors import DeqzooError
    try:
        return call(*args, **options)
    except DeqzooError as error:
        return f"{type(error).__name__}: {error}"

found = {}
"""


def environment(home: Path, endpoint: str, *, xet: bool = False, **extra: str) -> dict[str, str]:
    """Returns the environment of a process that knows this Hub and no other, with a cache in `home`."""
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
    switches = ("TELEMETRY", "UPDATE_CHECK", "PROGRESS_BARS", *(() if xet else ("XET",)))
    env |= {f"HF_HUB_DISABLE_{switch}": "1" for switch in switches}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return env | {"PYTHONPATH": os.pathsep.join(paths), "NO_PROXY": "127.0.0.1,localhost", **extra}


def deqzoo(*argv: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command line in a process of its own."""
    command = [sys.executable, "-m", "deqzoo", *argv]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)


def ask(script: str, *, env: dict[str, str], given: Any = None, before: tuple[str, ...] = ()) -> Any:
    """Runs a script, which has `given` and fills `found`, in a process of its own, and returns what it found.

    Args:
        script: may call `attempt(call, …)`, which gives the message of an error, and `faults(…)` of the server.
        env: as `environment` makes it.
        given: plain values.
        before: a command that the process is started by.
    """
    code = f"{PRELUDE}\ngiven = json.loads(sys.argv[1])\n{script}\nprint(json.dumps(found))"
    command = [*before, sys.executable, "-c", code, json.dumps(given)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
