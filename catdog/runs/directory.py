"""``RunDirectory``: the layout of a run, and whether the run is finished.

::

    <storage>/<name>/
        config.yaml  run.json  events.jsonl  lease.json
        data/            manifest.json  rejected.parquet  photos.parquet  (of the prepared set)
        models/<model>/  history.json  model.json  model.keras  predictions.parquet
                         checkpoints/  artifacts/
                         seeds/<seed>/  the same again, trained with another seed
        sweeps/<model>/  trials.json  trials.parquet  best.yaml  trials/
        report.json  report.html  report.md

A run directory is never wiped. Files are written atomically, and ``run.json`` is set to ``finished``
last.
"""

from __future__ import annotations

from dataclasses import dataclass

from catdog.config import Config, ModelName
from catdog.errors import UserError
from catdog.runs.records import Run
from catdog.storage import Location

@dataclass(frozen=True)
class TrainingId:
    """A training of a run: its model, and its seed if it is a repeat."""

    model: ModelName
    seed: int | None = None

    def __str__(self) -> str:
        """``base_cnn``, ``base_cnn seed 1``: in events, lines and the report."""
        return self.model if self.seed is None else f"{self.model} seed {self.seed}"


@dataclass(frozen=True)
class RunDirectory:
    """Paths and small files of one run."""

    root: Location

    @classmethod
    def of(cls, config: Config) -> RunDirectory:
        return cls(Location.of(config.storage) / config.run_name)

    @property
    def data(self) -> Location:
        return self.root / "data"

    def model(self, name: str) -> Location:
        return self.root / "models" / name

    def training(self, training: TrainingId) -> Location:
        """The folder of a training; that of a repeat lies below its model's."""
        folder = self.model(training.model)
        return folder if training.seed is None else folder / "seeds" / str(training.seed)

    def sweep(self, name: str) -> Location:
        return self.root / "sweeps" / name

    def read(self) -> Run:
        """``run.json``, without a name for a run that has not begun."""
        try:
            return Run.fitted((self.root / "run.json").read_json())[0]
        except FileNotFoundError:
            return Run()

    def update(self, **changes: object) -> Run:
        """Set keys of ``run.json`` and return the whole of it."""
        record = Run.model_validate(self.read().as_json() | changes)
        (self.root / "run.json").write_json(record.as_json())
        return record

    def claim(self, config: Config) -> Run:
        """Make this directory the run of ``config``, or find it to be that already.

        Raises:
            UserError: the directory holds a run with other settings.
        """
        record = self.read()
        if record.name and record.identity != config.identity:
            raise UserError(
                f"{self.root} holds a run with other settings (its config.yaml shows them); "
                "give another --name, or the settings of that run"
            )
        if not record.name:
            record = self.update(name=config.run_name, identity=config.identity, status="new")
        (self.root / "config.yaml").write_text(config.to_yaml())
        return record

    def is_finished(self, config: Config) -> bool:
        """Whether this run of ``config`` is complete, with as many epochs and trials as asked for.

        Raises:
            UserError: the directory holds a run with other settings.
        """
        record = self.read()
        if record.status != "finished":
            return False
        if record.identity != config.identity:
            self.claim(config)
        enough = all(record.asked.get(key, 0) >= n for key, n in asked(config).items())
        return enough and (self.root / "report.html").exists()


def asked(config: Config) -> dict[str, int]:
    """Settings that may grow from one command to the next without making it another run."""
    return {
        "epochs": config.scratch.epochs,
        "backbone_epochs": config.scratch.backbone_epochs or config.scratch.epochs,
        "fine_tune_epochs": config.fine_tune.epochs,
        "trials": config.sweep.trials,
        "seeds": config.seeds,
    }
