"""`deqzoo benchmark | corruptions | trace`."""

import json
from pathlib import Path
from typing import Any

NAME = "pcdeq-mnist-linear"


def test_benchmark_compares_with_timm(deqzoo: Any, tmp_path: Path):
    options = ("--quick", "--no-train", "--batch-size", "2", "--batch-size", "1", "--device", "cpu", "--threads", "1")
    code, out, _ = deqzoo(
        "benchmark", NAME, "timm:resnet10t", NAME, "--data", "mnist-sample", *options, "--output", str(tmp_path)
    )
    assert code == 0
    assert out.startswith("Test images of mnist-sample; ") and "A quick look" in out
    assert out.count(f"\n{NAME}\n") == 1  # named twice, measured once
    assert "images/s at 1 " in out and "images/s at 2 " in out and "training" not in out
    assert "random weights" in out
    assert f"{NAME} takes 0.0143 x the parameters" in out
    (path,) = tmp_path.glob("benchmark-mnist-sample-*.json")
    assert str(path) in out
    entries = json.loads(path.read_text())["entries"]
    assert [(e["name"], e["training"]) for e in entries] == [(NAME, None), ("timm:resnet10t", None)]


def test_corruptions(deqzoo: Any, tmp_path: Path):
    code, out, _ = deqzoo(
        *("corruptions", NAME, "--data", "mnist-sample", "--corruption", "blur", "--device", "cpu"),
        *("--output", str(tmp_path)),
    )
    assert code == 0
    assert f"| {NAME} | blur | " in out and "jpeg" not in out
    (path,) = tmp_path.glob("corruptions-mnist-sample-*.json")
    assert [t["severity"] for t in json.loads(path.read_text())["trials"]] == [0, 1, 2, 3, 4, 5]
    options = ("--corruption", "blur", "--max-images", "20", "--device", "cpu", "--output", str(tmp_path))
    code, _, _ = deqzoo("corruptions", NAME, "--data", "mnist-sample", *options)
    assert code == 0
    (few,) = tmp_path.glob("corruptions-mnist-sample-20-images-*.json")
    assert {t["num_images"] for t in json.loads(few.read_text())["trials"]} == {20}
    assert {t["num_images"] for t in json.loads(path.read_text())["trials"]} == {300}
    code, _, err = deqzoo("corruptions", NAME, "--data", "mnist-sample", "--corruption", "snow")
    assert code == 2 and "is none of" in err
    code, _, err = deqzoo("corruptions", "timm:resnet10t", "--data", "mnist-sample")
    assert code == 1 and "has random weights" in err


def test_trace(deqzoo: Any, tmp_path: Path):
    picture = tmp_path / "picture.svg"
    code, out, _ = deqzoo("trace", NAME, "--device", "cpu", "--output", str(picture))
    assert code == 0
    assert "Picard: " in out and "predicts 7" in out and "Broyden: " in out
    assert picture.read_text().lstrip().startswith("<?xml")
    code, out, _ = deqzoo("trace", NAME, "--device", "cpu", "--output", str(picture), "--json", "--max-steps", "2")
    found = json.loads(out)
    assert code == 0
    assert [len(path["moments"]) for path in found["paths"]] == [2, 2, 2]
    assert found["picture"] == str(picture)
