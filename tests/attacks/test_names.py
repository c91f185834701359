import pytest

from attacks.errors import InputError
from attacks.names import lookup

TABLE = {"fgsm": 1, "pgd-20": 2, "cw-linf": 3}


def test_a_known_name_gives_its_entry() -> None:
    assert lookup("pgd-20", TABLE, "attack") == 2


@pytest.mark.parametrize("name", ["pgd20", "PGD-20", "pdg-20"])
def test_a_misspelt_name_is_answered_with_the_nearest_one(name: str) -> None:
    with pytest.raises(InputError) as caught:
        lookup(name, TABLE, "attack")
    assert str(caught.value) == f"unknown attack {name!r}; did you mean 'pgd-20'? known: fgsm, pgd-20, cw-linf"


@pytest.mark.parametrize("name", ["", "zzzzzz"])
def test_a_name_near_to_none_is_answered_with_the_known_ones_only(name: str) -> None:
    with pytest.raises(InputError) as caught:
        lookup(name, TABLE, "attack")
    assert str(caught.value) == f"unknown attack {name!r}; known: fgsm, pgd-20, cw-linf"
