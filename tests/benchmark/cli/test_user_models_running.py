"""Models of every make run with the right verdicts, those of their well-behaved twin, or end in one true line."""

import copy
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.models.modes import frozen
from attacks.models.probe_images import probe_images
from attacks.models.quirks import find_quirks
from attacks.models.user_model import ModelError, Quirks, UserModel
from attacks.oracle import Oracle
from attacks.registry import ATTACKS, attack_spec
from attacks.search_model import search_model
from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.evaluation.hardware import Hardware
from benchmark.evaluation.model_checks import check_model
from benchmark.sweep.prepare import load_on
from model_zoo.load import external_model
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import SHIPPED
from model_zoo.user_models.factory import call_factory
from model_zoo.weights.checkpoint import state_digest

Command = Callable[..., subprocess.CompletedProcess[str]]
ZOO = Path(__file__).with_name("user_models.py")
CHECKPOINT = SHIPPED / "digits/madry.safetensors"
CPU = Hardware(torch.device("cpu"), torch.float32, 64)
FAST = ("--attacks", "pgd-20", "--examples", "20", "--transfer", "none", "--workers", "1", "--quiet")

pytestmark = [
    # What torch says of its own old ways, which users' models still take.
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning"),
    pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning"),
]


@pytest.fixture(scope="module")
def digits() -> Split:
    return balanced_subset(load("digits", "test", data_dir=Path("data")), 40, seed=0)


def spec_of(kind: str, *, output: str = "", checkpoint: Path | None = None) -> ModelSpec:
    place, shape = f"{ZOO}:{kind}", (1, 8, 8)
    return external_model(place, checkpoint, dataset="digits", suite="digits", shape=shape, output=output)


def quirks_of(kind: str, *, output: str = "", checkpoint: Path | None = None) -> Quirks:
    quirks = spec_of(kind, output=output, checkpoint=checkpoint).quirks
    assert quirks is not None
    return quirks


def loaded(kind: str, digits: Split, *, output: str = "", checkpoint: Path | None = None) -> nn.Module:
    return load_on(CPU, spec_of(kind, output=output, checkpoint=checkpoint), digits, Path())


def logits_and_gradient(model: nn.Module, images: Split, size: int) -> tuple[Tensor, Tensor, Tensor]:
    oracle = Oracle(model, ThreatModel("Linf", 0.1), demands_finite=True)
    loss, gradient = oracle.loss_and_gradient(images.x[:size], images.y[:size], "cross-entropy")
    oracle.settle()
    return oracle.logits(images.x[:size]), loss, gradient


TWINS = {
    "squeezing": Quirks(fewest=2),
    "norm1d": Quirks(fewest=2),
    "fixed64": Quirks(batch=64),
    "fixed1": Quirks(batch=1),
    "exported": Quirks(batch=24),
    "scripted": Quirks(),
    "traced": Quirks(),
    "compiled": Quirks(is_compiled=True),
    "viewing": Quirks(is_contiguous=True),
    "extra_state": Quirks(),
    "lazy_loaded": Quirks(),
    "double": Quirks(dtype="float64"),
    "reentrant": Quirks(unwraps_checkpointing=True),
    "clamping": Quirks(is_flat_at_bounds=True),
    "clamping_doubles": Quirks(dtype="float64", is_flat_at_bounds=True),
    "spiking": Quirks(keeps_state=True),
    "counting": Quirks(keeps_state=True),
    "forgetting": Quirks(keeps_state=True),
    "in_place": Quirks(),
    "counting_in_a_list": Quirks(keeps_state=True),
    "caching": Quirks(),
    "sparse": Quirks(returns_arrays=True),
}


STATEFUL = ("spiking", "counting", "forgetting", "counting_in_a_list")


