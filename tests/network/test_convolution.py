import pytest
import torch
from torch import nn

from kfold_ens.network.convolution import MatrixConv2d, multiply_matrices


def pair(kernel=3, stride=1, padding=1, groups=1):
    """torch's convolution and ours, with the same weights."""
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 16, kernel, stride, padding, groups=groups)
    ours = nn.Conv2d(8, 16, kernel, stride, padding, groups=groups)
    ours.load_state_dict(plain.state_dict())
    multiply_matrices(ours)
    return plain, ours


@pytest.mark.parametrize(
    ("side", "kernel", "padding"),
    [(1, 1, 0), (4, 1, 0), (5, 1, 0), (1, 3, 1), (1, 5, 2), (2, 3, 1), (2, 5, 2), (5, 3, 0), (5, 3, 1), (5, 5, 1)],
)
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (1, 4), (2, 1), (2, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_equals_torchs_convolution(side, kernel, padding, stride, groups, layout):
    plain, ours = pair(kernel, stride, padding, groups)
    images = torch.randn(4, 8, side, side).to(memory_format=layout)
    outcomes = []
    for convolution in (plain, ours):
        made = convolution(images)
        made.square().sum().backward()
        assert made.is_contiguous(memory_format=layout)  # otherwise the next layer copies it
        outcomes.append((made, convolution.weight.grad, convolution.bias.grad))
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(*outcomes, strict=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_of_weights_over_padding_is_zero_in_bf16_too(stride):
    for _ in range(8):
        convolution = MatrixConv2d(256, 512, 3, stride, 1, bias=False)
        garbage = [torch.full((512 * 256 * 9,), 1e30).bfloat16() for _ in range(3)]
        del garbage  # freed memory, which the gradient may reuse
        with torch.autocast("cpu", torch.bfloat16):
            made = convolution(torch.randn(8, 256, 1, 1))
        made.float().square().sum().backward()
        convolution.weight.grad[..., 1, 1] = 0
        assert convolution.weight.grad.count_nonzero() == 0


def test_a_network_keeps_its_weights_and_names():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=2, dilation=2), nn.ReLU())
    before = dict(network.state_dict())
    multiply_matrices(network)
    assert [type(module) for module in network] == [MatrixConv2d, nn.Conv2d, nn.ReLU]
    assert all(tensor.equal(network.state_dict()[name]) for name, tensor in before.items())
