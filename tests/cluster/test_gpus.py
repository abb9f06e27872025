"""What a cluster's GPUs make of a run, through Ray's bookkeeping: no GPU computes here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catdog.cluster.workers import Workers
from catdog.training.on_worker import communication

#: Runs by itself: Ray says it has two GPUs, and hands each worker's number to it.
PLAN = """
import json, os, tempfile
import ray

folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
ray.init("local", num_cpus=6, num_gpus=2, include_dashboard=False, log_to_driver=False,
         object_store_memory=100_000_000, _temp_dir=folder)
from catdog.cluster.resources import Resources, plan_workers
from catdog.presets import cluster
from catdog.errors import UserError

config = cluster()
workers = plan_workers(config, Resources.at_most())

@ray.remote
class Worker:
    def seen(self):
        return os.environ["CUDA_VISIBLE_DEVICES"]

actors = [Worker.options(num_cpus=workers.cpus, num_gpus=workers.each["GPU"]).remote()
          for _ in range(workers.count)]
gpus = ray.get([actor.seen.remote() for actor in actors], timeout=30)
asked = config.compute.model_copy(update={"workers": 3})
try:
    plan_workers(config.model_copy(update={"compute": asked}), Resources.at_most())
    refusal = None
except UserError as error:
    refusal = str(error)
ray.shutdown()
import shutil
shutil.rmtree(folder, ignore_errors=True)
print(json.dumps({
    "count": workers.count, "each": workers.each,
    "precision": workers.precision, "gpus": sorted(gpus), "refusal": refusal,
}))
"""


@pytest.mark.timeout(90)
def test_every_gpu_gets_one_worker_in_mixed_precision(project: Path) -> None:
    environment = {key: text for key, text in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", PLAN],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "count": 2,
        "each": {"CPU": 3, "GPU": 1},
        "precision": "mixed_bfloat16",
        "gpus": ["0", "1"],
        "refusal": "--workers 3: this cluster has 2 GPUs, one for each worker",
    }


@pytest.mark.parametrize("gpu, collectives", [(True, "NCCL"), (False, "RING")])
def test_gpus_talk_through_nccl_and_cpus_in_a_ring(gpu: bool, collectives: str) -> None:
    workers = Workers(count=2, cpus=1, use_gpu=gpu, precision="float32")
    assert communication(workers).implementation.name == collectives
