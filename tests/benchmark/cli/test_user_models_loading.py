"""Models and files that nobody here wrote, as far as loading goes: each gives the right number, or one true line."""

import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import attacks
import benchmark
from attacks.errors import InputError
from attacks.models.normalisation import Normalisation
from attacks.models.probe_images import probe_images
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from model_zoo.architectures.digits_cnn import DigitsCNN
from model_zoo.load import external_model, load_model
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import SHIPPED
from model_zoo.user_models.probe_digest import probe_digest
from model_zoo.weights.checkpoint import load_into, load_state_dict
from model_zoo.weights.program import EXPORTED, TORCHSCRIPT, kind_of_program

Command = Callable[..., subprocess.CompletedProcess[str]]
FAST = ("--attacks", "pgd-20", "--examples", "20", "--transfer", "none", "--workers", "1", "--quiet")
SHAPE = (1, 8, 8)
LOADED = f"""
import torch
from model_zoo.architectures.digits_cnn import DigitsCNN
from model_zoo.weights.checkpoint import load_state_dict
from pathlib import Path

def trained():
    model = DigitsCNN()
    model.load_state_dict(load_state_dict(Path({str(SHIPPED / "digits/madry.safetensors")!r})))
    return model
"""


@pytest.fixture(autouse=True)
def the_working_directory_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    path, finders = list(sys.path), list(sys.meta_path)
    yield
    assert (sys.path, sys.meta_path[: len(finders)]) == (path, finders)
    assert sys.modules["attacks"] is attacks
    assert sys.modules["benchmark"] is benchmark


def trained(name: str = "madry") -> nn.Module:
    model = DigitsCNN()
    load_into(model, load_state_dict(SHIPPED / f"digits/{name}.safetensors"), source=name)
    return model.eval()


def spec_of(factory: str) -> ModelSpec:
    return external_model(factory, None, dataset="digits", suite="digits", shape=SHAPE)


def logits_of(spec: ModelSpec) -> torch.Tensor:
    images = torch.rand((4, *SHAPE), generator=torch.Generator().manual_seed(5))
    logits: torch.Tensor = load_model(spec, Path(), classes=10)(images)
    return logits


