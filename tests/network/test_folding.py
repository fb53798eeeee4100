import copy

import pytest
import torch
from conftest import REPOSITORY
from stages import smallest_sibling, training_recipe
from torch import nn
from torch.nn import functional

from kfold_ens.config import Recipe, load_recipe
from kfold_ens.network.classifier import Classifier
from kfold_ens.network.folding import fold_batch_norms

RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))


def trained(network):
    """Randomize statistics and scales, as training would."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.2, 3)):
                nn.init.uniform_(values, low, high)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.uniform_(module.bias, -1, 1)
    return network.eval()


def batch_norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def difference(network, folded, inputs):
    with torch.inference_mode():
        one, other = network(inputs), folded(inputs)
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_folding_keeps_the_outputs_of_every_recipes_network(path):
    torch.manual_seed(0)
    network = trained(Classifier(Recipe.model_validate(smallest_sibling(load_recipe(path, path.parent))), 5))
    folded = fold_batch_norms(copy.deepcopy(network))
    assert batch_norms(network) > 10
    assert batch_norms(folded) == 0
    for size in (32, 65):  # at 32 the last stage has a single pixel
        assert difference(network, folded, torch.rand(3, 3, size, size)) < 1e-5


class Shared(nn.Module):
    """A convolution whose output has two uses, and one that is called twice: neither may be folded."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), *map(nn.BatchNorm2d, (3, 3))

    def forward(self, x):
        x = self.one(x)
        x = x + self.norm(x)
        return self.other(self.two(self.two(x))).flatten(1)


def test_layers_with_several_uses_are_not_folded():
    network = trained(Shared())
    folded = fold_batch_norms(copy.deepcopy(network))
    assert batch_norms(folded) == 2
    assert difference(network, folded, torch.rand(2, 3, 8, 8)) == 0


class Branching(nn.Module):
    """Its graph depends on the images."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return functional.relu(self.norm(self.conv(x))) if x.sum() > 0 else x


def test_a_network_that_cannot_be_traced_stays_unchanged():
    network = trained(Branching())
    assert batch_norms(fold_batch_norms(network)) == 1


def test_folding_keeps_the_predicted_classes_in_bf16():
    """Compares the folded network in bf16 with the original in float32, on images with a clear prediction."""
    torch.manual_seed(0)
    network = trained(Classifier(training_recipe(), 5))
    images = torch.rand(64, 3, 16, 16)
    with torch.inference_mode():
        plain = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            folded = fold_batch_norms(copy.deepcopy(network))(images).float()
    assert float((plain - folded).norm() / plain.norm()) < 0.02
    margin = plain.topk(2).values @ torch.tensor([1.0, -1.0])
    clear = margin > 0.05 * plain.std()
    assert clear.float().mean() > 0.8
    assert torch.equal(plain.argmax(1)[clear], folded.argmax(1)[clear])
