import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.oracle import CountingClassifier, Oracle, Query
from attacks.threat_model import ThreatModel

THREAT = ThreatModel("Linf", 0.1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)).eval()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 1, 6, 6, generator=generator), torch.tensor([0, 3, 4])


def test_logits_are_those_of_the_classifier_and_carry_no_graph() -> None:
    model, (x, _) = network(), batch()
    logits = Oracle(model, THREAT).logits(x)
    assert torch.equal(logits, model(x))
    assert not logits.requires_grad


def summed_loss(name: str, logits: Tensor, label: Tensor) -> Tensor:
    if name == "cross-entropy":
        return F.cross_entropy(logits, label, reduction="sum")
    if name == "kl-divergence":
        return F.kl_div(logits.log_softmax(1), label.exp(), reduction="sum")
    rows = range(len(label))
    others = logits - 1e9 * F.one_hot(label, logits.shape[1])
    return -(logits[rows, label] - others.max(1).values + 50).clamp_min(0).sum()


@pytest.mark.parametrize("loss", ["cross-entropy", "margin", "kl-divergence"])
def test_gradients_are_those_of_the_summed_loss(loss: str) -> None:
    model, (x, y) = network(), batch()
    label = torch.randn(3, 5, generator=torch.Generator().manual_seed(2)).log_softmax(1)
    if loss != "kl-divergence":
        label = y
    values, gradient = Oracle(model, THREAT).loss_and_gradient(x, label, loss)

    leaf = x.clone().requires_grad_()
    total = summed_loss(loss, model(leaf), label)
    total.backward()
    torch.testing.assert_close(gradient, leaf.grad)
    assert gradient.abs().max() > 1e-3
    assert values.shape == (3,)
    torch.testing.assert_close(values.sum(), total.detach())
    assert not values.requires_grad
    assert not gradient.requires_grad


def test_gradients_are_taken_where_the_caller_has_switched_them_off() -> None:
    model, (x, y) = network(), batch()
    expected = Oracle(model, THREAT).loss_and_gradient(x, y, "cross-entropy")[1]
    with torch.no_grad():
        assert torch.equal(Oracle(model, THREAT).loss_and_gradient(x, y, "cross-entropy")[1], expected)


def test_queries_leave_images_and_parameters_alone() -> None:
    model, (x, y) = network(), batch()
    kept = x.clone()
    Oracle(model, THREAT).loss_and_gradient(x, y, "cross-entropy")
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert x.grad is None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_bfloat16_search_computes_in_bfloat16_and_answers_in_float32() -> None:
    model, (x, y) = network(), batch()
    oracle = Oracle(model, THREAT, precision=torch.bfloat16)
    logits = oracle.logits(x)
    value, gradient = oracle.loss_and_gradient(x, y, "cross-entropy")
    assert {logits.dtype, value.dtype, gradient.dtype} == {torch.float32}
    assert torch.equal(logits, logits.bfloat16().float())
    exact = Oracle(model, THREAT)
    assert not torch.equal(logits, exact.logits(x))
    torch.testing.assert_close(logits, exact.logits(x), atol=0.02, rtol=0.02)
    torch.testing.assert_close(gradient, exact.loss_and_gradient(x, y, "cross-entropy")[1], atol=0.02, rtol=0.02)


def test_a_float32_search_does_not_fall_for_the_callers_autocast() -> None:
    model, (x, _) = network(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        inside = Oracle(model, THREAT).logits(x)
    assert torch.equal(inside, model(x))


def test_an_oracle_counts_the_passes_of_each_of_its_images() -> None:
    model, (x, y) = network(), batch()
    oracle = Oracle(model, THREAT)
    assert (oracle.forwards, oracle.backwards) == (0, 0)
    n = len(x)
    oracle.logits(x)
    assert (oracle.forwards, oracle.backwards) == (n, 0)
    oracle.loss_and_gradient(x, y, "margin")
    assert (oracle.forwards, oracle.backwards) == (2 * n, n)
    logits, jacobian = oracle.logits_and_jacobian(x)
    classes = logits.shape[1]
    assert (oracle.forwards, oracle.backwards) == (3 * n, n + classes * n)
    assert jacobian.shape == (n, classes, *x.shape[1:])


def test_the_jacobian_holds_the_gradient_of_each_logit() -> None:
    model, (x, y) = network(), batch()
    oracle = Oracle(model, THREAT)
    _, jacobian = oracle.logits_and_jacobian(x)
    for target in range(jacobian.shape[1]):
        pair = torch.stack([y, torch.full_like(y, target)], 1)
        _, gradient = oracle.loss_and_gradient(x, pair, "difference")
        expected = jacobian[:, target] - jacobian[torch.arange(len(x)), y]
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)


