"""`deqzoo fit | validate | test`: Lightning's command line over the tasks and data of deqzoo."""

import logging
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

# Imported so that their classes are known by their bare names too: --data MNIST.
import deqzoo.data
import deqzoo.tasks  # noqa: F401
from deqzoo.errors import DataError, DeqzooError, WeightsError
from deqzoo.tasks import RandomState, RunCost
from deqzoo.tasks.base import Task

VERBS = ("fit", "validate", "test")


def main(argv: list[str]) -> None:
    """Runs a command such as `["fit", "-c", "recipes/pcdeq-mnist.yaml"]`.

    A run lives in runs/<name of the first recipe>/ unless --trainer.default_root_dir says otherwise:
    last.ckpt after every epoch, best.ckpt where there is validation, the config.yaml that would repeat it,
    and for each command version_<n>/metrics.csv. `--ckpt_path last` resumes, or evaluates, the last epoch. Without it,
    `fit` refuses a folder that holds a run.

    Raises:
        SystemExit: with a message about the arguments, if they are wrong.
        DeqzooError: for what goes wrong later.
    """
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    rank_zero.addFilter(_is_no_advert)
    try:
        with warnings.catch_warnings():
            # A run folder is there to be resumed from; before_fit guards what is in it.
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
            if argv[:1] != ["fit"]:  # nothing is saved there, wherever the checkpoint is from
                warnings.filterwarnings("ignore", "The dirpath has changed from")
            # What Lightning calls in torch and jsonargparse is not for whoever trains to mend.
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.", FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.|jsonargparse\.")
            TrainingCLI(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # by hyperparameters, of which the tasks save none
                save_config_callback=RunConfig,
                save_config_kwargs={"save_to_log_dir": False, "overwrite": True},
                args=argv,
            )
    finally:
        rank_zero.removeFilter(_is_no_advert)


class TrainingCLI(LightningCLI):
    """Lightning's command line with a run folder that keeps its place."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the verbs and which of their arguments are no options."""
        return {verb: skipped for verb, skipped in LightningCLI.subcommands().items() if verb in VERBS}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Returns a parser to which an abbreviated option is an unknown one."""
        return super().init_parser(**{"prog": "deqzoo", "allow_abbrev": False, **kwargs})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses `args`, which are all there are: whoever calls has taken them from the command line."""
        self.config = parser.parse_args(args)  # pyright: ignore[reportArgumentType]

    def instantiate_classes(self) -> None:
        """Makes task, data and trainer. What they object to is told in their words, not in the parser's."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            told: BaseException = error
            while told.__cause__ is not None:
                told = told.__cause__
            if isinstance(told, DeqzooError):
                raise told from None
            self._parser(self.subcommand).error(str(told))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Returns a trainer that logs and saves into the run folder."""
        wanted = self._get(self.config_init, "trainer")
        folder = self.run_folder
        kwargs.setdefault("default_root_dir", str(folder))
        if wanted["logger"] in (None, True):
            kwargs.setdefault("logger", CSVLogger(folder, name=""))
        callbacks: list[Any] = [RandomState(), RunCost()]
        if self._saves:
            # In this order, so that last.ckpt knows of the best.
            best = [BestCheckpoint(folder, *self.model.best)] if isinstance(self.model, Task) else []
            callbacks += [*best, last_checkpoint(folder)]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        return super().instantiate_trainer(**kwargs)

    @property
    def _saves(self) -> bool:
        """Whether training writes checkpoints."""
        wanted = self._get(self.config_init, "trainer")
        return wanted["enable_checkpointing"] is not False and not wanted["fast_dev_run"]

    @property
    def run_folder(self) -> Path:
        """Where this run lives."""
        chosen = self._get(self.config, "trainer")["default_root_dir"]
        if chosen is not None:
            return Path(chosen)
        recipes = self._get(self.config, "config") or []
        return Path("runs") / (Path(str(recipes[0])).stem if recipes else "unnamed")

    def before_fit(self) -> None:
        """Refuses to write over an earlier run."""
        self._require_checkpoint(may_start_anew=True)
        last = self.run_folder / "last.ckpt"
        if self._saves and self._get(self.config, "ckpt_path") is None and last.is_file():
            raise WeightsError(
                f"{last.absolute()} is of an earlier run. A fresh run would write over it: resume it with `--ckpt_path "
                f"last`, choose another folder with `--trainer.default_root_dir`, or remove {last.parent} first."
            )

    def before_validate(self) -> None:
        """Refuses to evaluate a checkpoint that is not there."""
        self._require_checkpoint()

    def after_validate(self) -> None:
        """Says so if there was nothing to validate on, of which Lightning makes no word."""
        if not self.trainer.callback_metrics:
            raise DataError(
                "There is no validation data, so that nothing was evaluated. Images are split off the training images, "
                "a text off its end: set --data.val_size or --data.val_share, or evaluate with `deqzoo test`."
            )

    def before_test(self) -> None:
        """Refuses to evaluate a checkpoint that is not there."""
        self._require_checkpoint()

    def _require_checkpoint(self, *, may_start_anew: bool = False) -> None:
        wanted = self._get(self.config, "ckpt_path")
        if wanted == "last" and not may_start_anew:
            # Lightning would only warn, and evaluate random weights.
            wanted = self.run_folder / "last.ckpt"
        if wanted not in (None, "last") and not Path(wanted).exists():
            raise WeightsError(
                f"There is no checkpoint {Path(wanted).absolute()}. `--ckpt_path` takes the path of one, or "
                "`last` for that of the run's folder: train first with `deqzoo fit`, or correct the path."
            )


class RunConfig(SaveConfigCallback):
    """Writes what a run was configured with beside its checkpoints, where `deqzoo.load` looks for it."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes config.yaml when training starts."""
        if stage == "fit":
            path = Path(trainer.default_root_dir) / self.config_filename
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, path, overwrite=self.overwrite)


def last_checkpoint(folder: Path) -> ModelCheckpoint:
    """Returns what writes last.ckpt after every epoch.

    `save_last` beside a monitored metric does so only after epochs that improved the metric.
    """
    return ModelCheckpoint(
        folder,
        filename="last",
        every_n_epochs=1,
        save_on_train_epoch_end=True,  # also in epochs without validation
        enable_version_counter=False,
    )


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt after each epoch with the best figure of validation so far; nothing without such.

    Args:
        folder: to write into.
        figure: as the task logs it.
        mode: whether the best is its "max" or its "min".
    """

    def __init__(self, folder: Path, figure: str, mode: str) -> None:
        super().__init__(folder, filename="best", monitor=figure, mode=mode, enable_version_counter=False)

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
