"""The manifests of clusters, checked without a cloud: against Ray's own schema, against EC2's own
parameters, and against each other. Whether a cloud starts them was not seen here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
LAUNCHER = {"aws": PROJECT / "cluster.yaml", "gcp": PROJECT / "docs" / "cluster-gcp.yaml"}
RAYJOB = PROJECT / "jobs" / "rayjob.yaml"
DOCKERFILE = PROJECT / "Dockerfile"
GUIDE = PROJECT / "docs" / "clusters.md"


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


@pytest.fixture(params=sorted(LAUNCHER))
def launcher(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(LAUNCHER[request.param])


@pytest.fixture
def rayjob() -> dict[str, Any]:
    return load(RAYJOB)


def pods(rayjob: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod specification by group."""
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def flags(command: str) -> dict[str, str | None]:
    """The flags of a command line with the word behind each, None where another flag follows."""
    words = shlex.split(command)
    found: dict[str, str | None] = {}
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word.startswith("--"):
            value = following if following and not following.startswith("--") else None
            found[word] = value
    return found


# ---------------------------------------------------------------- Ray's cluster launcher


def test_ray_accepts_the_launchers_files(launcher):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(launcher))


def test_ray_refuses_a_misspelt_key(launcher):
    """So that the test above is known to look."""
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    launcher["available_node_types"]["head"]["resource"] = {"CPU": 1}
    with pytest.raises(ValidationError, match="resource"):
        validate_config(prepare_config(launcher))