def test_a_watch_sees_every_query_without_its_graph() -> None:
    model, (x, y) = network(), batch()
    seen: list[Query] = []
    oracle = Oracle(model, THREAT, watch=seen.append)
    oracle.logits(x)
    oracle.loss_and_gradient(x / 2, y, "margin", rows=torch.arange(len(x)))
    for query, expected in zip(seen, (x, x / 2), strict=True):
        assert torch.equal(query.points, expected)
        torch.testing.assert_close(query.logits, model(expected).detach())
        assert not query.points.requires_grad
        assert not query.logits.requires_grad
    assert [query.backwards for query in seen] == [0, 1]
    assert [query.rows is None for query in seen] == [True, False]


class Alternating(nn.Module):
    """Another network at each pass, in turns."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        logits: Tensor = self.networks[self.passes % len(self.networks)](x)
        return logits


class Noisy(nn.Module):
    """One draw of a classifier behind noise."""

    def __init__(self, noise: Tensor, classifier: nn.Module, *, scale: float) -> None:
        super().__init__()
        self.noise, self.classifier, self.scale = noise, classifier, scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.scale * self.classifier(x + self.noise)
        return logits


def test_every_answer_is_the_mean_of_as_many_passes_as_are_asked_for() -> None:
    networks, (x, y) = [network(), nn.Sequential(network(), nn.Tanh()), network().double().float()], batch()
    seen: list[Query] = []
    oracle = Oracle(Alternating(*networks), THREAT, eot=3, watch=seen.append)
    alone = [Oracle(one, THREAT) for one in networks]
    logits = torch.stack([one.logits(x) for one in alone]).mean(0)
    values, gradients = zip(*(one.loss_and_gradient(x, y, "cross-entropy") for one in alone), strict=True)
    jacobian = torch.stack([one.logits_and_jacobian(x)[1] for one in alone]).mean(0)

    torch.testing.assert_close(oracle.logits(x), logits)
    value, gradient = oracle.loss_and_gradient(x, y, "cross-entropy", rows=torch.arange(len(x)))
    torch.testing.assert_close(value, torch.stack(values).mean(0))
    torch.testing.assert_close(gradient, torch.stack(gradients).mean(0))
    torch.testing.assert_close(oracle.logits_and_jacobian(x)[1], jacobian)

    assert [(query.forwards, query.backwards) for query in seen] == [(3, 0), (3, 3), (3, 15)]
    assert (oracle.forwards, oracle.backwards) == (9 * len(x), 18 * len(x))
    for query in seen:
        torch.testing.assert_close(query.logits, logits)
    assert seen[1].loss is not None
    assert torch.equal(seen[1].loss, value)
    assert seen[0].loss is None


def test_the_mean_of_the_probability_loss_points_where_the_loss_of_the_mean_probabilities_does() -> None:
    """SmoothAdv climbs -log((1/m) sum_k p_k(y)) (Salman et al., arXiv:1906.04584), here by autograd over all draws."""
    x, y = batch()
    model, noise = network(), 0.5 * torch.randn(4, *x[:1].shape, generator=torch.Generator().manual_seed(3))
    draws = [Noisy(one, model, scale=10.0) for one in noise]
    point = x.clone().requires_grad_()
    mean = torch.stack([one(point).softmax(1) for one in draws]).mean(0)
    (expected,) = torch.autograd.grad(F.nll_loss(mean.log(), y, reduction="sum"), point)
    found = {}
    for loss in ("probability", "cross-entropy"):
        _, gradient = Oracle(Alternating(*draws), THREAT, eot=4).loss_and_gradient(x, y, loss)
        found[loss] = F.cosine_similarity(gradient.flatten(1), expected.flatten(1))
    assert (found["probability"] > 1 - 1e-5).all()
    assert (found["cross-entropy"] < 0.99).any()


def test_a_counting_classifier_gives_the_logits_of_the_classifier_with_their_graph() -> None:
    model, (x, _) = network(), batch()
    counting = CountingClassifier(model)
    assert torch.equal(counting(x), model(x))
    assert counting(x.clone().requires_grad_()).requires_grad


def test_a_counting_classifier_counts_images_forwards_and_backwards() -> None:
    model, (x, _) = network(), batch()
    counting = CountingClassifier(model)
    with torch.no_grad():
        counting(x[:2])
    assert (counting.forwards, counting.backwards) == (2, 0)
    logits = counting(x.clone().requires_grad_())
    assert (counting.forwards, counting.backwards) == (5, 0)
    logits.sum().backward()
    assert (counting.forwards, counting.backwards) == (5, 3)


def test_two_backward_passes_through_one_forward_count_twice() -> None:
    model, (x, _) = network(), batch()
    counting = CountingClassifier(model)
    leaf = x.clone().requires_grad_()
    logits = counting(leaf)
    for column in range(2):
        torch.autograd.grad(logits[:, column].sum(), leaf, retain_graph=True)
    assert (counting.forwards, counting.backwards) == (3, 6)


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_mode_of_the_classifier_alone(training: bool) -> None:
    model = network().train(training)
    counting = CountingClassifier(model)
    counting(batch()[0])
    assert [module.training for module in model.modules()] == [training] * 5
    assert not counting.training  # third-party attacks warn of, or change, a classifier that says it is in training
