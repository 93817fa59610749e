"""`deqzoo fit | validate | test`: Lightning's command line over the tasks and data of deqzoo."""

import errno
import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

# Imported so that their classes are known by their bare names too: --data MNIST.
import deqzoo.data
import deqzoo.tasks  # noqa: F401
from deqzoo.cli import synthetic
from deqzoo.errors import CheckpointError, DataError, DeqzooError, WeightsError
from deqzoo.tasks import GlobalBatch, RandomState, RunCost
from deqzoo.tasks.base import Task
from deqzoo.tasks.checkpoint_files import BestCheckpoint, LastCheckpoint
from deqzoo.tasks.safe_checkpoints import LAST, SafeCheckpointIO, is_whole, newest_whole
from deqzoo.tasks.told_to_end import PreemptedException

VERBS = ("fit", "validate", "test")


def main(argv: list[str], *, callbacks: Sequence[Callback] = ()) -> "TrainingCLI":
    """Runs a command such as `["fit", "-c", "recipes/pcdeq-mnist.yaml"]`.

    A run lives in runs/<name of the first recipe>/ unless --trainer.default_root_dir says otherwise:
    last.ckpt after every epoch (previous.ckpt is the one before), best.ckpt where there is validation, the config.yaml
    that would repeat it, and for each command version_<n>/metrics.csv. `--ckpt_path last` resumes, or evaluates, the
    newest checkpoint that is whole, and names those that are not. Without it, `fit` refuses a folder that holds a run.
    `--synthetic true`, or `--data.synthetic true`, tries out any recipe without its data.

    The batch size of a recipe is that of all processes together, each of which takes an equal share, so that steps and
    learning rate stay what they are; recipes with a `GlobalBatch` of their own have their own rule.

    Args:
        argv: the command.
        callbacks: of the trainer, beside those of the recipe.

    Raises:
        SystemExit: with a message about the arguments, if they are wrong; with code 143 after SIGTERM, and 138 after
            the signal by which SLURM announces that the time is over.
        DeqzooError: for what goes wrong later, a full disk too.
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
            return TrainingCLI(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # by hyperparameters, of which the tasks save none
                trainer_defaults={"callbacks": list(callbacks)},
                save_config_callback=RunConfig,
                save_config_kwargs={"save_to_log_dir": False, "overwrite": True},
                args=synthetic.plain(argv),
            )
    except SIGTERMException as told:
        # By itself it ends the process with code 0, as if the run had come to its end.
        by = signal.SIGUSR1 if isinstance(told, PreemptedException) else signal.SIGTERM
        sys.stderr.write(f"deqzoo: told to end by {by.name}. --ckpt_path last resumes.\n")
        raise SystemExit(128 + by) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CheckpointError(
            f"No room is left to write what belongs to the run ({error}). Training stops rather than go on unrecorded; "
            "the last checkpoint is whole: make room, and resume with --ckpt_path last."
        ) from error
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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that are not Lightning's."""
        parser.add_argument(
            synthetic.OPTION, type=bool, default=False, help="Take noise of the right shape for data: a dry run."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses `args`, which are all there are: whoever calls has taken them from the command line."""
        assert isinstance(args, list)
        rest, amounts = synthetic.apart(args)
        if not any(arg.split("=")[0] == synthetic.OPTION for arg in args):
            rest, amounts = args, []
        self.config = parser.parse_args(rest)
        chosen = self.config[self.config.subcommand]
        if chosen.synthetic:
            with warnings.catch_warnings():
                # What noise does not take, such as the folder of the data, is what is meant to be left out.
                warnings.filterwarnings("ignore", "(?s).*[Dd]iscarding")
                self.config = parser.parse_args([*rest, *synthetic.replacement(chosen), *amounts])
        elif amounts:
            self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Leaves checkpoints unread until `_choose_checkpoint`: tasks save no hyperparameters to look for."""

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
        callbacks: list[Any] = [*self.trainer_defaults["callbacks"], RandomState(), RunCost()]
        if self._saves:
            # In this order, so that last.ckpt knows of the best.
            best = [BestCheckpoint(folder, *self.model.best)] if isinstance(self.model, Task) else []
            callbacks += [*best, LastCheckpoint(folder)]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        plugins = wanted["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs.setdefault("plugins", [*plugins, SafeCheckpointIO()])
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
        """Refuses to write over an earlier run, and lets processes share the batches of the recipe."""
        self._choose_checkpoint(may_start_anew=True)
        callbacks, size = self.trainer.callbacks, getattr(self.datamodule, "batch_size", None)  # pyright: ignore
        if size is not None and not any(isinstance(callback, GlobalBatch) for callback in callbacks):
            callbacks.append(GlobalBatch(size * self.trainer.accumulate_grad_batches))
        last = self.run_folder / LAST
        if self._saves and self._get(self.config_init, "ckpt_path") is None and last.is_file():
            raise WeightsError(
                f"{last.absolute()} is of an earlier run. A fresh run would write over it: resume it with `--ckpt_path "
                f"last`, choose another folder with `--trainer.default_root_dir`, or remove {last.parent} first."
            )

    def before_validate(self) -> None:
        """Refuses to evaluate a checkpoint that is not there."""
        self._choose_checkpoint()

    def after_validate(self) -> None:
        """Says so if there was nothing to validate on, of which Lightning makes no word."""
        if not self.trainer.callback_metrics:
            raise DataError(
                "There is no validation data, so that nothing was evaluated. Images are split off the training images, "
                "a text off its end: set --data.val_size or --data.val_share, or evaluate with `deqzoo test`."
            )

    def before_test(self) -> None:
        """Refuses to evaluate a checkpoint that is not there."""
        self._choose_checkpoint()

    def _choose_checkpoint(self, *, may_start_anew: bool = False) -> None:
        """Turns "last" into a path: Lightning would go by time alone and, with none, evaluate random weights."""
        wanted = self._get(self.config, "ckpt_path")
        if wanted is None:
            chosen = self.config[self.config.subcommand]
            if not (may_start_anew or chosen.synthetic or _is_pretrained(chosen.model.as_dict())):
                raise WeightsError(
                    "No checkpoint was named, and the network would have random weights. Add `--ckpt_path last` for "
                    "the newest of the run's folder, or the path of one; or give create_model pretrained: true."
                )
            return
        path, damaged = newest_whole(self.run_folder) if wanted == "last" else (Path(wanted), [])
        if path is not None and path.is_file() and wanted != "last" and not is_whole(path):
            path, damaged = None, [path]
        if damaged:
            names = ", ".join(str(file.absolute()) for file in damaged)
            found = f"{names} is damaged: the file was cut short or changed since it was written."
            if path is None:
                raise WeightsError(
                    f"{found} No whole checkpoint is beside it to go on from. Take a copy, name another one with "
                    f"`--ckpt_path`, or remove {damaged[0].parent} and train anew."
                )
            rank_zero_warn(f"{found} The newest whole one is used instead: {path.absolute()}.")
        if path is None and may_start_anew:
            # So that one command both starts and resumes.
            self.config_init[str(self.subcommand)]["ckpt_path"] = None
            return
        if path is None or not path.exists():
            path = path or self.run_folder / LAST
            raise WeightsError(
                f"There is no checkpoint {path.absolute()}. `--ckpt_path` takes the path of one, or "
                "`last` for that of the run's folder: train first with `deqzoo fit`, or correct the path."
            )
        self.config_init[str(self.subcommand)]["ckpt_path"] = str(path)


class RunConfig(SaveConfigCallback):
    """Writes what a run was configured with beside its checkpoints, where `deqzoo.load` looks for it."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes config.yaml when training starts."""
        if stage == "fit":
            path = Path(trainer.default_root_dir) / self.config_filename
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, path, overwrite=self.overwrite)


def _is_pretrained(config: Any) -> bool:
    """Whether the configuration of a task asks anywhere for published weights."""
    if isinstance(config, dict):
        return config.get("pretrained") is True or any(map(_is_pretrained, config.values()))
    return False


def _is_no_advert(record: logging.LogRecord) -> bool:
    """Whether a line is about the run and not about a product."""
    return "Tip: For seamless cloud" not in record.getMessage()
