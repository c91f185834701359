"""Whatever training scripts wrap around weights and their names, the model gets its own."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from attacks.errors import InputError
from model_zoo.weights.checkpoint import load_into, load_state_dict


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)


def weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: value + 1 for name, value in Net().state_dict().items()}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights().items()}


def saved(folder: Path, content: object) -> Path:
    path = folder / "model.pt"
    torch.save(content, path)
    return path


def loaded(model: nn.Module, folder: Path, content: object) -> str:
    """What loading a file with this content into a model says."""
    return load_into(model, load_state_dict(saved(folder, content)), source="model.pt")


def assert_loaded(model: nn.Module) -> None:
    own = model.state_dict()
    for name, value in weights().items():
        assert torch.equal(own[name], value), name


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "ema.", "module._orig_mod.", "_orig_mod.module.", "model.module."]
)
def test_what_stands_in_front_of_the_names_is_stripped_and_said(tmp_path: Path, prefix: str) -> None:
    model = Net()
    assert loaded(model, tmp_path, prefixed(prefix)) == f"stripped {prefix!r}"
    assert_loaded(model)


def test_names_that_the_model_has_stay_as_they_are(tmp_path: Path) -> None:
    model = nn.Module()
    model.module = Net()
    assert loaded(model, tmp_path, prefixed("module.")) == ""
    assert_loaded(model.module)


def test_a_part_that_was_compiled_in_training_is_the_same_part(tmp_path: Path) -> None:
    model = Net()
    inside = {name.replace("features.", "features._orig_mod."): value for name, value in weights().items()}
    assert loaded(model, tmp_path, inside) == "stripped '_orig_mod.'"
    assert_loaded(model)


def test_a_compiled_model_takes_the_weights_of_the_plain_one(tmp_path: Path) -> None:
    model = Net()
    assert loaded(torch.compile(model), tmp_path, weights()) == "added '_orig_mod.'"  # type: ignore[arg-type]
    assert_loaded(model)


def test_an_averaged_model_loses_its_counter(tmp_path: Path) -> None:
    model, trained = Net(), Net()
    trained.load_state_dict(weights())
    state = AveragedModel(trained).state_dict()
    assert "n_averaged" in state
    assert loaded(model, tmp_path, state) == "stripped 'module.', left out 'n_averaged'"
    assert_loaded(model)


def test_an_average_beside_the_weights_is_left_out_and_said(tmp_path: Path) -> None:
    model = Net()
    average = {f"ema.{name}": value + 5 for name, value in weights().items()}
    assert loaded(model, tmp_path, {**average, **prefixed("model.")}) == "stripped 'model.', left out 'ema.'"
    assert_loaded(model)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "ema"])
def test_weights_are_found_under_the_usual_keys_beside_optimizer_state_and_numpy_numbers(
    tmp_path: Path, key: str
) -> None:
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    beside = {"epoch": np.int64(7), "best": np.float64(0.93), "done": np.bool_(True), "lr": np.float32(0.1)}
    assert loaded(model, tmp_path, {"optimizer": optimizer.state_dict(), **beside, key: weights()}) == ""
    assert_loaded(model)


def test_the_choice_between_two_sets_of_weights_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    path = saved(tmp_path, {"ema": {name: value + 5 for name, value in weights().items()}, "model": weights()})
    state = load_state_dict(path, tell=told.append)
    assert torch.equal(state["head.bias"], weights()["head.bias"])
    assert len(told) == 1
    assert told[0].startswith(f"note: {path}: took 'model', left out 'ema'; for these, load the file in a factory")


def test_a_configuration_under_a_usual_key_is_not_taken_for_weights(tmp_path: Path) -> None:
    model = Net()
    loaded(model, tmp_path, {"model": {"name": "net", "width": 4}, "net": weights()})
    assert_loaded(model)


def test_weights_of_another_architecture_are_refused_behind_a_prefix_too(tmp_path: Path) -> None:
    state = prefixed("module.")
    state["module.head.extra"] = state.pop("module.head.bias")
    with pytest.raises(InputError, match=r"1 missing keys \(head.bias\) and 1 unexpected keys \(head.extra\)"):
        loaded(Net(), tmp_path, state)


def test_numpy_arrays_of_objects_are_still_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"state_dict": weights(), "history": np.array([print], dtype=object)}, stream)
    path = tmp_path / "model.pt"
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="refused because it wants to run code"):
        load_state_dict(path)
