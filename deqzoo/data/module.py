"""What data modules of images and of texts have in common."""

from typing import Any

from lightning.pytorch import LightningDataModule


class DataModule(LightningDataModule):
    """Knows of its trainer which share of the data is this process's, and whether the training data are to be few."""

    @property
    def _overfits(self) -> bool:
        """Whether every epoch is to see the same few batches, those of `Trainer(overfit_batches=…)`."""
        # Lightning sets the attribute from outside of the class, where type checkers do not see it.
        return self.trainer is not None and self.trainer.overfit_batches > 0  # pyright: ignore

    def _process(self) -> dict[str, Any]:
        if self.trainer is None:
            return {}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
