"""Publishing as the last step of a training run."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from deqzoo.benchmark.publish import publish
from deqzoo.data import ImageData, TextData


class PublishAtEnd(Callback):
    """Measures the last checkpoint of a run on the test set and publishes it, as `deqzoo publish RUN` does.

    In a recipe:

        trainer:
          callbacks:
            - {class_path: deqzoo.benchmark.publish_at_end.PublishAtEnd, init_args: {repo: org/name}}

    A run that was interrupted, or that saves no checkpoints, publishes nothing.

    Args:
        repo: "org/name"; made if it does not exist.
        private: whether others may not see it.
        tag: of the release; None takes the next free one of v1, v2, ….
    """

    def __init__(self, repo: str, *, private: bool = False, tag: str | None = None) -> None:
        self.repo = repo
        self.private = private
        self.tag = tag

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publishes, from one process."""
        folder = Path(trainer.default_root_dir)
        if not trainer.is_global_zero or trainer.interrupted or not any(folder.rglob("*.ckpt")):
            return
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        publish(
            folder,
            self.repo,
            private=self.private,
            tag=self.tag,
            data=data if isinstance(data, ImageData | TextData) else None,
            device=pl_module.device,
        )
