"""One training under MultiWorkerMirroredStrategy: a step, a loop, and Ray Train around it."""
