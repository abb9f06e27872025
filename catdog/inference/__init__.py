"""A finished model outside its run: predictions for new photos, a service, exports.

In: a run directory or one of its models. Out: a table of predictions, answers over HTTP, model
files for other programs. Imports every room above it but ``transfer``: ``report`` finds the best
model and is written again after an export.
"""
