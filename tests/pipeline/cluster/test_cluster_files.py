"""The files that start a cluster: valid by Ray's own schema, an idle head, and no secret."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "ray_cluster.yaml"
RUNTIME_ENV = ROOT / "runtime_env.yaml"
RAYJOB = ROOT / "examples" / "cluster" / "rayjob.yaml"
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|aws_secret|secret_access_key|hf_[A-Za-z0-9]{20}|password", re.I
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The cluster as Ray completes it from its defaults for AWS."""
    prepared: dict[str, Any] = prepare_config(read(CLUSTER))
    return prepared


def pinned(name: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name}==")).partition("==")[2]


def test_the_cluster_is_valid_by_ray_s_own_schema(cluster: dict[str, Any]) -> None:
    validate_config(cluster)
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    assert read(CLUSTER).keys() <= schema["properties"].keys()


def test_ray_s_check_would_find_a_mistake(cluster: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="idle_timeout_minuets"):
        validate_config(cluster | {"idle_timeout_minuets": 5})


def test_the_head_takes_no_units_and_workers_come_and_go(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert set(types) == {"gpu_worker", "cpu_worker"}
    for worker in types.values():
        assert worker["min_workers"] == 0
        assert worker["max_workers"] > 0
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert types["gpu_worker"]["resources"]["GPU"] == 1
    assert "GPU" not in types["cpu_worker"]["resources"]
    assert sum(worker["max_workers"] for worker in types.values()) == cluster["max_workers"]
    assert 0 < cluster["idle_timeout_minutes"] <= 30


def test_all_nodes_run_the_pinned_versions(cluster: dict[str, Any]) -> None:
    images = [cluster["docker"]["head_image"], cluster["docker"]["worker_image"]]
    images += [
        worker["docker"]["worker_image"]
        for worker in cluster["available_node_types"].values()
        if "docker" in worker
    ]
    dockerfile = (ROOT / "examples" / "cluster" / "Dockerfile").read_text()
    images += re.findall(r"^FROM (.+)$", dockerfile, re.M)
    assert len(images) == 4
    assert {image.rpartition("-")[0] for image in images} == {
        f"rayproject/ray:{pinned('ray')}-py311"
    }
    assert read(RAYJOB)["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")
    installs = [line for line in cluster["head_setup_commands"] if "pip install" in line]
    installs += [line for line in cluster["worker_setup_commands"] if "pip install" in line]
    assert len(installs) == 3
    assert all("--constraint /home/ray/factory/constraints.txt" in line for line in installs)
    assert cluster["file_mounts"]["/home/ray/factory"] == "."


def test_weights_come_from_shared_storage_to_where_they_are_looked_for(
    cluster: dict[str, Any],
) -> None:
    environment = read(RUNTIME_ENV)["env_vars"]
    folder = environment["CONTROLNET_FACTORY_WEIGHTS"]
    staged = [line for line in cluster["worker_setup_commands"] if "YOUR-BUCKET/weights/" in line]
    assert len(staged) == 1
    assert f"'{folder}/'" in staged[0]
    for name, value in environment.items():
        assert f"--env={name}={value}" in cluster["docker"]["run_options"]
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_nothing_is_a_secret(cluster: dict[str, Any]) -> None:
    files = [CLUSTER, RUNTIME_ENV, *RAYJOB.parent.iterdir()]
    for path in files:
        assert not SECRETS.search(path.read_text()), path
    for node in cluster["available_node_types"].values():
        assert set(node["node_config"]["IamInstanceProfile"]) == {"Name"}
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    assert "RAY_AUTH_MODE=token" in CLUSTER.read_text()


def test_the_runtime_env_is_one_that_ray_takes() -> None:
    from ray.runtime_env import RuntimeEnv

    made = RuntimeEnv(**read(RUNTIME_ENV))
    assert made["env_vars"]["HF_HOME"] == "/home/ray/huggingface"
    assert all(isinstance(value, str) for value in made["env_vars"].values())


def test_the_ray_job_says_what_the_cluster_file_says(cluster: dict[str, Any]) -> None:
    spec = read(RAYJOB)["spec"]
    assert spec["entrypoint"].startswith("python -m pipeline build canny ")
    assert "  " not in spec["entrypoint"]
    assert spec["shutdownAfterJobFinishes"]
    ours = read(RUNTIME_ENV)["env_vars"]
    theirs = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert theirs.keys() == ours.keys()
    made = spec["rayClusterSpec"]
    assert made["enableInTreeAutoscaling"]
    assert made["autoscalerOptions"]["idleTimeoutSeconds"] == 60 * cluster["idle_timeout_minutes"]
    assert made["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    workers = {group["groupName"]: group for group in made["workerGroupSpecs"]}
    types = cluster["available_node_types"]
    for kind, group in workers.items():
        assert group["minReplicas"] == group["replicas"] == 0
        assert group["maxReplicas"] == types[f"{kind}_worker"]["max_workers"]
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "weights", "mountPath": "/weights", "readOnly": True} in container[
            "volumeMounts"
        ]
        assert theirs["CONTROLNET_FACTORY_WEIGHTS"] == "/weights"
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (kind == "gpu")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_ray_starts_each_kind_of_node_on_a_mocked_aws(
    cluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own launcher takes the file as it is; what AWS itself would say is not shown."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    monkeypatch.setenv("HOME", str(tmp_path))  # the launcher writes a key there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        for profile in ("controlnet-factory-head", "controlnet-factory-worker"):
            boto3.client("iam", "us-west-2").create_instance_profile(InstanceProfileName=profile)
        ready = bootstrap_aws(cluster)
        provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
        started = {}
        for kind, node in ready["available_node_types"].items():
            tags = {"ray-node-name": kind, "ray-node-kind": "worker", "ray-node-type": kind}
            (instance,) = provider.create_node(node["node_config"], tags, 1).values()
            started[kind] = instance
        assert {kind: instance.instance_type for kind, instance in started.items()} == {
            "head": "m7i.2xlarge",
            "gpu_worker": "g6.2xlarge",
            "cpu_worker": "c7i.4xlarge",
        }
        for kind, instance in started.items():
            profile = "head" if kind == "head" else "worker"
            assert instance.iam_instance_profile["Arn"].endswith(f"/controlnet-factory-{profile}")
