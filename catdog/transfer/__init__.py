"""Transfer learning: frozen features computed once, heads on them, sweeps with Ray Tune.

In: a prepared set, a backbone's weights, a sweep's settings. Out: features, fitted heads, a record
of each trial. Imports ``training`` and the rooms above it.
"""
