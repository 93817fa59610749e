"""publish, verify, card, seeds, convert and download by command line, on releases of this machine."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deqzoo import load
from deqzoo.benchmark.publish import check_release
from deqzoo.errors import PublishError
from deqzoo.zoo.manifest import embedded_folder
from deqzoo.zoo.release import copy_kept, read_results

NAME = "pcdeq-mnist-linear"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A copy of the release in the package."""
    copy_kept(embedded_folder(NAME), tmp_path / "release")
    return tmp_path / "release"


def edit(path: Path, key: str, **values: Any) -> None:
    """Changes values of an object in a file of JSON."""
    content = json.loads(path.read_text())
    content[key] |= values
    path.write_text(json.dumps(content))


def test_a_dry_run_assembles_checks_shows_and_sends_nothing(deqzoo: Any, release: Path, monkeypatch: Any):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, out, _ = deqzoo("publish", str(release), "--repo", "org/linear", "--dry-run", "--device", "cpu")
    assert code == 0
    for file in ("README.md", "LICENSE", ".eval_results/mnist.yaml", "results.json", "model.safetensors"):
        assert file in out
    assert out.splitlines()[-1] == "checked; nothing was sent (--dry-run)"
    assert "checked, for org/linear" in out


def test_a_release_that_is_not_as_measured_is_not_sent(deqzoo: Any, release: Path):
    edit(release / "results.json", "sample", accuracy=98.0)
    code, out, err = deqzoo("publish", str(release), "--repo", "org/linear", "--dry-run", "--device", "cpu")
    assert (code, out) == (1, "")
    assert "has accuracy = 100.0 on the sample in the package, but its results say 98.0" in err


def test_a_release_that_is_not_its_source_is_not_sent(release: Path):
    other = load(NAME)
    other.net.fc.bias.data[0] += 1e-3  # pyright: ignore
    with pytest.raises(PublishError, match=r"gives other logits than its source, by up to 0\.001"):
        check_release(release, other, read_results(release))


def test_verify_says_what_held(deqzoo: Any):
    code, out, _ = deqzoo("verify", NAME, "--device", "cpu")
    assert code == 0
    for row in ("SHA-256 that this version pins", "accuracy on the sample", "certificate on the sample", "parameters"):
        assert any(line.startswith(row) and line.endswith(" held") for line in out.splitlines())
    assert "did not hold" not in out


def test_verify_says_what_did_not_hold_and_fails(deqzoo: Any, release: Path):
    edit(release / "results.json", "sample", loss=0.5)
    code, out, _ = deqzoo("verify", str(release), "--json", "--device", "cpu")
    found = json.loads(out)
    assert (code, found["held"]) == (1, False)
    assert [c["what"] for c in found["checks"] if c["verdict"] == "did not hold"] == ["loss on the sample"]


def test_a_tampered_byte_is_refused_by_name_of_file_with_both_hashes(deqzoo: Any, release: Path):
    path = release / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, out, _ = deqzoo("verify", str(release), "--json", "--device", "cpu")
    assert code == 1
    (check,) = json.loads(out)["checks"]  # nothing is read after that
    assert check["what"] == "SHA-256 of model.safetensors"
    assert check["verdict"] == "did not hold"
    assert check["claimed"] != check["found"]
    code, _, err = deqzoo("eval", str(release), "--device", "cpu")
    assert code == 1
    assert f"{path} was changed after it was published" in err
    assert check["claimed"] in err and check["found"] in err


def test_card_prints_what_the_repository_has(deqzoo: Any, release: Path):
    code, out, _ = deqzoo("card", str(release))
    assert code == 0
    assert out.startswith("---\nlicense: apache-2.0\n")
    assert "| executed operations |" in out
    assert "[log](metrics.csv)" in out


def test_download_copies_what_is_in_the_package(deqzoo: Any, tmp_path: Path):
    code, out, _ = deqzoo("download", "PcDEQ_mnist_linear", "--dest", str(tmp_path / "carried"))
    assert code == 0
    assert str(tmp_path / "carried" / NAME) in out
    assert deqzoo("verify", str(tmp_path / "carried" / NAME), "--device", "cpu")[0] == 0


def test_convert_makes_checkpoints_and_folders(deqzoo: Any, tmp_path: Path):
    assert deqzoo("convert", NAME, str(tmp_path / "x.ckpt"))[0] == 0
    assert deqzoo("convert", str(tmp_path / "x.ckpt"), str(tmp_path / "x"))[0] == 0
    assert (tmp_path / "x/model.safetensors").read_bytes() == (embedded_folder(NAME) / "model.safetensors").read_bytes()


def test_seeds_are_measured_for_a_card(deqzoo: Any, release: Path, tmp_path: Path):
    for split in ("train", "test"):
        for digit in range(10):
            folder = tmp_path / "digits" / split / str(digit)
            folder.mkdir(parents=True)
            Image.new("L", (28, 28), 20 * digit).save(folder / "a.png")
    run = tmp_path / "run"
    run.mkdir()
    assert deqzoo("convert", NAME, str(run / "last.ckpt"))[0] == 0
    options = ("--data", str(tmp_path / "digits"), "--device", "cpu")
    code, _, err = deqzoo("seeds", str(release), str(run), *options)
    assert code == 1 and f"{run} does not say which seed it had" in err
    (run / "config.yaml").write_text("seed_everything: 5\n")
    code, _, err = deqzoo("seeds", str(release), str(run), *options)
    assert code == 1 and f"{run} has taken 0 steps, the one of the weights 18760" in err
    edit(release / "results.json", "training", steps=0)  # what was converted has no count
    code, out, err = deqzoo("seeds", str(release), str(run), *options)
    assert code == 0, err
    assert [line.split(", ")[0] for line in out.splitlines()] == ["seed 0", "seed 5"]
    assert out.startswith("seed 0, accuracy 98.74, converged 1\n")
    assert "| accuracy, 2 seeds |" in (release / "README.md").read_text()
    assert deqzoo("seeds", str(release), str(tmp_path / "gone"), *options)[0] == 1
    assert deqzoo("seeds", str(release))[0] == 2


def test_what_cannot_be_published_is_one_line(deqzoo: Any, tmp_path: Path, release: Path):
    code, _, err = deqzoo("publish", "pcdeq-mnst", "--repo", "org/x")
    assert code == 1
    assert err.startswith("deqzoo: No model is called 'pcdeq-mnst'. Did you mean")
    (release / "results.json").unlink()
    code, _, err = deqzoo("publish", str(release), "--repo", "org/x", "--dry-run")
    assert code == 1
    assert "results.json could not be read" in err
    assert deqzoo("publish", NAME)[0] == 2
