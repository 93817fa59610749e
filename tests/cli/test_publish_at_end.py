"""A run that publishes itself."""

import json
from pathlib import Path

from zoo.hub_client import deqzoo, environment
from zoo.hub_server import HubServer

from .test_training import QUIET, SMALL
from .test_training import recipe as recipe
from .test_training import workplace as workplace


def test_the_end_of_a_run_is_a_release_on_the_hub(recipe: Path, workplace: Path):
    callback = "--trainer.callbacks+=deqzoo.benchmark.publish_at_end.PublishAtEnd"
    arguments = [callback, "--trainer.callbacks.repo=org/run", "--trainer.max_epochs=1"]
    with HubServer() as server:
        env = environment(workplace / "home", server.url)
        run = deqzoo("fit", "-c", str(recipe), *QUIET, *SMALL, *arguments, env=env, cwd=workplace)
        assert run.returncode == 0, run.stderr
        repo = server.repos["org/run"]
    files = repo.commits[repo.tags["v1"]]
    results = json.loads(files["results.json"])
    assert results["evaluation"]["num_images"] == 16  # of the run's own test set
    assert (results["training"]["epochs"], results["training"]["seed"]) == (1, 3)
    assert results["training"]["hours"] >= 0
    assert b'deqzoo.load("hf-hub:org/run")' in files["README.md"]
