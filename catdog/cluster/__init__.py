"""Ray cluster: connecting, resources, planning of workers, checks of nodes.

In: ``RAY_ADDRESS`` and the settings ``compute``. Out: a connection, what the cluster has, and the
:class:`~catdog.cluster.workers.Workers` that a run uses. Imports ``config``, ``console``,
``errors``, ``runs`` and ``storage``.
"""
