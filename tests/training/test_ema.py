import torch
from torch import nn

from kfold_ens.config import EmaOfWeights
from kfold_ens.training.ema import build_ema


def test_the_average_equals_its_formula_from_start_epoch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ema = build_ema(EmaOfWeights(kind="ema", decay=0.9, start_epoch=2), network)
    expected: dict[str, torch.Tensor] = {}
    for epoch in range(5):
        for _ in range(3):
            network(torch.randn(8, 3))  # moves the batch statistics
            with torch.no_grad():
                network[0].weight += torch.randn(4, 3)
            ema.after_step(network, epoch)
            state = {name: value.double() for name, value in network.state_dict().items() if value.is_floating_point()}
            if epoch == 2 and not expected:
                expected = state
            elif epoch >= 2:
                expected = {name: 0.9 * expected[name] + 0.1 * value for name, value in state.items()}
        assert ema.evaluated(network, epoch) is (ema.averaged.module if epoch >= 2 else network)
    averaged = ema.averaged.module.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name].double(), value, rtol=1e-5, atol=1e-6)
