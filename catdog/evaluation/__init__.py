"""Predictions of a finished model, and the numbers that follow from them."""
