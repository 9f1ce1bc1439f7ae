"""The files that start a cluster: valid by Ray's own schema, and its launcher takes them."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "ray_cluster.yaml"
RUNTIME_ENV = ROOT / "runtime_env.yaml"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The cluster as Ray completes it from its defaults for AWS."""
    prepared: dict[str, Any] = prepare_config(read(CLUSTER))
    return prepared


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


def test_the_runtime_env_is_one_that_ray_takes() -> None:
    from ray.runtime_env import RuntimeEnv

    made = RuntimeEnv(**read(RUNTIME_ENV))
    assert made["env_vars"]["HF_HOME"] == "/home/ray/huggingface"
    assert all(isinstance(value, str) for value in made["env_vars"].values())


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
