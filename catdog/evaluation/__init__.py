"""Predictions of finished models on validation and test, and the metrics that follow from them.

In: a run's models and its prepared set. Out: ``predictions.parquet``, small pictures, Grad-CAM; and
pure functions of labels and logits. Imports ``training`` and the rooms above it.
"""
