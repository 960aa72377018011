"""What only the embedded model has: a convolutional trunk and a mask refiner."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sam2_model.configs import DEMO, ModelConfig
from sam2_model.frames import IMAGE_MEAN, IMAGE_STD
from sam2_model.network.efficientnet_lite import GROUPS, EfficientNetLite0
from sam2_model.network.mask_refiner import MaskRefiner
from sam2_model.training.pretrained import efficientnet_lite0_trunk


def published(seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict shaped as the published one, with random numbers."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int) -> None:
        fan_in = inputs * kernel * kernel
        state[f"{name}.weight"] = torch.randn(
            outputs, inputs, kernel, kernel, generator=generator
        ) * (2 / fan_in) ** 0.5

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = 0.5 + torch.rand(channels, generator=generator)
        state[f"{name}.bias"] = torch.randn(channels, generator=generator)
        state[f"{name}.running_mean"] = torch.randn(channels, generator=generator)
        state[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=generator)

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    number, inputs = 0, 32
    for group in GROUPS:
        for _ in range(group.blocks):
            block, width = f"_blocks.{number}", inputs * group.expansion
            if group.expansion > 1:
                conv(f"{block}._expand_conv", width, inputs, 1)
                norm(f"{block}._bn0", width)
            conv(f"{block}._depthwise_conv", width, 1, group.kernel)
            norm(f"{block}._bn1", width)
            conv(f"{block}._project_conv", group.channels, width, 1)
            norm(f"{block}._bn2", group.channels)
            number, inputs = number + 1, group.channels
    return state


def reference_pyramid(state: dict, pixels: torch.Tensor) -> list[torch.Tensor]:
    """The published network as its paper and TensorFlow's SAME padding have it."""

    def convolve(x, name, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        kernel = weight.shape[-1]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
        before = total // 2
        x = F.pad(x, (before, total - before, before, total - before))
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x, name):
        return F.batch_norm(
            x, state[f"{name}.running_mean"], state[f"{name}.running_var"],
            state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-3,
        )

    x = F.relu6(norm(convolve((pixels - 127) / 128, "_conv_stem", 2), "_bn0"))
    outputs, number = [], 0
    for group in GROUPS:
        for index in range(group.blocks):
            block, before = f"_blocks.{number}", x
            if group.expansion > 1:
                x = F.relu6(norm(convolve(x, f"{block}._expand_conv"), f"{block}._bn0"))
            stride = group.stride if index == 0 else 1
            x = convolve(x, f"{block}._depthwise_conv", stride, groups=x.shape[1])
            x = F.relu6(norm(x, f"{block}._bn1"))
            x = norm(convolve(x, f"{block}._project_conv"), f"{block}._bn2")
            if index:
                x = x + before
            number += 1
        outputs.append(x)
    return [outputs[index] for index in (1, 2, 4, 6)]


def test_converted_weights_give_the_published_networks_features(tmp_path):
    state = published()
    torch.save(state, tmp_path / "published.pth")
    trunk = EfficientNetLite0().eval()
    trunk.load_state_dict(efficientnet_lite0_trunk(tmp_path / "published.pth"))
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    with torch.no_grad():
        levels = trunk((pixels / 255 - mean) / std)
        expected = reference_pyramid(state, pixels)
    for level, reference, size in zip(levels, expected, (16, 8, 4, 2)):
        assert level.shape == (2, size, size, reference.shape[1])
        found = level.permute(0, 3, 1, 2)
        # Padding is grey in one and the mean colour in the other: the border may differ.
        inner = slice(size // 4, -(size // 4) or None)
        scale = reference.std()
        if size >= 8:
            close = (found - reference)[..., inner, inner].abs().max() / scale
            assert close < 0.05, size


def test_another_networks_checkpoint_is_not_converted(tmp_path):
    torch.save({"some.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(KeyError):
        efficientnet_lite0_trunk(tmp_path / "other.pth")


def test_an_unknown_trunk_is_refused():
    with pytest.raises(ValueError, match="trunk='resnet' must be one of"):
        ModelConfig(name="x", trunk="resnet")


def test_the_refiner_adds_nothing_before_it_has_learned():
    torch.manual_seed(0)
    refiner = MaskRefiner(64)
    high_res = torch.randn(1, 8, 32, 32), torch.randn(1, 16, 16, 16)
    refined = refiner(torch.randn(3, 64, 8, 8), high_res, torch.randn(3, 1, 32, 32))
    assert refined.shape == (3, 8, 32, 32)
    assert torch.equal(refined, high_res[0].expand(3, -1, -1, -1))


def test_the_refiner_sees_the_mask_at_full_size():
    torch.manual_seed(0)
    refiner = MaskRefiner(64)
    torch.nn.init.normal_(refiner.out.weight, std=0.1)
    features = torch.randn(1, 64, 8, 8), (torch.randn(1, 8, 32, 32), torch.randn(1, 16, 16, 16))
    mask = torch.full((2, 1, 32, 32), -10.0)
    mask[1, 0, 17, 9] = 10.0
    without, with_dot = refiner(*features, mask)
    changed = (without - with_dot).abs().amax(dim=0)
    assert changed[17, 9] > 0
    assert changed[17, 9] > changed[2, 30]


def test_the_demo_networks_weights_are_small_enough_for_the_package():
    from sam2_model.network import SAM2Network

    parameters = sum(p.numel() for p in SAM2Network(DEMO).parameters())
    assert 3e6 < parameters < 9e6
