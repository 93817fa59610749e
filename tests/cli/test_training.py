"""`deqzoo fit`, `validate` and `test`, on little data in the format of MNIST."""

import csv
import logging
import shlex
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.fabric.loggers.csv_logs import _ExperimentWriter

import deqzoo
import deqzoo.data
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.cli.training import main
from deqzoo.errors import CheckpointError, DataError, UnknownModelError, WeightsError
from deqzoo.models import entry

RECIPES_FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(RECIPES_FOLDER.rglob("*.yaml"))
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SMALL = [
    *("--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"),
    *("--data.root=data", "--data.batch_size=8", "--data.eval_batch_size=16"),
]


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty working directory but for data/MNIST with 32 training and 16 test images."""
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 32), ("t10k", 16)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


@pytest.fixture
def recipe(workplace) -> Path:
    """A recipe for a small network, with every part that the real ones have."""
    text = """
    seed_everything: 3
    model:
      class_path: deqzoo.tasks.ImageClassifier
      init_args:
        net: {class_path: deqzoo.create_model, init_args: {name: pcdeq-mnist-linear}}
        optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.01}}
        schedule: {class_path: deqzoo.tasks.WarmupCosine, init_args: {warmup: 0.5}}
    data: {class_path: deqzoo.data.MNIST}
    trainer:
      max_epochs: 2
      callbacks:
        - {class_path: deqzoo.tasks.WarmupEMA, init_args: {decay: 0.9}}
        - class_path: deqzoo.tasks.TrainingSolver
          init_args: {solver: {class_path: deqzoo.solvers.Picard, init_args: {rtol: 0.3, max_steps: 100}}}
    """
    path = workplace / "small.yaml"
    path.write_text(text)
    return path


def run(verb: str, recipe: Path, *arguments: str) -> None:
    main([verb, "-c", str(recipe), *QUIET, *SMALL, *arguments])


def metrics(folder: Path) -> dict[str, list[str]]:
    """Returns the columns of a metrics.csv, without gaps."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows if row[name]] for name in rows[0]}


def test_a_run_lives_in_a_folder_named_like_its_recipe(recipe, workplace):
    run("fit", recipe)
    folder = workplace / "runs" / "small"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"last.ckpt", "previous.ckpt", "config.yaml", "version_0/metrics.csv"}
    assert len(metrics(folder / "version_0")["train/loss"]) == 8
    run("test", recipe, "--ckpt_path=last")
    assert "test/top1" in metrics(folder / "version_1")
    assert deqzoo.load(folder).transform.size == (28, 28)


