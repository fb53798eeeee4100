from hypothesis import given
from hypothesis import strategies as st

from kfold_ens.randomness import derive_seed

PARTS = st.lists(st.integers() | st.text(), max_size=4).map(tuple)


def test_a_seed_is_the_same_on_every_machine():
    assert derive_seed(0, "order", 3, 7) == 8921843015967890881
    assert derive_seed() == 5460801731388113703


@given(PARTS, PARTS)
def test_seeds_differ_if_any_part_differs(parts, others):
    assert (derive_seed(*parts) == derive_seed(*others)) == (parts == others)
    assert 0 <= derive_seed(*parts) < 2**63


def test_parts_do_not_run_together():
    seeds = {derive_seed(*parts) for parts in (("ab",), ("a", "b"), ("a, b",), (1,), ("1",), (1, 0), (10,), (0, 1))}
    assert len(seeds) == 8
