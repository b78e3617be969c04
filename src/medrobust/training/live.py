"""What a training shows while it runs: curves by DVCLive, and the last epoch in the stage's metrics file."""

from collections.abc import Mapping
from pathlib import Path

from medrobust.core.records import write_json

#: Name in the metrics file of what an epoch measured; at the end the same names have the values of the best epoch.
SHOWN = {"loss": "loss", "val_balanced_accuracy": "val_clean", "val_robust_balanced_accuracy": "val_robust"}


class LiveCurves:
    """Use it as the `on_epoch` of `loop.fit`, in one process; `close` it afterwards.

    `dvc exp show` reads the metrics file, also in DVC's copy of the workspace for a queued run, and `dvc plots
    show` the curves. Without `details` the metrics file is no result: only the finished stage writes the record.
    DVCLive must write to a folder of the stage's outs: inside an experiment it adds any other to git's index.
    """

    def __init__(self, curves: Path, metrics: Path) -> None:
        from dvclive import Live

        self.metrics = metrics
        self.live = Live(dir=str(curves), dvcyaml=None, save_dvc_exp=False, report=None)

    def __call__(self, epoch: int, row: Mapping[str, float]) -> None:
        """Add an epoch, including those that an earlier process finished."""
        for name, value in row.items():
            self.live.log_metric(name, value)
        self.live.next_step()
        shown = {SHOWN[name]: value for name, value in row.items() if name in SHOWN}
        write_json(self.metrics, {"epoch": epoch + 1, **shown}, digits=4)

    def close(self) -> None:
        """Write the last step."""
        self.live.end()