def test_the_head_is_one_of_the_node_types_and_takes_no_work(launcher):
    head = launcher["available_node_types"][launcher["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert head["resources"]["GPU"] == 0


def test_the_head_is_on_demand_and_every_worker_from_the_spot_market():
    def spot(node: dict[str, Any]) -> bool:
        return (
            node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
            or node.get("scheduling", {}).get("provisioningModel") == "SPOT"
        )

    for path in LAUNCHER.values():
        config = load(path)
        for name, node_type in config["available_node_types"].items():
            is_head = name == config["head_node_type"]
            assert spot(node_type["node_config"]) != is_head, f"{path.name}: {name}"


def test_workers_scale_from_zero_and_go_when_idle(launcher):
    workers = {
        name: node_type
        for name, node_type in launcher["available_node_types"].items()
        if name != launcher["head_node_type"]
    }
    assert all(worker["min_workers"] == 0 for worker in workers.values())
    assert sum(worker["max_workers"] for worker in workers.values()) <= launcher["max_workers"]
    assert 0 < launcher["idle_timeout_minutes"] <= 30
    assert any("GPU" not in worker["resources"] for worker in workers.values()), "CPUs for data"
    assert any(worker["resources"].get("GPU") for worker in workers.values()), "GPUs for training"


def test_ec2_knows_every_parameter_of_the_nodes():
    """Ray passes node_config on as it is; botocore knows EC2's parameters without a network."""
    botocore_session = pytest.importorskip("botocore.session")
    from botocore.validate import ParamValidator

    config = load(LAUNCHER["aws"])
    model = botocore_session.get_session().get_service_model("ec2")
    shape = model.operation_model("RunInstances").input_shape
    for name, node_type in config["available_node_types"].items():
        asked = {"MinCount": 1, "MaxCount": 1, **node_type["node_config"]}
        report = ParamValidator().validate(asked, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_nodes_have_a_profile_or_an_account_instead_of_keys():
    aws, gcp = load(LAUNCHER["aws"]), load(LAUNCHER["gcp"])
    profiles = {
        name: node_type["node_config"]["IamInstanceProfile"]["Name"]
        for name, node_type in aws["available_node_types"].items()
    }
    assert len(set(profiles.values())) == 2, "workers may do less than the head"
    for name, node_type in gcp["available_node_types"].items():
        if name != gcp["head_node_type"]:  # the launcher makes the head's itself
            assert node_type["node_config"]["serviceAccounts"][0]["email"]
    for path in [*LAUNCHER.values(), RAYJOB, DOCKERFILE]:
        text = path.read_text()
        for secret in (
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ):
            assert secret not in text, f"{path.name} names {secret}"


def test_no_node_of_the_launcher_starts_without_a_token(launcher):
    options = " ".join(launcher["docker"]["run_options"])
    assert "RAY_AUTH_MODE=token" in options
    token = re.search(r"RAY_AUTH_TOKEN_PATH=(\S+)", options)
    assert token, "the token is passed as a file"
    assert "RAY_AUTH_TOKEN=" not in options, "a token in the environment shows in logs"
    assert str(Path(token[1]).parent) in launcher["file_mounts"], (
        "the token's folder is not mounted"
    )
    started = " ".join(launcher["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in started, "the job server is reached through SSH alone"


# ---------------------------------------------------------------- KubeRay


def test_the_rayjob_cleans_up_and_retries_what_resumes(rayjob):
    spec = rayjob["spec"]
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] > 0
    given = flags(spec["entrypoint"])
    assert given["--name"], "without the same --name a retry would not go on with the run"
    assert "://" in given["--storage"], "a retry gets new pods: only a bucket outlives them"


def test_the_rayjob_asks_for_a_token(rayjob):
    assert rayjob["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_rayjob_has_one_gpu_for_each_training_worker(rayjob):
    given = flags(rayjob["spec"]["entrypoint"])
    assert "--use-gpu" in given
    groups = rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    gpus = 0
    for group in groups:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        limit = int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
        asked = int(container["resources"]["requests"].get("nvidia.com/gpu", 0))
        assert limit == asked, "Kubernetes wants the same number of GPUs in both"
        gpus += group["minReplicas"] * limit
    assert int(given["--workers"] or 0) == gpus


def test_no_task_runs_on_the_head_of_the_rayjob(rayjob):
    head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    assert head["num-cpus"] == "0"
    assert head["num-gpus"] == "0"


def test_no_pod_runs_as_root_or_in_little_shared_memory(rayjob):
    for name, pod in pods(rayjob).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert volumes[mounted["/dev/shm"]]["emptyDir"]["medium"] == "Memory", name


# ---------------------------------------------------------------- the image, the versions


def images() -> dict[str, str]:
    """The image of every place that names one."""
    found = {path.name: load(path)["docker"]["image"] for path in LAUNCHER.values()}
    for name, pod in pods(load(RAYJOB)).items():
        found[f"rayjob.yaml {name}"] = pod["containers"][0]["image"]
    return found


def build_argument(name: str) -> str:
    match = re.search(rf"^ARG {name}=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert match, f"the Dockerfile has no ARG {name}"
    return match[1]


def test_rays_version_is_the_same_everywhere():
    pinned = re.search(r"^ray==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    named = {"Dockerfile": build_argument("RAY_VERSION")}
    named["rayjob.yaml"] = load(RAYJOB)["spec"]["rayClusterSpec"]["rayVersion"]
    for place, image in images().items():
        tag = re.search(r"-ray([0-9.]+)-(py3\d+)$", image)
        assert tag, f"{place}: the tag of {image} does not name Ray and Python"
        named[place] = tag[1]
        assert tag[2] == build_argument("PYTHON_TAG"), (
            f"{place}: another Python than the Dockerfile"
        )
    assert set(named.values()) == {pinned[1]}, f"constraints.txt has {pinned[1]}; {named}"


def test_every_manifest_names_the_same_image_of_this_version():
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    (image,) = set(images().values())
    assert image.split(":")[1].startswith(f"{version}-ray")


def test_the_image_is_of_a_python_that_catdog_takes():
    from packaging.specifiers import SpecifierSet

    takes = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    tag = build_argument("PYTHON_TAG")
    assert f"{tag[2]}.{tag[3:]}" in SpecifierSet(takes)


def test_the_image_is_built_from_the_pinned_versions_by_a_user_who_is_not_root():
    text = DOCKERFILE.read_text()
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users
    assert set(users) == {"1000"}
    installs = re.findall(r"pip install (?:[^&]|\\\n)+", text)
    assert installs
    assert all("constraint constraints.txt" in install for install in installs)
    assert "RAY_AUTH_MODE=token" in text


def test_all_that_the_image_copies_is_there_and_sent_to_the_builder():
    copied = set()
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE.read_text(), re.MULTILINE):
        copied |= {word for word in line.split()[:-1] if not word.startswith("--")}
    assert {"catdog", "jobs", "pyproject.toml", "constraints.txt"} <= copied
    sent = {
        line.strip("!/\n")
        for line in (PROJECT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied <= sent, f".dockerignore keeps back {copied - sent}"
    missing = {name for name in copied if not (PROJECT / name).exists()}
    assert not missing, f"the Dockerfile copies what is not there: {missing}"


# ---------------------------------------------------------------- the entry point


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """What `jobs/train.py --help` lists."""
    shown = subprocess.run(
        [sys.executable, PROJECT / "jobs" / "train.py", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 0, f"jobs/train.py --help ends with {shown.stderr[-500:]}"
    return set(re.findall(r"--[a-z][a-z-]*", shown.stdout))


def test_the_entry_point_knows_the_flags_of_the_rayjob(known_flags, rayjob):
    command = rayjob["spec"]["entrypoint"]
    script = shlex.split(command)[1]
    assert script.startswith("/home/ray/catdog/"), "the Dockerfile puts the project there"
    assert (PROJECT / script.removeprefix("/home/ray/catdog/")).is_file()
    unknown = set(flags(command)) - known_flags
    assert not unknown, f"jobs/train.py does not know {unknown}"


def test_the_entry_point_knows_the_flags_of_the_guide(known_flags):
    commands = re.findall(
        r"python jobs/train\.py((?:[^\n`]|(?<=\\)\n)*)", GUIDE.read_text().replace("…", "")
    )
    given = set().union(*(re.findall(r"--[a-z][a-z-]*", command) for command in commands))
    assert {"--preset", "--data", "--storage", "--name"} <= given
    assert given <= known_flags, f"jobs/train.py does not know {given - known_flags}"


# ---------------------------------------------------------------- what is uploaded


@pytest.mark.parametrize("gitignore", [True, False])
def test_the_upload_has_the_code_and_neither_environment_nor_runs_nor_photos(tmp_path, gitignore):
    """Packed by Ray itself, with and without what .gitignore names."""
    import logging

    from ray._private.runtime_env.packaging import create_package

    folder = tmp_path / "project"
    folder.mkdir()
    for name in (".gitignore", ".rayignore"):
        shutil.copy(PROJECT / name, folder / name)
    wanted = {
        "catdog/presets.py",
        "catdog/data/sample.py",
        "catdog/report/templates/report.html",
        "catdog/report/templates/logo.png",
        "jobs/train.py",
        "pyproject.toml",
        "constraints.txt",
    }
    unwanted = {
        ".venv/bin/python",
        ".mypy_cache/x.json",
        "runs/sample-1/report.html",
        "runs/datasets/1/train/0.arrow",
        "catdog-runs/sample-1/run.json",
        "photos/cat.0.jpg",
        "PetImages/Cat/0.jpg",
        "photos.zip",
        "weights.h5",
        "catdog/__pycache__/presets.pyc",
        "auth_token",
        ".env",
        "tests/test_x.py",
    }
    for name in wanted | unwanted:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)

    package = tmp_path / "package.zip"
    create_package(
        str(folder), package, include_gitignore=gitignore, logger=logging.getLogger("packaging")
    )
    with zipfile.ZipFile(package) as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    assert not packed & unwanted
    assert wanted <= packed, f"left out: {wanted - packed}"
