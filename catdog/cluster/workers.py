"""``Workers``: number, resources and precision of the training workers."""

from __future__ import annotations

from dataclasses import dataclass

from catdog.config import ComputeSettings
from catdog.config.architectures import MODELS, ModelName
from catdog.console import plural


@dataclass(frozen=True)
class Workers:
    """The worker group to train with, decided once for a run.

    Attributes:
        count: number of workers that the cluster has room for; with GPUs one each.
        cpus: CPU cores of each worker, also the threads it computes with.
        precision: Keras dtype policy, e.g. ``float32`` or ``mixed_bfloat16``; see
            :meth:`precision_of`.
        span: fewest and most workers, where a training goes on with what the cluster has.
        resize_every_s: how often it then looks for nodes that have joined.
        by_model: whether a model may be trained in another precision than the hardware's best.
    """

    count: int
    cpus: int
    use_gpu: bool
    precision: str
    max_restarts: int = 3
    stall_limit_s: int = 600
    span: tuple[int, int] | None = None
    resize_every_s: int = 60
    by_model: bool = False

    @classmethod
    def of(
        cls,
        settings: ComputeSettings,
        count: int,
        cpus: int,
        gpu: bool,
        policy: str,
        span: tuple[int, int] | None = None,
    ) -> Workers:
        restarts, stall_s = settings.max_restarts, settings.stall_limit_s
        every_s, by_model = settings.resize_every_s, settings.precision == "auto"
        return cls(count, cpus, gpu, policy, restarts, stall_s, span, every_s, by_model)

    def precision_of(self, model: ModelName) -> str:
        """Keras dtype policy for ``model``.

        :attr:`precision`, unless nobody asked for it, the workers have no GPU and the table of
        models says that this one is slower in bfloat16 (a rule, from a measurement: no time is
        spent on one at each start).
        """
        if self.by_model and not self.use_gpu and MODELS[model].cpu_precision == "float32":
            return "float32"
        return self.precision

    @property
    def min_count(self) -> int:
        """How many there must be for a training to start."""
        return self.span[0] if self.span else self.count

    @property
    def each(self) -> dict[str, int]:
        """Ray's resources of one worker."""
        return {"CPU": self.cpus} | ({"GPU": 1} if self.use_gpu else {})

    def __str__(self) -> str:
        """``1 worker, 2 CPU cores each``; ``1 to 3 workers, 1 GPU each``."""
        count = plural(self.count, "worker")
        if self.span:
            count = f"{self.span[0]} to {self.span[1]} workers"
        each = "1 GPU" if self.use_gpu else plural(self.cpus, "CPU core")
        return f"{count}, {each} each"
