"""The classifiers: architecture, weights, files.

In: the name of a model, a file of weights. Out: Keras models that take uint8 pixels. Imports
``config``, ``errors`` and ``storage``.
"""
