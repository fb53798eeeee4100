import torch
from stages import training_recipe
from torch import nn

from kfold_ens.compute.compute import Compute
from kfold_ens.compute.inference import Most, predict_logits


class Small(nn.Module):
    """A network that runs out of memory with more than three images."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return images.mean(dim=(1, 2, 3))[:, None]


def test_the_next_call_starts_with_the_batch_size_that_fit():
    network, most, image = Small(), Most(), training_recipe().image
    batch = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 3, 16, 16)
    for _ in range(2):
        logits = predict_logits(network, [batch], image, Compute(torch.device("cpu"), None, 0), most)
        assert (logits[:, 0] * 255).round().tolist() == list(range(8))
    assert network.seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
