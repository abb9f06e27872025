"""Data stage: photos in, a prepared set out, every file counted.

In: a folder, an archive, a table or a bucket, and the settings ``data``. Out: shards of pixels,
``photos.parquet``, ``rejected.parquet`` and ``manifest.json``; and the rows of a set as batches.
Imports ``config``, ``errors`` and ``storage``.
"""
