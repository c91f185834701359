import contextlib
import hashlib
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from attacks.errors import InputError
from model_zoo.architectures.digits_cnn import DigitsCNN
from model_zoo.architectures.registry import build
from model_zoo.architectures.small_cnn import SmallCNN
from model_zoo.architectures.wide_resnet import WideResNet
from model_zoo.files.atomic import atomic_write, sha256_of
from model_zoo.weights.checkpoint import load_into, load_state_dict, save_state_dict, state_digest

ROOT = Path(__file__).resolve().parents[3]
AUTHORS = ROOT.parent / "shared/models/model_mnist_smallcnn.pt"
AUTHORS_SHA256 = "5b99888064f692047d5592b38df2dde126aa1b991a26c6aad683ce709634bea0"


def weights() -> dict[str, Tensor]:
    return {
        "layer.weight": torch.arange(6.0).view(2, 3),
        "layer.bias": torch.tensor([1.0, -1.0]),
        "bn.num_batches_tracked": torch.tensor(7),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }


def as_bytes(content: object, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        assert torch.equal(got[name], value)


def refusal(path: Path, data: bytes | None = None, *, sha256: str | None = None) -> str:
    """The message for a bad file, checked for what all messages share: one line that names the path."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_state_dict(path, sha256=sha256)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "expected" in message
    assert len(message.replace(str(path), "")) < 300
    return message


def test_saved_weights_are_loaded_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    digest = save_state_dict(weights(), path, {"defense": "trades"})
    assert_equal(load_state_dict(path, sha256=digest), weights())
    assert digest == sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"defense": "trades"}


def test_saved_bytes_are_the_same_in_another_process_and_in_another_order(tmp_path: Path) -> None:
    metadata = {letter: letter for letter in "hgfedcba"}
    save_state_dict(weights(), tmp_path / "one.safetensors", metadata)
    script = (
        "import pathlib, sys, torch; from model_zoo.weights.checkpoint import load_state_dict, save_state_dict\n"
        "state = load_state_dict(pathlib.Path(sys.argv[1])); entries = reversed(list(state.items()))\n"
        "save_state_dict(dict(entries), pathlib.Path(sys.argv[2]), {k: k for k in 'abcdefgh'})"
    )
    arguments = [str(tmp_path / "one.safetensors"), str(tmp_path / "two.safetensors")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=ROOT)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_strided_shared_and_trainable_tensors_are_saved_by_value(tmp_path: Path) -> None:
    tied = nn.Parameter(torch.arange(12.0).view(3, 4))
    state = {"tied": tied, "again": tied, "transposed": tied.detach().t(), "column": tied.detach()[:, 1]}
    save_state_dict(state, tmp_path / "m.safetensors", {})
    assert_equal(load_state_dict(tmp_path / "m.safetensors"), {name: value.detach() for name, value in state.items()})


def test_saving_under_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ending in \.safetensors, got .*model\.pt"):
        save_state_dict(weights(), tmp_path / "model.pt", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "net"])
def test_every_released_layout_of_a_torch_file_is_read(tmp_path: Path, zipped: bool, wrapper: str | None) -> None:
    content: object = OrderedDict(weights())
    if wrapper is not None:
        content = {"epoch": 76, wrapper: content, "optimizer": {"lr": 0.1}}
    path = tmp_path / "model.pth.tar"
    path.write_bytes(as_bytes(content, zipped=zipped))
    assert_equal(load_state_dict(path), weights())


def test_a_module_prefix_that_only_some_names_have_is_kept(tmp_path: Path) -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    (tmp_path / "m.pt").write_bytes(as_bytes(state))
    assert_equal(load_state_dict(tmp_path / "m.pt"), state)


def test_saved_parameters_are_loaded_as_plain_tensors(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(as_bytes({"a": nn.Parameter(torch.zeros(1))}))
    assert not load_state_dict(tmp_path / "m.pt")["a"].requires_grad


def test_a_missing_file_is_named_with_the_place_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(Path("models/none.pt"))
    assert message.startswith(f"expected a checkpoint at {tmp_path / 'models/none.pt'}, found none")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "got a folder" in refusal(tmp_path)


def test_a_path_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    assert "too long" in refusal(tmp_path / ("a" * 300))


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "got an empty file" in refusal(tmp_path / name, b"")


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><p>Log in</p>", b" \r\n<HTML>", b"\xef\xbb\xbf<!doctype html>", b"<?xml version='1.0'?>"]
)
def test_a_web_page_is_recognised(tmp_path: Path, name: str, page: bytes) -> None:
    message = refusal(tmp_path / name, page, sha256="0" * 64)
    assert "looks like a web page; download the file itself" in message


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_a_git_lfs_pointer_is_recognised(tmp_path: Path, name: str) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    assert "got a Git LFS pointer; run git lfs pull" in refusal(tmp_path / name, pointer)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_cut_anywhere_is_called_truncated(tmp_path: Path, zipped: bool) -> None:
    whole = as_bytes(OrderedDict(weights()), zipped=zipped)
    for size in range(16, len(whole), 7):
        message = refusal(tmp_path / "m.pt", whole[:size])
        assert "truncated" in message, (size, message)
        assert "download it again" in message


def test_a_safetensors_file_cut_anywhere_is_called_truncated(tmp_path: Path) -> None:
    save_state_dict(weights(), tmp_path / "whole.safetensors", {})
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for size in range(1, len(whole), 7):
        assert "truncated" in refusal(tmp_path / "m.safetensors", whole[:size])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_byte_gives_a_refusal_or_other_numbers_but_no_other_error(tmp_path: Path, zipped: bool) -> None:
    whole = as_bytes({"a": torch.arange(3.0)}, zipped=zipped)
    messages = []
    for position in range(0, len(whole), 5):
        (tmp_path / "m.pt").write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            load_state_dict(tmp_path / "m.pt")
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert not any("\n" in message for message in messages)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("zip", "asks for posix.mkdir: refused because it wants to run code; save a plain state dict or safetensors"),
        ("old", "asks for posix.mkdir: refused because it wants to run code; save a plain state dict or safetensors"),
        ("bare 2", "asks for posix.mkdir: refused because it wants to run code"),
        ("bare 5", "refused because it is damaged or wants to run code"),
        ("bare 0", "another kind of file"),
    ],
)
@pytest.mark.parametrize("loosened", [False, True])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(
    tmp_path: Path, kind: str, words: str, loosened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loosened:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    proof = tmp_path / "it ran"
    content = {"state_dict": {"a": Malicious(proof)}}
    data = pickle.dumps(content, protocol=int(kind[5:])) if "bare" in kind else as_bytes(content, zipped=kind == "zip")
    assert words in refusal(tmp_path / "m.pt", data)
    assert not proof.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle runs first and is found to be no checkpoint afterwards
        torch.load(io.BytesIO(data), weights_only=False)
    assert proof.exists(), "the file was not malicious to begin with"


def test_a_whole_pickled_model_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    assert "digits_cnn.DigitsCNN: refused" in refusal(tmp_path / "m.pt", as_bytes(DigitsCNN()))


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry in ("m/data.pkl", "m/constants.pkl", "m/version"):
            archive.writestr(entry, b"3\n")
    assert "a program of torch.jit: refused" in refusal(tmp_path / "m.pt", buffer.getvalue())


@pytest.mark.parametrize(
    "data", [b"just some text " * 9, bytes(range(256)), b"\x93NUMPY\x01\x00v\x00", b"\x1f\x8b\x08"]
)
def test_another_kind_of_file_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "got another kind of file" in refusal(tmp_path / "m.pt", data)
    assert "of another format" in refusal(tmp_path / "m.safetensors", data)


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_another_sha256_is_refused_before_parsing_and_shows_both(tmp_path: Path, name: str) -> None:
    data = b"these bytes are no checkpoint"
    message = refusal(tmp_path / name, data, sha256="0" * 64)
    assert f"expected sha256 {'0' * 64}, got {hashlib.sha256(data).hexdigest()}" in message


def test_a_sha256_in_capitals_is_the_same_sha256(tmp_path: Path) -> None:
    digest = save_state_dict(weights(), tmp_path / "m.safetensors", {})
    assert_equal(load_state_dict(tmp_path / "m.safetensors", sha256=digest.upper()), weights())


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (torch.zeros(2), "got a Tensor"),
        ([torch.zeros(2)], "got a list"),
        ({}, "got an empty one"),
        ({"state_dict": {}}, "got an empty one"),
        ({"a": torch.zeros(2), "epoch": 3}, "got int for 'epoch'"),
        ({"best": {"a": torch.zeros(2)}}, "got dict for 'best'"),
        ({0: torch.zeros(2)}, "got Tensor for 0"),
        ({"a": torch.eye(2).to_sparse()}, "got a torch.sparse_coo one on cpu for 'a'"),
        ({"a": torch.zeros(2, device="meta")}, "one on meta for 'a'"),
    ],
)
def test_content_other_than_tensors_by_name_is_refused(tmp_path: Path, content: object, got: str) -> None:
    message = refusal(tmp_path / "m.pt", as_bytes(content))
    assert "tensors by name, plain or under state_dict, model, net, ema or the like" in message
    assert got in message


def test_loading_into_a_model_gives_it_the_weights() -> None:
    torch.manual_seed(0)
    source, target = DigitsCNN(), DigitsCNN()
    load_into(target, source.state_dict(), source="digits.safetensors")
    assert state_digest(target.state_dict()) == state_digest(source.state_dict())


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ("small-cnn", "8 missing keys (conv1.weight, conv1.bias, conv2.weight, ...) and 14 unexpected keys (feature_"),
        ("digits-cnn", "expected the weights of a DigitsCNN for 10 classes, got those for 3; build"),
    ],
)
def test_weights_of_another_architecture_are_refused_and_change_nothing(other: str, problem: str) -> None:
    model = DigitsCNN()
    before = state_digest(model.state_dict())
    with pytest.raises(InputError) as caught:
        load_into(model, build(other, 3).state_dict(), source="other.pt")
    message = str(caught.value)
    assert message.startswith("other.pt: expected the weights of a DigitsCNN")
    assert problem in message
    assert "\n" not in message
    assert state_digest(model.state_dict()) == before


def test_a_single_missing_or_unexpected_key_is_enough_to_refuse() -> None:
    state = DigitsCNN().state_dict()
    both = r"if the checkpoint is of another architecture .*; if it is of this one"
    with pytest.raises(InputError, match=rf"no missing keys and 1 unexpected key \(extra\); {both}"):
        load_into(DigitsCNN(), state | {"extra": torch.zeros(1)}, source="m.pt")
    del state["fc2.bias"]
    with pytest.raises(InputError, match=r"1 missing key \(fc2.bias\) and no unexpected keys;"):
        load_into(DigitsCNN(), state, source="m.pt")


def test_the_unused_sub_block1_is_dropped_for_a_model_without_it_and_kept_for_one_with_it() -> None:
    released = WideResNet(10, 1, sub_block1=True).state_dict()
    plain, extra = WideResNet(10, 1), WideResNet(10, 1, sub_block1=True)
    load_into(plain, released, source="wrn.pt")
    load_into(extra, released, source="wrn.pt")
    used = {name: value for name, value in released.items() if not name.startswith("sub_block1.")}
    assert state_digest(plain.state_dict()) == state_digest(used)
    assert state_digest(extra.state_dict()) == state_digest(released)


def test_old_files_without_batch_counters_are_loaded() -> None:
    released = WideResNet(10, 1).state_dict()
    old = {name: value for name, value in released.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(released)
    model = WideResNet(10, 1)
    load_into(model, old, source="wrn.pt")
    assert state_digest(model.state_dict()) == state_digest(released)


def test_the_state_digest_is_this_one() -> None:
    expected = hashlib.sha256()
    for header, value in [
        (b'["bn.num_batches_tracked", "torch.int64", []]\n', (7).to_bytes(8, "little")),
        (b'["half", "torch.bfloat16", [3]]\n', b"\x80\x3f" * 3),
        (b'["layer.bias", "torch.float32", [2]]\n', b"\x00\x00\x80\x3f\x00\x00\x80\xbf"),
        (b'["layer.weight", "torch.float32", [2, 3]]\n', torch.arange(6.0).numpy().tobytes()),
    ]:
        expected.update(header + value)
    assert state_digest(weights()) == expected.hexdigest()
    assert state_digest(weights()) == "0265e38ef408d4a5cdbb8cf2986218a71659868533d73cf0c25cd5c37faf9d54"


def test_the_state_digest_sees_content_and_nothing_else() -> None:
    base = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}
    digest = state_digest(base)
    assert state_digest(dict(reversed(base.items()))) == digest
    assert state_digest(base | {"a": torch.arange(6.0).view(2, 3).t().contiguous().t()}) == digest
    others = [
        base | {"a": torch.arange(6.0).view(3, 2)},
        base | {"a": torch.arange(6.0).view(2, 3).double()},
        base | {"b": torch.zeros(2, dtype=torch.int32)},
        base | {"b": torch.tensor([0.0, 1e-45])},
        {"a": base["a"], "c": base["b"]},
        base | {"empty": torch.zeros(0)},
    ]
    assert len({digest, *map(state_digest, others)}) == 1 + len(others)


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_atomic_write_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_: int) -> None:
        raise OSError("no space left")

    path = tmp_path / "file"
    atomic_write(path, b"old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not AUTHORS.exists(), reason="the authors' SmallCNN checkpoint is not distributed with the project")
def test_the_authors_trades_checkpoint_loads_strictly() -> None:
    model = SmallCNN()
    state = load_state_dict(AUTHORS, sha256=AUTHORS_SHA256)
    load_into(model, state, source=AUTHORS.name)
    assert state_digest(model.state_dict()) == state_digest(state)
    logits = model.eval()(torch.zeros(1, 1, 28, 28))
    assert logits.shape == (1, 10)
    assert logits.isfinite().all()
