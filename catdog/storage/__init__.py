"""Storage: local folders, ``s3://`` and ``gs://`` with atomic writes and retries.

In: a path or URI. Out: a :class:`Location` that reads and writes, whatever is behind it, and
copies and streams of whole files. Imports ``errors``.
"""

from catdog.storage.location import Location

__all__ = ["Location"]
