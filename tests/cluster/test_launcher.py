"""Ray's cluster launcher really makes the nodes of cluster.yaml, in an EC2 that moto plays on
loopback: no cloud, no account, but Ray's own code and boto3's own checks."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]

#: Runs by itself: it wants a home of its own (the launcher leaves an SSH key there) and an
#: environment in which every client of boto3 finds moto.
LAUNCH = """
import json, os, sys
import boto3, yaml
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"

from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_LAUNCH_CONFIG, TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME
from ray.autoscaler.tags import TAG_RAY_NODE_STATUS, TAG_RAY_USER_NODE_TYPE

with open(sys.argv[1]) as file:
    config = yaml.safe_load(file)
region = config["provider"]["region"]
iam, ec2 = (boto3.client(name, region_name=region) for name in ("iam", "ec2"))
for node_type in config["available_node_types"].values():
    name = node_type["node_config"]["IamInstanceProfile"]["Name"]
    try:
        iam.create_instance_profile(InstanceProfileName=name)
    except iam.exceptions.EntityAlreadyExistsException:
        continue
    iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

config = prepare_config(config)
validate_config(config)
config = bootstrap_aws(config)
provider = _get_node_provider(config["provider"], config["cluster_name"])
for name, node_type in config["available_node_types"].items():
    tags = {
        TAG_RAY_NODE_KIND: "head" if name == config["head_node_type"] else "worker",
        TAG_RAY_USER_NODE_TYPE: name,
        TAG_RAY_NODE_NAME: name,
        TAG_RAY_NODE_STATUS: "uninitialized",
        TAG_RAY_LAUNCH_CONFIG: "x",
    }
    provider.create_node(node_type["node_config"], tags, 1)

nodes = {}
for reservation in ec2.describe_instances()["Reservations"]:
    for instance in reservation["Instances"]:
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        nodes[tags[TAG_RAY_USER_NODE_TYPE]] = instance
json.dump(nodes, open(sys.argv[2], "w"), default=str)
server.stop()
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What EC2 says of each node that the launcher made, by node type."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()
    told = home / "nodes.json"
    environment = {
        **os.environ,
        "HOME": str(home),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    }
    ended = subprocess.run(
        [sys.executable, "-c", LAUNCH, PROJECT / "cluster.yaml", told],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(told.read_text())


def test_the_launcher_makes_a_node_of_every_type(nodes):
    config = yaml.safe_load((PROJECT / "cluster.yaml").read_text())
    asked = {
        name: node_type["node_config"]["InstanceType"]
        for name, node_type in config["available_node_types"].items()
    }
    assert {name: node["InstanceType"] for name, node in nodes.items()} == asked


def test_only_workers_are_bought_on_the_spot_market(nodes):
    assert {name: node.get("InstanceLifecycle") for name, node in nodes.items()} == {
        "head": None,
        "data_workers": "spot",
        "training_workers": "spot",
    }


def test_every_node_gets_its_instance_profile(nodes):
    profiles = {
        name: node["IamInstanceProfile"]["Arn"].rpartition("/")[2] for name, node in nodes.items()
    }
    assert profiles == {
        "head": "catdog-head",
        "data_workers": "catdog-worker",
        "training_workers": "catdog-worker",
    }


@pytest.mark.parametrize("file", ["cluster.yaml", "docs/cluster-gcp.yaml"])
def test_the_container_is_started_with_the_token_mounted_and_asked_for(file):
    """The command line as Ray puts it together for `docker run` on a node."""
    from ray.autoscaler._private.docker import docker_start_cmds

    config = yaml.safe_load((PROJECT / file).read_text())
    docker = config["docker"]
    command = docker_start_cmds(
        user=config["auth"]["ssh_user"],
        image=docker["image"],
        mount_dict=config["file_mounts"],
        container_name=docker["container_name"],
        user_options=docker["run_options"],
        cluster_name=config["cluster_name"],
        home_directory="/home/ray",
        docker_cmd="docker",
    )
    words = shlex.split(command)
    assert words.index(docker["image"]) == len(words) - 2, "what follows the image is its command"
    environment = {words[i + 1] for i, word in enumerate(words) if word in ("--env", "-e")}
    assert {
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_TOKEN_PATH=/home/ray/.catdog-auth/token",
    } <= environment
    mounted = {words[i + 1].partition(":")[2] for i, word in enumerate(words) if word == "-v"}
    assert "/home/ray/.catdog-auth" in mounted
