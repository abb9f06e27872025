"""The classifiers: their architecture, their weights, how they are written to disk."""
