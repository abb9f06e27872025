"""Names that Ray, Keras and Python's library keep to themselves, all in one place.

Each is used because no public one does the same, and may be gone in the next version. Then
:meth:`Name.get` says so, and ``tests/cluster/test_private.py`` says it before anybody trains.
Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from typing import Any

#: The versions that each library's names were seen to work with.
SEEN = {"ray": "2.56 to 2.60", "keras": "3.12 to 3.15", "python": "3.11 to 3.13"}


@dataclass(frozen=True)
class Name:
    """``path`` in ``module``, and what it is used for; the library is that of ``module``."""

    module: str
    path: str
    reason: str

    @property
    def library(self) -> str:
        top = self.module.partition(".")[0]
        return top if top in SEEN else "python"

    def get(self) -> Any:
        """What the name stands for.

        Raises:
            ImportError: the installed version has no such name; the line says which and what for.
        """
        try:
            module = importlib.import_module(self.module)
            return reduce(getattr, self.path.split("."), module)
        except (ImportError, AttributeError) as error:
            library = self.library
            installed = platform.python_version() if library == "python" else version(library)
            raise ImportError(
                f"{library.capitalize()} {installed} has no {self.module}.{self.path}: "
                f"{self.reason} (seen with {SEEN[library]})"
            ) from error


_TRAIN = "ray.train.v2._internal"
_EXECUTION = f"{_TRAIN}.execution"
#: :mod:`catdog.training.groups`.
DATASETS_CALLBACK = Name(f"{_TRAIN}.callbacks", "DatasetsCallback", "left out: 3 s of each start")
CONTROLLER_CALLBACK = Name(f"{_EXECUTION}.callback", "ControllerCallback", "runs beside a group")
CONTROLLER = Name(f"{_EXECUTION}.controller.controller", "TrainController", "starts the groups")
WORKER_GROUP = Name(f"{_EXECUTION}.worker_group", "WorkerGroup", "keeps resources if lost at start")
STARTUP_FAILED = Name(f"{_TRAIN}.exceptions", "WorkerGroupStartupFailedError", "asks for another")
#: :mod:`catdog.cluster.scaling`: the public call adds the nodes up.
FREE_BY_NODE = Name("ray._private.state", "available_resources_per_node", "a worker needs one node")
#: :mod:`catdog.data.graph`.
LIMITS = Name(
    "ray.data._internal.execution.resource_manager",
    "ResourceManager.GLOBAL_LIMITS_UPDATE_INTERVAL_S",
    "Ray Data looks at the cluster's size so seldom that it idles for its first second",
)
#: :mod:`catdog.data.archives`.
ZIP_END = Name("zipfile", "_EndRecData", "bounds a zip's directory before it is read as a whole")
TAR_END = Name("tarfile", "EOFHeaderError", "tells a tar's end marker from a tar that was cut")

#: Called or overridden by subclasses, in ``groups``, ``archives`` and ``training.optimization``.
OF_CLASSES = tuple(
    Name(module, f"{kind}.{attribute}", reason)
    for module, kind, reason, attributes in (
        (CONTROLLER.module, "TrainController", "replaced", "worker_group_cls"),
        (WORKER_GROUP.module, "WorkerGroup", "gives resources back", "_start has_started"),
        ("ray.train.v2.api.data_parallel_trainer", "DataParallelTrainer", "leaves one out",
         "_create_default_callbacks"),
        ("tarfile", "TarInfo", "bounds headers before they are read", "_proc_member"),
        ("keras.optimizers", "AdamW", "gradients come summed over workers",
         "_backend_update_step _backend_increment_gradient_accumulators _apply_weight_decay"),
        ("keras.optimizers", "AdamW", "one kernel updates a variable, each at its own rate",
         "_use_weight_decay _get_variable_index _var_key"),
    )
    for attribute in attributes.split()
)  # fmt: skip


def resource_manager() -> Any:
    """Ray Data's class with :data:`LIMITS`."""
    return Name(LIMITS.module, "ResourceManager", LIMITS.reason).get()


def zip_directory_bytes(stream: Any) -> int:
    """What the record at the end of a zip says of its directory's size; 0 where there is none."""
    end: Sequence[Any] | None = ZIP_END.get()(stream)
    return int(end[5]) if end else 0


def moments(optimizer: Any, variable: Any) -> tuple[Any, Any]:
    """Adam's (mean of gradients, mean of their squares) of ``variable``, Keras variables."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def moving_averages(optimizer: Any) -> list[Any] | None:
    """Of the trainable variables, in their order; none where ``optimizer`` keeps none."""
    return getattr(optimizer, "_model_variables_moving_average", None)


def shut_down(worker_group: Any) -> None:
    """Give back what a group of Ray Train's workers has reserved, in the state of its start."""
    worker_group._worker_group_state.shutdown()


def names() -> list[Name]:
    """All of this module's."""
    return [value for value in globals().values() if isinstance(value, Name)] + list(OF_CLASSES)
