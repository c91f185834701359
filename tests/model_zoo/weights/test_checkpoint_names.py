"""Whatever training scripts wrap around weights and their names, the model gets its own."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from attacks.errors import InputError
from attacks.models.normalisation import Normalisation, Normalize
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
    with pytest.raises(InputError, match=r"1 missing key \(head.bias\) and 1 unexpected key \(head.extra\)"):
        loaded(Net(), tmp_path, state)


def test_numpy_arrays_of_objects_are_still_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"state_dict": weights(), "history": np.array([print], dtype=object)}, stream)
    path = tmp_path / "model.pt"
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="refused because it wants to run code"):
        load_state_dict(path)


# Networks wrapped by hand to normalise their images


class Scaled(nn.Module):
    """A normalisation with constants that are saved."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        for name, value in zip(("mean", "std"), values or (0.1307, 0.3081), strict=True):
            self.register_buffer(name, torch.full((1, 1, 1, 1), value))


class Around(nn.Module):
    """A wrapper that holds the constants itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor([0.25]))
        self.register_buffer("pixel_std", torch.tensor([0.5]))
        self.backbone = Net()


def wrapped(name: str) -> nn.Module:
    if name == "around":
        return Around()
    model = nn.Module()
    model.normalize = Scaled()
    setattr(model, name, Net())
    return model


@pytest.mark.parametrize("name", ["net", "model", "classifier"])
def test_a_wrapped_network_takes_the_weights_of_the_bare_one_and_keeps_its_constants(tmp_path: Path, name: str) -> None:
    model = wrapped(name)
    said = loaded(model, tmp_path, weights())
    assert said == f"added '{name}.', left 'normalize.mean', 'normalize.std' as the factory made them"
    assert_loaded(model.get_submodule(name))
    assert model.state_dict()["normalize.mean"].item() == pytest.approx(0.1307)


def test_the_wrapper_may_hold_the_constants_itself_or_not_save_them(tmp_path: Path) -> None:
    around, unsaved = Around(), nn.Sequential(nn.Identity(), Net())
    assert (
        loaded(around, tmp_path, prefixed("module."))
        == "added 'backbone.', left 'pixel_mean', 'pixel_std' as the factory made them"
    )
    assert loaded(unsaved, tmp_path, weights()) == "added '1.'"
    assert_loaded(around.backbone)
    assert_loaded(unsaved[1])


def test_a_bare_network_takes_the_weights_of_a_wrapped_one_that_saves_no_constants(tmp_path: Path) -> None:
    model = Net()
    assert loaded(model, tmp_path, prefixed("backbone.")) == "stripped 'backbone.'"
    assert_loaded(model)


def test_old_files_without_counts_of_batches_are_wrapped_and_unwrapped_too(tmp_path: Path) -> None:
    old = {name: value for name, value in weights().items() if not name.endswith("num_batches_tracked")}
    around, bare = Around(), Net()
    assert "added 'backbone.'" in loaded(around, tmp_path, old)
    assert loaded(bare, tmp_path, {f"1.{name}": value for name, value in old.items()}) == "stripped '1.'"
    assert torch.equal(bare.head.weight, around.backbone.head.weight)


@pytest.mark.parametrize("given", [None, Normalisation((0.5,), (0.5,)), Normalisation((0.1307,), (0.5,))])
def test_the_constants_of_a_file_must_be_given_to_a_bare_network(tmp_path: Path, given: Normalisation | None) -> None:
    content = prefixed("1.") | {"0.mean": torch.tensor([[[[0.1307]]]]), "0.std": torch.tensor([0.3081])}
    state = load_state_dict(saved(tmp_path, content))
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_into(model, state, source="model.pt", normalisation=given)
    assert "('0.mean', '0.std')" in str(caught.value)
    assert "give --mean 0.1307 --std 0.3081, or" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    said = load_into(model, state, source="model.pt", normalisation=Normalisation((0.1307,), (0.3081,)))
    assert said == "stripped '1.'"
    assert_loaded(model)


def test_constants_that_a_model_holds_unsaved_are_those_of_the_file(tmp_path: Path) -> None:
    """Such as `model_zoo`'s own layer, which no state dict has; the file comes from one that saved them."""

    def model(mean: float) -> nn.Module:
        return nn.Sequential(Normalize((mean,), (0.5,)), Net())

    content = prefixed("1.") | {"0.mean": torch.tensor([[[[0.25]]]]), "0.std": torch.tensor([[[[0.5]]]])}
    right = model(0.25)
    loaded(right, tmp_path, content)
    assert_loaded(right[1])  # type: ignore[index]
    with pytest.raises(InputError, match=r"expected the normalisation that it holds .*, got --mean 0.3 --std 0.5"):
        loaded(model(0.3), tmp_path, content)


def test_one_value_in_a_file_stands_for_all_channels(tmp_path: Path) -> None:
    content = weights() | {"mean": torch.tensor(0.5), "std": torch.tensor(0.25)}
    given = Normalisation((0.5,) * 3, (0.25,) * 3)
    load_into(Net(), load_state_dict(saved(tmp_path, content)), source="model.pt", normalisation=given)


def test_constants_of_a_file_and_of_another_wrapper_must_agree(tmp_path: Path) -> None:
    content = prefixed("1.") | {"0.mean": torch.tensor([0.25]), "0.std": torch.tensor([0.5])}
    around, other = Around(), wrapped("net")
    assert loaded(other, tmp_path, content | {"0.mean": torch.tensor(0.1307), "0.std": torch.tensor(0.3081)})
    assert_loaded(other.get_submodule("net"))
    with pytest.raises(InputError, match="expected the normalisation that it holds"):
        loaded(wrapped("net"), tmp_path, content)
    assert loaded(around.backbone, tmp_path, prefixed("1."))


def test_a_mean_alone_and_other_statistics_are_no_normalisation(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got parts of a normalisation, too \('mean'\)"):
        loaded(Net(), tmp_path, weights() | {"mean": torch.tensor([0.5])})
    with pytest.raises(InputError, match="got others: "):
        loaded(Net(), tmp_path, weights() | {"running_mean": torch.tensor([0.5])})


def test_parts_of_the_same_shape_are_not_taken_for_one_another(tmp_path: Path) -> None:
    model = nn.Module()
    model.first, model.second = Net(), Net()
    with pytest.raises(InputError, match="got others: "):
        loaded(model, tmp_path, weights())
    with pytest.raises(InputError, match="got others: "):
        loaded(Net(), tmp_path, prefixed("first.") | prefixed("second."))
