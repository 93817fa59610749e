"""`deqzoo fit | validate | test`: Lightning's command line over the tasks and data of deqzoo."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

# Imported so that their classes are known by their bare names too: --data MNIST.
import deqzoo.data
import deqzoo.tasks  # noqa: F401
from deqzoo.errors import WeightsError
from deqzoo.tasks import RandomState

VERBS = ("fit", "validate", "test")


def main(argv: list[str]) -> None:
    """Runs a command such as `["fit", "-c", "recipes/pcdeq-mnist.yaml"]`.

    A run lives in runs/<name of the recipe>/ unless --trainer.default_root_dir says otherwise: last.ckpt after every
    epoch, best.ckpt where there is validation, and a folder version_<n>/ for each command, with metrics.csv and the
    config.yaml that would repeat it. `--ckpt_path last` resumes, or evaluates, the last epoch.

    Raises:
        SystemExit: with a message about the arguments, if they are wrong.
        DeqzooError: for what goes wrong later.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advert)
    TrainingCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": True},
        args=argv,
    )


class TrainingCLI(LightningCLI):
    """Lightning's command line with a run folder that keeps its place."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the verbs and which of their arguments are no options."""
        return {verb: skipped for verb, skipped in LightningCLI.subcommands().items() if verb in VERBS}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses `args`, which are all there are: whoever calls has taken them from the command line."""
        self.config = parser.parse_args(args)  # pyright: ignore[reportArgumentType]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Returns a trainer that logs and saves into the run folder."""
        wanted = self._get(self.config_init, "trainer")
        folder = self.run_folder
        kwargs.setdefault("default_root_dir", str(folder))
        if wanted["logger"] in (None, True):
            kwargs.setdefault("logger", CSVLogger(folder, name=""))
        callbacks: list[Any] = [RandomState()]
        if wanted["enable_checkpointing"] is not False and not wanted["fast_dev_run"]:
            callbacks += [last_checkpoint(folder), BestCheckpoint(folder)]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        return super().instantiate_trainer(**kwargs)

    @property
    def run_folder(self) -> Path:
        """Where this run lives."""
        chosen = self._get(self.config, "trainer")["default_root_dir"]
        if chosen is not None:
            return Path(chosen)
        recipes = self._get(self.config, "config") or []
        return Path("runs") / (Path(str(recipes[0])).stem if recipes else "unnamed")

    def before_validate(self) -> None:
        """Refuses to evaluate a checkpoint that is not there."""
        self._require_checkpoint()

    def before_test(self) -> None:
        """Refuses to evaluate a checkpoint that is not there."""
        self._require_checkpoint()

    def _require_checkpoint(self) -> None:
        # Lightning would only warn, and evaluate random weights.
        if self._get(self.config, "ckpt_path") == "last" and not (self.run_folder / "last.ckpt").is_file():
            raise WeightsError(
                f"There is no last.ckpt in {self.run_folder.absolute()}. `--ckpt_path last` takes it from there: train "
                "first with `deqzoo fit`, or pass the path of a checkpoint."
            )


def last_checkpoint(folder: Path) -> ModelCheckpoint:
    """Returns what writes last.ckpt after every epoch.

    `save_last` beside a monitored metric does so only after epochs that improved the metric.
    """
    return ModelCheckpoint(folder, filename="last", every_n_epochs=1, enable_version_counter=False)


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt after each epoch with the highest validation accuracy so far; nothing without validation."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, filename="best", monitor="val/top1", mode="max", enable_version_counter=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, if there was validation."""
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, if validation had images."""
        if self.monitor in trainer.callback_metrics:
            super().on_validation_end(trainer, pl_module)


def _is_no_advert(record: logging.LogRecord) -> bool:
    """Whether a line is about the run and not about a product."""
    return "Tip: For seamless cloud" not in record.getMessage()
