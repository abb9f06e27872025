"""This machine as ratios against peers and limits: one module for each part.

In: photos and a number of rounds. Out: one dictionary for each part, as ``--json`` writes it.
Imports every room but ``cli``.
"""
