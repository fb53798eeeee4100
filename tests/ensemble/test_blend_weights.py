import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from kfold_ens.ensemble.weights import ROUNDS, equal, greedy, simplex

CLASSES = ("a", "b", "c")
SEEDS = st.integers(0, 2**31)


def random_case(seed, members=3, images=60):
    """Probabilities of members of unequal skill, and class indices."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, len(CLASSES), images)
    skill = rng.uniform(0, 2, members)[:, None, None] * np.eye(len(CLASSES))[target]
    return softmax(rng.normal(size=(members, images, len(CLASSES))) + skill, axis=2), target


def accuracy_of(target):
    return lambda p_nk: float((p_nk.argmax(axis=1) == target).mean())


def loss_of(p_mnk, target, weights):
    mixed = np.einsum("m,mnk->nk", weights, p_mnk)
    return -np.log(mixed[np.arange(len(target)), target]).mean()


def by_expectation_maximisation(p_mnk, target, rounds=20000):
    """The mixture weights of highest likelihood, another way than SLSQP."""
    own = p_mnk[:, np.arange(len(target)), target]
    weights = np.full(len(own), 1 / len(own))
    for _ in range(rounds):
        weights = (weights[:, None] * own / (weights @ own)).mean(axis=1)
    return weights


def by_counting(p_mnk, target):
    """Greedy selection on accuracy, as lists of names."""
    chosen, prefixes = [], []
    for _ in range(ROUNDS):
        right = {
            each: (np.mean([p_mnk[i] for i in [*chosen, each]], axis=0).argmax(axis=1) == target).sum()
            for each in range(len(p_mnk))
        }
        best = [each for each in right if right[each] == max(right.values())]
        chosen = [*chosen, ([each for each in best if each in chosen] or best)[0]]
        prefixes.append((right[chosen[-1]], list(chosen)))
    top = max(score for score, _ in prefixes)
    first = next(names for score, names in prefixes if score == top)
    return np.array([first.count(each) / len(first) for each in range(len(p_mnk))])


@settings(deadline=None, max_examples=10)
@given(SEEDS)
def test_simplex_weights_equal_those_of_expectation_maximisation(seed):
    p_mnk, target = random_case(seed)
    own, other = simplex(p_mnk, target, None), by_expectation_maximisation(p_mnk, target)
    assert loss_of(p_mnk, target, own) == pytest.approx(loss_of(p_mnk, target, other), abs=1e-5)
    assert own == pytest.approx(other, abs=0.02)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_greedy_weights_equal_those_of_selection_by_names(seed):
    p_mnk, target = random_case(seed)
    assert greedy(p_mnk, target, accuracy_of(target)) == pytest.approx(by_counting(p_mnk, target))


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_fitted_weights_are_never_worse_in_sample_than_the_best_recipe(seed):
    p_mnk, target = random_case(seed)
    value = accuracy_of(target)
    chosen = greedy(p_mnk, target, value)
    assert value(np.einsum("m,mnk->nk", chosen, p_mnk)) >= max(map(value, p_mnk)) - 1e-12
    single = min(loss_of(p_mnk, target, each) for each in np.eye(len(p_mnk)))
    assert loss_of(p_mnk, target, simplex(p_mnk, target, value)) <= single + 1e-12


@pytest.mark.parametrize("weigh", [equal, greedy, simplex])
def test_identical_recipes_get_equal_weights(weigh):
    p_mnk, target = random_case(0, members=1)
    weights = weigh(np.repeat(p_mnk, 4, axis=0), target, accuracy_of(target))
    assert weights == pytest.approx(np.full(4, 0.25))