def expected_logits() -> torch.Tensor:
    images = torch.rand((4, *SHAPE), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits: torch.Tensor = trained()(images)
    return logits


def row(result: subprocess.CompletedProcess[str], name: str) -> list[str]:
    """A model's clean accuracy, that under the attack, and the worst case, in the leaderboard."""
    assert result.returncode == 0, result.stderr
    rows = [[cell.strip() for cell in line.split("|")] for line in result.stdout.splitlines()]
    (cells,) = [cells for cells in rows if len(cells) == 9 and cells[2] == name]
    return cells[3:6]


@pytest.fixture(scope="module")
def madry(command: Command, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The row of the shipped model that others here are made of."""
    return row(command(tmp_path_factory.mktemp("madry"), "--models", "madry", *FAST), "madry")


# Stale verdicts


def test_the_identity_changes_with_a_configuration_that_the_factory_reads(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        LOADED + "def scaled():\n    model = trained()\n    scale = float(Path('scale.txt').read_text())\n"
        "    model.register_forward_hook(lambda m, x, y: y * scale)\n    return model\n"
    )
    identities = []
    for scale in ("1", "1", "2"):
        (tmp_path / "scale.txt").write_text(scale)
        identities.append(spec_of("net.py:scaled").identity)
    assert identities[0] == identities[1]
    assert identities[0] != identities[2]


def test_the_identity_changes_with_weights_in_plain_attributes_and_with_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(
        "import os\nimport torch\nfrom torch import nn\n"
        "class Plain(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        generator = torch.Generator().manual_seed(int(os.environ['WEIGHTS']))\n"
        "        self.weights = [torch.randn(64, 10, generator=generator)]\n"
        "    def forward(self, x):\n        return x.flatten(1) @ self.weights[0]\n"
    )
    identities = []
    for seed in ("1", "1", "2"):
        monkeypatch.setenv("WEIGHTS", seed)
        identities.append(spec_of("net.py:Plain").identity)
    assert identities[0] == identities[1]
    assert identities[0] != identities[2]


def test_another_configuration_gets_fresh_verdicts(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        LOADED + "def chosen():\n    name = Path('name.txt').read_text()\n    model = trained()\n"
        f"    other = load_state_dict(Path({str(SHIPPED)!r}) / f'digits/{{name}}.safetensors')\n"
        "    object.__setattr__(model, 'other', DigitsCNN().eval())\n    model.other.load_state_dict(other)\n"
        "    model.register_forward_hook(lambda module, x, y: module.other(x[0]))\n    return model\n"
    )
    rows = []
    for name in ("madry", "natural", "madry"):
        (tmp_path / "name.txt").write_text(name)
        rows.append(row(command(tmp_path, "--model", "net.py:chosen", *FAST), "chosen"))
    assert rows[0] == rows[2] != rows[1]


def test_a_digest_tells_logits_from_their_multiples_and_is_the_same_for_the_same() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.model, self.scale = trained(), scale

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.scale * self.model(x)
            return logits

    digests = [probe_digest(Scaled(scale), probe_images(SHAPE)) for scale in (1, 1, 2, 1.01, 1 + 1e-6)]
    assert digests[0] == digests[1] == digests[4]
    assert len(set(digests)) == 3


def test_asking_a_model_leaves_all_generators_where_they_were() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) + torch.randn(1)

    before = torch.random.get_rng_state()
    assert probe_digest(Noisy(), probe_images(SHAPE)) == probe_digest(Noisy(), probe_images(SHAPE)) != ""
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_model_of_a_fixed_batch_is_asked_with_as_many_images_as_it_takes(size: int) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(size, 64)

    assert probe_digest(Fixed(), probe_images(SHAPE))


def test_a_model_that_cannot_be_asked_has_no_digest() -> None:
    assert probe_digest(nn.Linear(3, 2), probe_images(SHAPE)) == ""


# Programs


def program(kind: str, folder: Path) -> Path:
    """The shipped madry model as a file of one kind."""
    model, images = trained(), torch.rand(4, *SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        if kind == "exported":
            exported = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            torch.export.save(exported, folder / "exported.pt2")
            return folder / "exported.pt2"
        made = torch.jit.trace(model, images) if kind == "traced" else torch.jit.script(model)
        if kind == "frozen":
            made = torch.jit.freeze(made)
        made.save(folder / f"{kind}.pt")
    return folder / f"{kind}.pt"


@pytest.mark.parametrize("kind", ["scripted", "traced", "frozen", "exported"])
def test_a_program_is_a_model_by_itself_with_the_numbers_of_the_model_it_was_made_of(
    command: Command, tmp_path: Path, madry: list[str], kind: str
) -> None:
    file = program(kind, tmp_path)
    assert kind_of_program(file) == (EXPORTED if kind == "exported" else TORCHSCRIPT)
    theirs = row(command(tmp_path, "--checkpoint", file.name, "--trust-code", *FAST), kind)
    assert theirs == madry


@pytest.mark.parametrize("words", [(), ("--models", "madry")])
def test_a_program_is_not_run_unless_the_user_says_so(command: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    result = command(tmp_path, "--checkpoint", program("scripted", tmp_path).name, *words, *FAST)
    assert result.returncode == 2
    assert "give --trust-code if you trust it" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("trust", [(), ("--trust-code",)])
def test_a_program_given_as_weights_is_told_how_to_be_given(
    command: Command, tmp_path: Path, trust: tuple[str, ...]
) -> None:
    (tmp_path / "net.py").write_text(LOADED)
    file = program("scripted", tmp_path).name
    result = command(tmp_path, "--model", "net.py:trained", "--checkpoint", file, *trust, *FAST)
    assert result.returncode == 2
    assert "give it without --model and with --trust-code" in result.stderr


@pytest.mark.parametrize("trust", [(), ("--trust-code",)])
def test_weights_alone_are_no_model(command: Command, tmp_path: Path, trust: tuple[str, ...]) -> None:
    shutil.copy(SHIPPED / "digits/madry.safetensors", tmp_path / "weights.safetensors")
    result = command(tmp_path, "--checkpoint", "weights.safetensors", *trust, *FAST)
    assert result.returncode == 2
    assert "--checkpoint needs --model PATH.py:FACTORY" in result.stderr


def test_a_damaged_program_ends_in_one_line(command: Command, tmp_path: Path) -> None:
    whole, damaged = program("scripted", tmp_path), tmp_path / "damaged.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(damaged, "w") as target:
        for entry in source.infolist():
            target.writestr(entry, b"nonsense" if entry.filename.endswith(".py") else source.read(entry))
    result = command(tmp_path, "--checkpoint", damaged.name, "--trust-code", *FAST)
    assert result.returncode == 2
    assert "damaged.pt: expected a program of torch.jit" in result.stderr
    assert result.stderr.count("\n") == 1


# Modes


@pytest.mark.parametrize(
    "method",
    [
        "def eval(self):\n        super().eval()\n",
        "def train(self, mode=True):\n        super().train(mode)\n",
        "def to(self, device):\n        super().to(device)\n",
    ],
)
def test_methods_without_a_return_value_do_no_harm(
    command: Command, tmp_path: Path, madry: list[str], method: str
) -> None:
    code = LOADED + f"class Own(DigitsCNN):\n    {method}\n"
    code += "def own():\n    model = Own()\n    model.load_state_dict(trained().state_dict())\n    return model\n"
    (tmp_path / "net.py").write_text(code)
    spec = spec_of("net.py:own")
    assert not load_model(spec, Path(), classes=10).training
    assert row(command(tmp_path, "--model", "net.py:own", *FAST), "own") == madry


def test_an_eval_that_fails_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(LOADED + "class Own(DigitsCNN):\n    def train(self):\n        pass\n")
    with pytest.raises(InputError, match=r"eval\(\) raised TypeError: .*mend its eval or train"):
        spec_of("net.py:Own")


def test_a_compiled_model_has_the_answers_and_takes_the_weights_of_the_plain_one(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(LOADED + "def compiled():\n    return torch.compile(DigitsCNN())\n")
    weights, told = SHIPPED / "digits/madry.safetensors", list[str]()
    spec = external_model("net.py:compiled", weights, dataset="digits", suite="digits", shape=SHAPE, tell=told.append)
    assert spec.answers == probe_digest(trained(), probe_images(SHAPE))
    assert told == [f"note: {weights}: names of weights: added '_orig_mod.'"]


def test_what_was_stripped_is_said_once_on_stderr(command: Command, tmp_path: Path, madry: list[str]) -> None:
    (tmp_path / "net.py").write_text(LOADED)
    state = {f"module.{name}": value for name, value in trained().state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    result = command(tmp_path, "--model", "net.py:trained", "--checkpoint", "weights.pt", *FAST)
    assert result.stderr == "note: weights.pt: names of weights: stripped 'module.'\n"
    assert row(result, "trained") == madry


# Surroundings


@pytest.mark.parametrize("name", ["attacks", "benchmark", "model_zoo"])
@pytest.mark.parametrize("layout", ["file", "package", "folder"])
def test_a_users_own_module_is_found_under_a_name_of_ours(tmp_path: Path, name: str, layout: str) -> None:
    code = "import torch\nfrom torch import nn\nclass Net(nn.Linear):\n    def __init__(self):\n"
    code += "        super().__init__(64, 10)\n    def forward(self, x): return super().forward(x.flatten(1))\n"
    place = {"file": f"{name}.py", "package": f"{name}/nets.py", "folder": f"{name}/nets.py"}[layout]
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(code)
    if layout == "package":
        (tmp_path / name / "__init__.py").touch()
    module = name if layout == "file" else f"{name}.nets"
    (tmp_path / "net.py").write_text(f"from {module} import Net\ndef net():\n    return Net()\n")
    assert logits_of(spec_of("net.py:net")).shape == (4, 10)


def test_imports_inside_the_factory_and_the_forward_pass_find_the_users_modules_too(tmp_path: Path) -> None:
    (tmp_path / "attacks.py").write_text("SCALE = 1.0\n")
    (tmp_path / "own_helper_of_net.py").write_text("SHIFT = 0.0\n")
    (tmp_path / "net.py").write_text(
        LOADED + "class Late(DigitsCNN):\n    def forward(self, x):\n        from attacks import SCALE\n"
        "        from own_helper_of_net import SHIFT\n        return SCALE * super().forward(x) + SHIFT\n"
        "def late():\n    import attacks\n    model = Late()\n    model.load_state_dict(trained().state_dict())\n"
        "    return model if attacks.SCALE == 1.0 else None\n"
    )
    assert torch.equal(logits_of(spec_of("net.py:late")), expected_logits())
    assert attacks.__path__


def test_a_neighbour_is_found_by_a_forward_pass_where_no_name_is_ours(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/other_helper_of_net.py").write_text("SHIFT = 0.0\n")
    (tmp_path / "lib/net.py").write_text(
        LOADED + "class Late(DigitsCNN):\n    def forward(self, x):\n"
        "        from other_helper_of_net import SHIFT\n        return super().forward(x) + SHIFT\n"
        "def late():\n    model = Late()\n    model.load_state_dict(trained().state_dict())\n    return model\n"
    )
    assert torch.equal(logits_of(spec_of("lib/net.py:late")), expected_logits())


def test_a_users_attacks_beside_a_run_of_ours_gives_the_numbers_of_the_model(
    command: Command, tmp_path: Path, madry: list[str]
) -> None:
    (tmp_path / "attacks.py").write_text("def scale(x):\n    return 1.0 * x\n")
    (tmp_path / "net.py").write_text(
        LOADED + "class Own(DigitsCNN):\n    def forward(self, x):\n        from attacks import scale\n"
        "        return super().forward(scale(x))\n"
        "def own():\n    model = Own()\n    model.load_state_dict(trained().state_dict())\n    return model\n"
    )
    assert row(command(tmp_path, "--model", "net.py:own", *FAST), "own") == madry


def test_a_file_finds_what_lies_in_the_working_directory_after_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "attacks.py").write_text("PLACE = 'working directory'\n")
    (tmp_path / "benchmark.py").write_text("PLACE = 'working directory'\n")
    (tmp_path / "models/benchmark.py").write_text("PLACE = 'beside'\n")
    (tmp_path / "models/net.py").write_text(
        "import attacks, benchmark\n"
        "assert (attacks.PLACE, benchmark.PLACE) == ('working directory', 'beside')\n" + LOADED
    )
    assert torch.equal(logits_of(spec_of("models/net.py:trained")), expected_logits())


def test_a_file_that_adds_a_folder_to_the_search_path_finds_its_own_there(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/benchmark.py").write_text(LOADED)
    (tmp_path / "net.py").write_text("import sys\nsys.path.append('src')\nfrom benchmark import trained\n")
    assert torch.equal(logits_of(spec_of("net.py:trained")), expected_logits())


def test_a_change_in_a_module_under_a_name_of_ours_is_another_model(tmp_path: Path) -> None:
    identities = []
    for name, text in (("one", "SCALE = 1\n"), ("same", "SCALE = 1\n"), ("other", "SCALE = 1  # changed\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "attacks.py").write_text(text)
        (tmp_path / name / "net.py").write_text("from attacks import SCALE\n" + LOADED)
        identities.append(spec_of(f"{name}/net.py:trained").identity)
    assert identities[0] == identities[1]
    assert identities[0] != identities[2]


def test_arguments_of_ours_are_none_of_the_users_and_what_ends_the_program_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run_benchmark.py", "--model", "net.py:trained"])
    parse = "import argparse\nparser = argparse.ArgumentParser()\n"
    (tmp_path / "net.py").write_text(parse + "parser.add_argument('--width')\nparser.parse_args()\n" + LOADED)
    assert torch.equal(logits_of(spec_of("net.py:trained")), expected_logits())
    assert sys.argv[1:] == ["--model", "net.py:trained"]
    (tmp_path / "wants.py").write_text(parse + "parser.add_argument('width')\nparser.parse_args()\n" + LOADED)
    with pytest.raises(InputError, match=r"wants\.py cannot be imported: it ended the program"):
        spec_of("wants.py:trained")


def test_what_the_users_code_sets_for_the_process_holds_for_that_code_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "net.py").write_text(
        "import os\n" + LOADED + "torch.set_grad_enabled(False)\ntorch.set_default_dtype(torch.float64)\n"
        "os.chdir('elsewhere')\n"
        "def wide():\n    assert torch.zeros(1).dtype == torch.float64\n    assert not torch.is_grad_enabled()\n"
        "    assert os.getcwd().endswith('elsewhere')\n    torch.set_num_threads(3)\n    return trained().float()\n"
    )
    threads = torch.get_num_threads()
    model = load_model(spec_of("net.py:wide"), Path(), classes=10)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert (Path.cwd(), torch.get_num_threads()) == (tmp_path, threads)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("module", ["package_of_mine.nets", "attacks.nets"])
def test_a_module_of_a_package_in_the_working_directory_is_a_place_for_factories(tmp_path: Path, module: str) -> None:
    package = tmp_path / module.partition(".")[0]
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text(LOADED)
    (package / "nets.py").write_text("from .inner import trained\n")
    assert torch.equal(logits_of(spec_of(f"{module}:trained")), expected_logits())


def test_a_module_of_ours_is_still_a_place_for_factories(tmp_path: Path) -> None:
    spec = external_model(
        "model_zoo.architectures.digits_cnn:DigitsCNN",
        SHIPPED / "digits/madry.safetensors",
        dataset="digits",
        suite="digits",
        shape=SHAPE,
    )
    assert torch.equal(logits_of(spec), expected_logits())
    assert type(load_model(spec, tmp_path, classes=10).model) is DigitsCNN


def test_predictions_of_a_program_are_those_of_its_model(tmp_path: Path) -> None:
    split = balanced_subset(load("digits", "test", data_dir=tmp_path), 40, seed=0)
    made = torch.export.load(program("exported", tmp_path)).module()
    assert torch.equal(made(split.x).argmax(1), trained()(split.x).argmax(1))


# Normalisation


NORMALISED = (
    LOADED
    + """
class Undone(torch.nn.Module):
    '''The shipped model behind what undoes a normalisation by mean 0.5 and std 0.25.'''

    def __init__(self):
        super().__init__()
        self.net = trained()

    def forward(self, x):
        return self.net(0.25 * x + 0.5)
"""
)


@pytest.mark.parametrize("words", [("--mean", "0.5", "--std", "0.25"), ("--mean", "1/2", "--std", "1/4")])
def test_the_options_put_a_normalisation_in_front(
    command: Command, tmp_path: Path, madry: list[str], words: tuple[str, ...]
) -> None:
    (tmp_path / "net.py").write_text(NORMALISED)
    assert row(command(tmp_path, "--model", "net.py:Undone", *words, *FAST), "Undone") == madry


def test_a_program_is_normalised_too(command: Command, tmp_path: Path, madry: list[str]) -> None:
    (tmp_path / "net.py").write_text(LOADED)
    file = program("scripted", tmp_path).name
    words = ("--checkpoint", file, "--trust-code", *FAST)
    assert row(command(tmp_path, *words, "--mean", "none"), "scripted") == madry
    assert row(command(tmp_path, *words, "--mean", "mnist"), "scripted") != madry


def test_a_normalisation_is_part_of_the_identity_and_of_the_model_that_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(LOADED)
    half = Normalisation((0.5,), (0.25,))
    plain, normalised = (
        external_model(
            "net.py:trained", None, dataset="digits", suite="digits", shape=SHAPE, normalisation=normalisation
        )
        for normalisation in (None, half)
    )
    assert normalised.identity["normalisation"] == "--mean 0.5 --std 0.25"
    assert "normalisation" not in plain.identity
    assert plain.sha256 == normalised.sha256
    assert plain.answers != normalised.answers
    x = torch.rand(4, *SHAPE)
    expected = load_model(plain, Path(), classes=10)((x - 0.5) / 0.25)
    torch.testing.assert_close(load_model(normalised, Path(), classes=10)(x), expected)


def test_a_wrapped_checkpoint_says_which_normalisation_a_bare_factory_needs(
    command: Command, tmp_path: Path, madry: list[str]
) -> None:
    (tmp_path / "net.py").write_text(NORMALISED)
    state = {f"1.net.{name}": value for name, value in trained().state_dict().items()}
    torch.save(state | {"0.mean": torch.tensor([0.5]), "0.std": torch.tensor([0.25])}, tmp_path / "weights.pt")
    words = ("--model", "net.py:Undone", "--checkpoint", "weights.pt", *FAST)
    refused = command(tmp_path, *words)
    assert refused.returncode == 2
    assert "give --mean 0.5 --std 0.25" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert row(command(tmp_path, *words, "--mean", "0.5", "--std", "0.25"), "Undone") == madry


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mean", "0.5"), "got no std beside '0.5'"),
        (("--mean", "0.5", "--std", "0"), "std must be above 0, got 0"),
        (("--mean", "a lot", "--std", "0.5"), "unknown normalisation for mean 'a lot'"),
        (("--mean", "0.1,0.2", "--std", "0.5"), "got 1 and 2"),
        (("--mean", "imagenet"), "expected 1 value of mean and std, one a channel of the images"),
    ],
)
def test_a_normalisation_that_cannot_be_is_one_line(
    command: Command, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "net.py").write_text(LOADED)
    result = command(tmp_path, "--model", "net.py:trained", *words, *FAST)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert said in result.stderr


def test_registered_models_have_the_normalisation_that_they_have(command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, "--models", "madry", "--mean", "mnist", *FAST)
    assert result.returncode == 2
    assert "--mean and --std are for a model of your own" in result.stderr


def test_the_options_add_to_no_normalisation_that_the_factory_brings(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        LOADED + "from attacks.models.normalisation import Normalize\n"
        "def own():\n    return torch.nn.Sequential(Normalize((0.5,), (0.5,)), trained())\n"
    )
    result = command(tmp_path, "--model", "net.py:own", "--mean", "mnist", *FAST)
    assert result.returncode == 2
    assert "its part '0' (Normalize) holds one; leave them out" in result.stderr