@pytest.mark.parametrize("kind", TWINS)
def test_a_model_is_asked_as_it_can_be_and_answers_as_its_twin_does(kind: str, digits: Split) -> None:
    assert quirks_of(kind) == TWINS[kind]
    model, twin = loaded(kind, digits), loaded("plain", digits)
    before = digits.x.clone()
    for size in (40, 1, 2, 3):  # what was asked before must not matter
        both = (logits_and_gradient(one, digits, size) for one in (model, twin))
        for mine, other in zip(*both, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert torch.equal(digits.x, before)
    flags = {"norm1d": ["train-mode"], **{kind: ["stateful"] for kind in STATEFUL}}
    assert list(check_model(kind, model, digits, CPU).flags) == flags.get(kind, [])


@pytest.mark.parametrize(
    "kind", ["fixed64", "double", "reentrant", "spiking", "in_place", "traced", "compiled", "clamping"]
)
def test_a_model_gets_the_verdicts_of_its_twin(kind: str, command: Command, tmp_path: Path) -> None:
    found = {}
    for name in ("plain", kind):
        result = command(tmp_path, "--model", f"{ZOO}:{name}", *FAST)
        assert result.returncode == 0, result.stderr
    for line in (tmp_path / "results/mine/digits/scores.csv").read_text().splitlines()[1:]:
        found[line.split(",")[2]] = line.split(",")[11:16]
    assert found[kind] == found["plain"]


def test_a_well_behaved_model_has_no_quirks_and_its_batch_norm_is_folded_for_the_search() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    model.requires_grad_(False)
    x = probe_images((3, 8, 8))
    assert find_quirks(model, x) == Quirks()
    searched = search_model(UserModel(model, Quirks()), x, torch.bfloat16)
    assert not [module for module in searched.modules() if isinstance(module, nn.BatchNorm2d)]


def test_looking_for_quirks_leaves_the_model_and_all_generators_as_they_were() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Dropout())
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    find_quirks(model, probe_images((1, 8, 8)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_are_changed_at_every_pass_are_those_of_the_beginning_at_the_next(digits: Split) -> None:
    assert quirks_of("adapting").keeps_state
    model = loaded("adapting", digits)
    first = model(digits.x)
    model(digits.x[:3])
    assert torch.equal(model(digits.x), first)


def test_generators_of_the_models_own_follow_the_seed(digits: Split) -> None:
    assert quirks_of("own_generator") == Quirks(has_generators=True)
    model, answers = loaded("own_generator", digits), []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        answers.append(model(digits.x))
    assert torch.equal(answers[0], answers[2])
    assert not torch.equal(answers[0], answers[1])


@pytest.mark.parametrize("kind", ["noise_in_an_object", "noise_in_a_list"])
def test_generators_are_found_wherever_a_model_holds_them(kind: str, digits: Split) -> None:
    spec = spec_of(kind)
    assert (spec.quirks, spec.randomized) == (Quirks(has_generators=True), True)
    assert "randomized" in check_model(kind, loaded(kind, digits), digits, CPU).flags


def test_a_model_that_moves_its_own_weights_is_dynamic(digits: Split) -> None:
    assert list(check_model("adapting", loaded("adapting", digits), digits, CPU).flags) == ["stateful", "dynamic"]


@pytest.mark.parametrize("size", [8, 40])
def test_a_model_that_holds_state_of_a_call_before_is_refused(size: int, digits: Split) -> None:
    model = call_factory(f"{ZOO}:spiking").eval()
    model(digits.x[:size])
    message = refusal(lambda: find_quirks(model, probe_images((1, 8, 8))))
    assert "holds some of a call before in 'membrane'" in message


def test_what_follows_an_exported_program_is_put_into_eval_mode() -> None:
    program = torch.export.export(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), (torch.zeros(4, 1, 8, 8),))
    dropout = nn.Dropout()
    frozen(nn.Sequential(program.module(), dropout))
    assert not dropout.training


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_state_that_no_copy_reaches_is_refused_in_one_line() -> None:
    message = refusal(lambda: spec_of("remembering"))
    assert "expected the same answers to the same images under the same seeds" in message
    assert "hold these as attributes of the module, or reset them in forward" in message


def test_a_model_that_stored_verdicts_could_not_be_told_by_is_refused(command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, "--model", f"{ZOO}:refusing_noise", *FAST, "--epsilon", "0.1")
    assert result.returncode == 2
    assert "have it take any image in [0, 1]" in result.stderr


@pytest.mark.parametrize("kind", ["arrays", "no_grad", "inference", "quantised"])
def test_black_boxes_are_asked_for_no_gradient_where_no_attack_needs_one(kind: str, digits: Split) -> None:
    model = loaded(kind, digits)
    checked = check_model(kind, model, digits, CPU, needs_gradients=False)
    assert int((checked.prediction == digits.y).sum()) == 40
    assert "no-gradients" in checked.flags
    message = refusal(lambda: check_model(kind, model, digits, CPU))
    assert "gradient" in message
    assert "such as square" in message


def test_a_model_with_gradients_is_not_said_to_have_none(digits: Split) -> None:
    assert list(check_model("plain", loaded("plain", digits), digits, CPU, needs_gradients=False).flags) == []


def test_numpy_under_a_gradient_is_quoted(digits: Split) -> None:
    message = refusal(lambda: check_model("mine", loaded("arrays", digits), digits, CPU))
    assert message.startswith(
        "model mine: where a gradient is asked for: the model raised RuntimeError: Can't call numpy"
    )


@pytest.mark.parametrize("kind", ["arrays", "quantised"])
def test_square_runs_on_a_black_box(kind: str, command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, "--model", f"{ZOO}:{kind}", *FAST[2:], "--attacks", "square", "--epsilon", "0.3")
    assert result.returncode == 0, result.stderr
    assert f"| {kind} " in result.stdout


def test_which_attacks_need_gradients() -> None:
    assert [name for name in ATTACKS if not attack_spec(name).needs_gradients] == [
        "foolbox-boundary",
        "foolbox-hopskipjump",
        "square",
        "square-500",
        "spsa",
        "spsa-500",
        "nes",
        "rays",
        "random-points",
        "spatial-grid",
        "spatial-grid-31",
        "spatial-random-10",
        "spatial-random-1000",
        "sparse-rs",
        "reference-square",
    ]


@pytest.mark.parametrize(
    ("kind", "part", "others"),
    [
        ("returns_tuple", "1", ("0", "2", "logits")),
        ("returns_dict", "logits", ("loss", "scores")),
        ("returns_dataclass", "logits", ("features2",)),
        ("returns_namedtuple", "scores", ("logits",)),
        ("returns_nested", "out.logits", ("out.scores",)),
    ],
)
def test_the_logits_are_found_where_output_says(kind: str, part: str, others: Sequence[str], digits: Split) -> None:
    model, twin = loaded(kind, digits, output=part), loaded("plain", digits)
    torch.testing.assert_close(model(digits.x), twin(digits.x))
    message = refusal(lambda: spec_of(kind))
    assert "expected logits, got a " in message
    assert "say which part they are by --output" in message
    for other in set(others) - {"0"}:
        assert "output" in refusal(lambda other=other: spec_of(kind, output=other))  # type: ignore[misc]


def test_a_part_inside_of_a_part_is_named_from_the_outside() -> None:
    for output in ("out", "out.scores"):
        assert "by --output out.logits" in refusal(lambda output=output: spec_of("returns_nested", output=output))  # type: ignore[misc]


def test_output_belongs_to_the_identity_of_a_model_and_only_there() -> None:
    chosen, plain = spec_of("returns_dict", output="logits"), spec_of("plain")
    assert chosen.identity["output"] == "logits"
    assert "output" not in plain.identity


def test_output_without_a_model_of_ones_own_is_a_mistake(command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, "--models", "natural", "--output", "logits", *FAST)
    assert result.returncode == 2
    assert "--output needs --model" in result.stderr


def test_output_is_an_option_of_the_command_line(command: Command, tmp_path: Path) -> None:
    assert command(tmp_path, "--model", f"{ZOO}:returns_dict", "--output", "logits", *FAST).returncode == 0
    result = command(tmp_path, "--model", f"{ZOO}:returns_dict", *FAST)
    assert result.returncode == 2
    assert "got a OrderedDict of loss, logits; say which part they are by --output logits" in result.stderr


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("raising_forwards", "raising_forwards: pgd-20: the model raised ArithmeticError: no photograph"),
        (
            "raising_backwards",
            "model raising_backwards: in its backward pass: the model raised LookupError: no way back; mend it, or use "
            "an attack that needs no gradient, such as square",
        ),
        (
            "blind",
            "model blind: cannot take digits images of shape (20, 1, 8, 8): the model raised KeyError: 'weights of "
            "layer 7'",
        ),
        ("lazy", "expected weights for all of its layers, got none for 'conv1.weight', which is lazy"),
    ],
)
def test_what_goes_wrong_in_a_model_is_quoted(kind: str, line: str, command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, "--model", f"{ZOO}:{kind}", *FAST)
    assert result.returncode == 2, result.stderr
    assert line in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_backward_pass_that_fails_in_the_middle_is_told_with_model_and_attack(
    command: Command, tmp_path: Path
) -> None:
    result = command(tmp_path, "--model", f"{ZOO}:fails_later", *FAST)
    assert result.returncode == 2, result.stderr
    assert "fails_later: pgd-20: in its backward pass the model raised LookupError: no way back" in result.stderr