def test_last_is_the_last_epoch_and_resuming_changes_nothing(recipe, workplace):
    # A schedule would depend on the number of epochs; mixup draws random numbers.
    steady = ["--model.schedule=null", "--model.mixup=0.5"]
    run("fit", recipe, *steady, "--trainer.default_root_dir=whole")
    run("fit", recipe, *steady, "--trainer.default_root_dir=parts", "--trainer.max_epochs=1")
    assert torch.load("parts/last.ckpt", weights_only=True)["epoch"] == 0
    run("fit", recipe, *steady, "--trainer.default_root_dir=parts", "--ckpt_path=last")
    whole, parts = (torch.load(f"{name}/last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert whole["epoch"] == parts["epoch"] == 1
    assert whole["global_step"] == parts["global_step"] == 8
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name


def test_further_recipes_adjust_the_first(recipe, workplace):
    (workplace / "tweak.yaml").write_text("trainer: {max_steps: 3}")
    run("fit", recipe, "-c", "tweak.yaml")
    assert torch.load("runs/small/last.ckpt", weights_only=True)["global_step"] == 3


def test_validation_chooses_best_and_not_last(recipe, workplace):
    run(
        "fit",
        recipe,
        *("--data.val_size=10", "--trainer.max_epochs=4", "--trainer.default_root_dir=here"),
    )
    best, last = (torch.load(f"here/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    scores = [float(score) for score in metrics(Path("here/version_0"))["val/top1"]]
    assert last["epoch"] == 3
    assert best["epoch"] == scores.index(max(scores))
    run("validate", recipe, "--data.val_size=10", "--ckpt_path=here/best.ckpt")
    (again,) = metrics(Path("runs/small/version_0"))["val/top1"]
    assert float(again) == max(scores)


def test_the_saved_configuration_repeats_the_run(recipe, workplace):
    run("fit", recipe, "--trainer.max_steps=2", "--model.label_smoothing=0.1")
    config = workplace / "runs" / "small" / "config.yaml"
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["label_smoothing"] == 0.1
    main(["fit", "-c", str(config), "--trainer.default_root_dir=again"])
    ends = [torch.load(f"{folder}/last.ckpt", weights_only=True) for folder in ("runs/small", "again")]
    for name, value in ends[0]["state_dict"].items():
        assert torch.equal(value, ends[1]["state_dict"][name]), name


def test_a_fresh_run_does_not_write_over_another(recipe, workplace):
    run("fit", recipe, "--trainer.max_steps=1")
    last = workplace / "runs" / "small" / "last.ckpt"
    before = last.read_bytes()
    with pytest.raises(WeightsError) as caught:
        run("fit", recipe, "--trainer.max_steps=1")
    for part in ("small/last.ckpt is of an earlier run", "`--ckpt_path last`", "--trainer.default_root_dir", "remove"):
        assert part in str(caught.value)
    assert last.read_bytes() == before
    assert len(list(last.parent.glob("version_*"))) == 1
    # What saves nothing may run there, and so may what goes on from a checkpoint.
    run("fit", recipe, "--trainer.fast_dev_run=1")
    run("fit", recipe, "--trainer.max_steps=1", "--trainer.enable_checkpointing=false")
    assert last.read_bytes() == before
    run("fit", recipe, "--trainer.max_steps=3", f"--ckpt_path={last}")
    assert torch.load(last, weights_only=True)["global_step"] == 3


def test_a_run_is_tested_with_the_solver_that_its_model_is_loaded_with(recipe, workplace):
    run("fit", recipe, "--trainer.max_steps=2")
    run("test", recipe, "--ckpt_path=last")
    tested = metrics(Path("runs/small/version_1"))
    figures = evaluate(deqzoo.load("runs/small"), deqzoo.data.MNIST("data"))
    assert figures.rtol == 1e-4
    for key in ("evals_mean", "residual_max", "loss"):
        (value,) = tested[f"test/{key}"]
        assert float(value) == pytest.approx(figures.as_dict()[key], rel=1e-5)
    trained = metrics(Path("runs/small/version_0"))["train/residual_max"]
    assert all(1e-3 < float(residual) <= 0.3 for residual in trained)


def test_lightning_does_not_advertise(recipe, workplace, caplog):
    with caplog.at_level(logging.INFO):
        run("fit", recipe, "--trainer.max_steps=1")
    assert "max_steps=1" in caplog.text
    assert "litlogger" not in caplog.text
    assert "litmodels" not in caplog.text


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_random_weights_are_not_evaluated_by_mistake(verb, recipe, workplace):
    with pytest.raises(WeightsError, match=r"no checkpoint .*small/last\.ckpt.*train first"):
        run(verb, recipe, "--ckpt_path=last")
    with pytest.raises(WeightsError, match=r"No checkpoint was named.*`--ckpt_path last`"):
        run(verb, recipe)


def test_published_weights_need_no_checkpoint(recipe, workplace):
    recipe.write_text(
        recipe.read_text().replace("name: pcdeq-mnist-linear", "name: pcdeq-mnist-linear, pretrained: true")
    )
    run("test", recipe)
    (metrics,) = workplace.glob("runs/small/version_*/metrics.csv")
    assert "test/top1" in metrics.read_text()


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_wrong_checkpoint_path_is_named(verb, recipe, workplace):
    with pytest.raises(WeightsError, match=r"no checkpoint .*nowhere\.ckpt.*correct the path"):
        run(verb, recipe, "--ckpt_path=nowhere.ckpt")


def test_validation_without_images_is_an_error(recipe, workplace):
    with pytest.raises(DataError, match=r"no validation data.*--data\.val_size"):
        run("validate", recipe, "--synthetic=true")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model.smoothing=0.1"], "'smoothing' is not accepted"),
        (["--trainer.max_epoch=3"], "max_epoch"),
        (["--model.schedule.warmup=2"], "choose warmup from [0, 1)"),
        (["--data.batch_size=many"], "many"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, told, recipe, workplace, capsys):
    with pytest.raises(SystemExit) as ended:
        run("fit", recipe, *arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_wrong_name_of_a_model_is_told_plainly(recipe, workplace):
    with pytest.raises(UnknownModelError, match=r"^No model is called 'pcdeq-mnits'\. Did you mean"):
        run("fit", recipe, "--model.net.name=pcdeq-mnits")


def data_of(recipe: Path) -> str:
    return yaml.safe_load(recipe.read_text())["data"]["class_path"].rpartition(".")[2]


def of_data(*names: str) -> pytest.MarkDecorator:
    """Every recipe with one of these data modules."""
    chosen = [path for path in RECIPES if data_of(path) in names]
    return pytest.mark.parametrize("recipe", chosen, ids=lambda path: path.stem)


@pytest.mark.parametrize("option", ["--synthetic", "--data.synthetic"])
def test_a_recipe_can_be_tried_out_without_its_data(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = RECIPES_FOLDER / "pcdeq-mnist.yaml"
    main(["fit", "-c", str(path), *QUIET, option, "true", "--data.batch_size=4", "--trainer.fast_dev_run=1"])
    main(["fit", "-c", str(path), *QUIET, f"{option}=true", "--data.batch_size=4", "--trainer.max_steps=1"])
    data = yaml.safe_load(Path("runs/pcdeq-mnist/config.yaml").read_text())["data"]
    assert data["class_path"].endswith("NoiseImages")
    # What fits both is kept.
    assert (data["init_args"]["like"], data["init_args"]["batch_size"]) == ("mnist", 4)
    assert data["init_args"]["augment"]


@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")
@pytest.mark.parametrize(
    ("name", "amount", "arguments"),
    [
        ("pcdeq-mnist-linear", "num_images", ["--data.num_images", "6"]),
        ("deq-lm-shakespeare-tiny", "num_tokens", ["--data.init_args.num_tokens=600"]),
    ],
    ids=["images", "tokens"],
)
def test_the_amount_of_noise_can_be_chosen(name, amount, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = RECIPES_FOLDER / f"{name}.yaml"
    arguments = [*arguments, "--synthetic=true", "--data.batch_size=2"]
    main(["fit", "-c", str(path), *QUIET, *arguments, "--trainer.max_steps=1", "--trainer.log_every_n_steps=1"])
    data = yaml.safe_load(Path(f"runs/{name}/config.yaml").read_text())["data"]
    assert data["init_args"][amount] == (6 if amount == "num_images" else 600)


def test_an_amount_without_noise_is_refused(recipe, workplace, capsys):
    with pytest.raises(SystemExit):
        run("fit", recipe, "--data.num_images=6", "--synthetic=false")
    assert "num_images" in capsys.readouterr().err


def test_a_recipe_whose_data_is_not_known_says_so(recipe, workplace):
    text = recipe.read_text().replace("deqzoo.create_model, init_args: {name: pcdeq-mnist-linear}", "torch.nn.Flatten")
    recipe.write_text(text)
    with pytest.raises(DataError, match=r"--synthetic needs to know what the data looks like, and found None.*`like`"):
        run("fit", recipe, "--synthetic=true")


def test_a_disk_without_room_for_the_log_is_told(recipe, workplace, monkeypatch):
    monkeypatch.setattr(_ExperimentWriter, "save", lambda writer: Path("/dev/full").write_text("metrics"))
    with pytest.raises(
        CheckpointError, match=r"No room is left .*No space left on device.*resume with --ckpt_path last"
    ):
        run("fit", recipe, "--trainer.max_epochs=1")


def test_a_damaged_checkpoint_is_named(recipe, workplace):
    run("fit", recipe, "--trainer.max_epochs=1")
    last = workplace / "runs" / "small" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"small/last\.ckpt is damaged: .*No whole checkpoint is beside it"):
        run("fit", recipe, "--ckpt_path=last")
    with pytest.raises(WeightsError, match=r"small/last\.ckpt is damaged"):
        run("test", recipe, f"--ckpt_path={last}")


@of_data("MNIST")
def test_every_recipe_runs(recipe, workplace):
    run("fit", recipe, "--trainer.max_steps=2")
    run("test", recipe, "--ckpt_path=last")
    (top1,) = metrics(Path("runs") / recipe.stem / "version_1")["test/top1"]
    assert 0 <= float(top1) <= 1


@of_data("CIFAR10", "StreamedImageFolder")
def test_every_other_recipe_for_images_runs_on_noise(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if recipe.stem in ("mdeq-imagenet-large", "mdeq-imagenet-xl"):
        # Too large to be trained here: every option is checked, and nothing is built.
        with pytest.raises(SystemExit) as ended:
            main(["fit", "-c", str(recipe), "--print_config"])
        assert ended.value.code == 0
        return
    content = yaml.safe_load(recipe.read_text())
    options = content["data"]["init_args"]
    like = options.pop("like", "cifar10")
    for name in ("root", "crop", "num_workers"):
        options.pop(name, None)
    options |= {"like": like, "num_images": 4, "batch_size": 2, "size": 32 if like == "cifar10" else 64}
    content["data"]["class_path"] = "deqzoo.data.NoiseImages"
    callbacks = content["trainer"]["callbacks"]
    # It would ask for the batch of the recipe.
    callbacks[:] = [callback for callback in callbacks if callback["class_path"] != "deqzoo.tasks.GlobalBatch"]
    for callback in callbacks:
        if callback["class_path"] == "deqzoo.tasks.FastPath":
            callback["init_args"] = {"compile": False}  # which takes minutes
    content["trainer"] |= {"accelerator": "cpu", "devices": 1, "precision": "32-true"}
    small = tmp_path / recipe.name
    small.write_text(yaml.safe_dump(content))
    main(["fit", "-c", str(small), *QUIET, "--trainer.max_steps=1", "--trainer.log_every_n_steps=1"])
    (loss,) = metrics(Path("runs") / recipe.stem / "version_0")["train/loss"]
    assert 0 < float(loss) < 100
    assert deqzoo.load(f"runs/{recipe.stem}").net.num_classes in (10, 1000)


@pytest.mark.parametrize("name", ["mdeq-imagenet-small", "mdeq-imagenet-large", "mdeq-imagenet-xl"])
def test_the_streams_that_a_recipe_speaks_of_are_options(name, capsys):
    pytest.importorskip("webdataset")
    pytest.importorskip("datasets")
    path = RECIPES_FOLDER / f"{name}.yaml"
    comment = [line.removeprefix("#") for line in path.read_text().splitlines() if line.startswith("#   ")]
    said = "".join(line for line in comment if line.startswith("   --data") or line.startswith("     --data"))
    streams = [shlex.split("--data " + stream) for stream in said.split("--data deqzoo") if "Stream" in stream]
    assert len(streams) == 2
    for reader, stream in zip(("wds", "hfids/timm/imagenet-1k-wds"), streams, strict=True):
        stream[1] = "deqzoo" + stream[1]
        with pytest.raises(SystemExit) as ended:
            main(["fit", "-c", str(path), *stream, "--print_config"])
        assert ended.value.code == 0
        data = yaml.safe_load(capsys.readouterr().out)["data"]
        assert data["class_path"].endswith("TimmStream") and data["init_args"]["reader"] == reader
        assert data["init_args"]["train"].endswith("|1281167") and data["init_args"]["val"].endswith("|50000")
        # What fits both is kept.
        assert data["init_args"]["like"] == "imagenet-1k" and data["init_args"]["crop"] and data["init_args"]["augment"]


def test_recipes_are_named_like_their_models():
    assert RECIPES
    for path in RECIPES:
        content = yaml.safe_load(path.read_text())
        net = content["model"]["init_args"]["net"]
        assert net["class_path"] == "deqzoo.create_model"
        assert net["init_args"]["name"] == path.stem
        wanted = entry(path.stem).recipe
        assert wanted is not None
        assert path == (RECIPES_FOLDER / f"{wanted}.yaml")
