import pytest
import torch
from stages import training_recipe
from torch import nn
from torchvision import models

from kfold_ens.config import Cbam as CbamSection
from kfold_ens.config import MlpHead, TimmBackbone, TorchvisionBackbone
from kfold_ens.errors import KfoldError
from kfold_ens.network.attention import Cbam
from kfold_ens.network.backbones import build_backbone
from kfold_ens.network.classifier import Classifier
from kfold_ens.network.heads import build_head

RESNET = {"kind": "torchvision", "name": "resnet18", "weights": "none"}
INSERTED = [{"kind": "dropout", "after": "layer3", "probability": 0.2}, {"kind": "cbam", "after": "layer4"}]


def torchvision_backbone(**more):
    return TorchvisionBackbone.model_validate(RESNET | more)


def classifier(**more):
    return Classifier(training_recipe(backbone=RESNET | more), 3)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_a_backbone_equals_torchvisions_network_without_its_classifier(name):
    backbone, features = build_backbone(torchvision_backbone(name=name))
    whole = models.get_model(name, weights=None)
    whole.load_state_dict(backbone.state_dict(), strict=False)
    assert {key for key in whole.state_dict() if not key.startswith("fc.")} == set(backbone.state_dict())
    whole.fc = nn.Identity()
    images = torch.rand(2, 3, 40, 40)
    torch.testing.assert_close(backbone.eval()(images), whole.eval()(images))
    assert features == backbone(images).shape[1]


def test_parts_follow_the_stages_they_are_inserted_after():
    backbone, _ = build_backbone(torchvision_backbone(inserted=INSERTED))
    names = [name for name, _ in backbone.named_children()]
    assert names[-6:] == ["layer3", "layer3_dropout", "layer4", "layer4_cbam", "avgpool", "flatten"]
    assert isinstance(backbone.layer3_dropout, nn.Dropout)


def test_cbam_equals_the_equations_of_its_paper():
    torch.manual_seed(0)
    cbam, features = Cbam(8, ratio=4, kernel_size=7), torch.randn(2, 8, 5, 6)
    first, second = cbam.mlp[0].weight[:, :, 0, 0], cbam.mlp[2].weight[:, :, 0, 0]

    def mlp(pooled_nc):
        return (pooled_nc @ first.T).relu() @ second.T

    channel = torch.sigmoid(mlp(features.mean((2, 3))) + mlp(features.flatten(2).max(2).values))
    attended = channel[:, :, None, None] * features
    planes = nn.functional.pad(torch.stack([attended.mean(1), attended.max(1).values], 1), (3, 3, 3, 3))
    windows = planes.unfold(2, 7, 1).unfold(3, 7, 1)
    place = torch.sigmoid(torch.einsum("nchwij,cij->nhw", windows, cbam.conv.weight[0]))
    torch.testing.assert_close(cbam(features), place[:, None] * attended)
    assert CbamSection(kind="cbam", after="layer4").ratio == 16


def test_frozen_stages_keep_weights_and_batch_statistics_in_training():
    network = classifier(frozen=["conv1", "bn1", "layer1"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.SGD([each for each in network.parameters() if each.requires_grad], lr=0.1)
    network(torch.rand(4, 3, 32, 32)).sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in changed if name.split(".")[1] in ("conv1", "bn1", "layer1")}
    assert {"backbone.layer2.0.conv1.weight", "backbone.layer2.0.bn1.running_mean", "head.weight"} <= changed
    assert all(each.grad is None for each in network.backbone.layer1.parameters())
    assert network.backbone.layer2.training


def test_an_mlp_head_has_its_layers_in_order():
    head = build_head(MlpHead(kind="mlp", hidden=[8, 6], dropout=[0.4, 0.2]), 10, 3)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] * 2 + [nn.Linear]
    assert [type(layer) for layer in head] == kinds
    assert [head[3].p, head[7].p] == [0.4, 0.2]
    assert head(torch.rand(4, 10)).shape == (4, 3)


def test_timm_networks_are_backbones_too():
    section = {"kind": "timm", "name": "resnest14d", "weights": "none"}
    backbone, features = build_backbone(TimmBackbone.model_validate(section | {"frozen": ["conv1", "layer1"]}))
    assert backbone.eval()(torch.rand(2, 3, 32, 32)).shape == (2, features)
    with pytest.raises(KfoldError, match="layer9"):
        build_backbone(TimmBackbone.model_validate(section | {"frozen": ["layer9"]}))
    with pytest.raises(KfoldError, match="resnestling"):
        build_backbone(TimmBackbone.model_validate(section | {"name": "resnestling"}))
