"""The attacks of other libraries as their documentation calls them: what `speed` measures this harness beside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import foolbox
from torch import Tensor, nn

from attacks.oracle import CountingClassifier
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel

Attack = Callable[[CountingClassifier, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """Another library's version of an attack of ours, in float32.

    Args:
        library: its name on the package index.
        norms: that it has the attack for.
        make: `make(model, threat) -> attack(model, x, y)`. Raises: ImportError where the library is not installed.
    """

    library: str
    norms: tuple[str, ...]
    make: Callable[[nn.Module, ThreatModel], Attack]


def _foolbox_pgd(_: nn.Module, threat: ThreatModel) -> Attack:
    kind = {"Linf": foolbox.attacks.LinfPGD, "L2": foolbox.attacks.L2PGD}[threat.norm]
    spec = ATTACKS["pgd-20"]
    attack = kind(rel_stepsize=spec.params["rel_step_size"], steps=spec.steps)

    def run(model: CountingClassifier, x: Tensor, y: Tensor) -> Tensor:
        bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        x_adv: Tensor = attack(bounded, x, y, epsilons=threat.epsilon)[1]
        return x_adv

    return run


def _torchattacks_pgd(model: nn.Module, threat: ThreatModel) -> Attack:
    import torchattacks

    spec = ATTACKS["pgd-20"]
    step = spec.params["rel_step_size"] * threat.epsilon
    return _torchattacks(torchattacks.PGD(model, eps=threat.epsilon, alpha=step, steps=spec.steps))


def _torchattacks_mi_fgsm(model: nn.Module, threat: ThreatModel) -> Attack:
    import torchattacks

    spec = ATTACKS["mi-fgsm"]
    step, decay = spec.params["rel_step_size"] * threat.epsilon, spec.params["momentum"]
    return _torchattacks(torchattacks.MIFGSM(model, eps=threat.epsilon, alpha=step, steps=spec.steps, decay=decay))


def _torchattacks(attack: Callable[[Tensor, Tensor], Tensor]) -> Attack:
    return lambda _, x, y: attack(x, y)


PEERS: Mapping[str, tuple[Peer, ...]] = {
    "pgd-20": (
        Peer("foolbox", ("Linf", "L2"), _foolbox_pgd),
        Peer("torchattacks", ("Linf",), _torchattacks_pgd),
    ),
    "mi-fgsm": (Peer("torchattacks", ("Linf",), _torchattacks_mi_fgsm),),
}
"""By the name of our attack."""