def test_a_defect_of_ours_still_shows_its_traceback(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("attacks.loop.run", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        command(tmp_path, "--model", f"{ZOO}:plain", *FAST)


def test_want_of_memory_is_no_fault_of_the_models() -> None:
    class Hungry(nn.Module):
        def forward(self, _x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        UserModel(Hungry(), Quirks())(torch.zeros(1, 1, 2, 2))


def test_torchscript_is_quoted_by_its_last_line() -> None:
    model = torch.jit.script(nn.Linear(3, 2))
    with pytest.raises(ModelError, match=r"^the model raised RuntimeError: mat1 and mat2"):
        UserModel(model, Quirks())(torch.zeros(1, 4))


def test_lazy_layers_take_their_weights_from_a_checkpoint(digits: Split) -> None:
    model, twin = loaded("lazy", digits, checkpoint=CHECKPOINT), loaded("plain", digits)
    torch.testing.assert_close(model(digits.x), twin(digits.x))


def test_what_is_no_tensor_in_a_state_dict_belongs_to_the_identity() -> None:
    base = {"weight": torch.ones(2)}
    states: list[object] = [3, "three", (torch.ones(2), None), {"a": torch.zeros(1)}, torch.qint8]
    digests = {state_digest({**base, "extra": state}) for state in states}
    assert len(digests | {state_digest(base)}) == len(states) + 1
    scales = [torch.quantize_per_tensor(torch.ones(2), scale, 0, torch.qint8) for scale in (0.1, 0.2)]
    assert len({state_digest({"weight": weight}) for weight in scales}) == 2


def test_a_users_own_way_to_a_device_is_taken() -> None:
    class Moving(nn.Module):
        moved = False

        def to(self, _device: object) -> None:  # type: ignore[override]
            self.moved = True

    model = Moving()
    model_of_user = UserModel(model, Quirks()).to(torch.device("cpu"))
    assert model_of_user.model is model
    assert model.moved
    model_of_user.to(memory_format=torch.channels_last)  # which the user's own does not take
