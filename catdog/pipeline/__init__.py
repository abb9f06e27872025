"""The whole job: data, weights, probes, sweep, trainings, predictions, report.

In: a :class:`~catdog.config.Config`. Out: a finished run directory. :mod:`catdog.pipeline.job` is
the job as one readable function. Imports every room above it.
"""
