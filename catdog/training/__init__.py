"""One training under MultiWorkerMirroredStrategy: a step, a loop, and Ray Train around it.

In: a :class:`~catdog.training.job.TrainingJob` and a prepared set. Out: checkpoints, a history and
``model.keras``. The pool of worker groups also runs the tasks of later rooms. Imports ``cluster``,
``config``, ``console``, ``data``, ``errors``, ``models``, ``runs`` and ``storage``.
"""
