"""Distributed image classification on Ray with Keras: cats, dogs and an honest comparison."""

__version__ = "0.1.0"
