import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter
from torchvision.transforms import v2

from kfold_ens import config
from kfold_ens.loading.augmentation import build_augmentation, build_evaluation_view, rotated_part, to_input

SIDES = st.integers(1, 40)
CPU = torch.device("cpu")


def steps(*kinds):
    return TypeAdapter(list[config.Augmentation]).validate_python(
        [kind if isinstance(kind, dict) else {"kind": kind} for kind in kinds]
    )


def image_of(kind="squash", normalize=False, **values):
    return TypeAdapter(config.TrainingRecipe.model_fields["image"].annotation).validate_python(
        {"kind": kind, "size": 16, "short_side": 20, "normalize": normalize} | values,
    )


def view_of(image, section):
    return build_evaluation_view(section)(image)


@pytest.mark.parametrize(
    "augmentation",
    [
        steps("resize"),
        steps("random_resized_crop"),
        steps("horizontal_flip", "resize"),
        steps({"kind": "rotation", "degrees": 15}, "random_resized_crop"),
        steps({"kind": "affine", "degrees": 5, "translate": 0.1, "scale": [0.9, 1.1]}, "resize"),
    ],
)
@given(height=SIDES, width=SIDES, seed=st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_every_training_view_has_the_networks_size(augmentation, height, width, seed):
    torch.manual_seed(seed)
    view = build_augmentation(augmentation, 16)(torch.randint(256, (3, height, width), dtype=torch.uint8))
    assert (view.shape, view.dtype) == ((3, 16, 16), torch.uint8)


@pytest.mark.parametrize("kind", ["resize", "random_resized_crop"])
def test_training_views_can_be_smaller_than_evaluation_views(kind):
    augmentation = build_augmentation(steps({"kind": kind, "size": 12}, "horizontal_flip"), 16)
    assert augmentation(torch.zeros(3, 30, 20, dtype=torch.uint8)).shape == (3, 12, 12)


@pytest.mark.parametrize("degrees", [15, 180])
def test_rotation_matches_pillow(degrees):
    """Compares with torchvision's transform of a Pillow image, with the same seed."""
    image = torch.randint(256, (3, 30, 20), dtype=torch.uint8)
    torch.manual_seed(1)
    view = build_augmentation(steps({"kind": "rotation", "degrees": degrees}), 16)(image)
    torch.manual_seed(1)
    expected = v2.RandomRotation(degrees)(v2.functional.to_pil_image(image))
    assert torch.equal(view, v2.functional.pil_to_tensor(expected))
    assert not torch.equal(view, image)


@pytest.mark.parametrize("resample", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR])
@given(height=SIDES, width=SIDES, degrees=st.integers(-60, 60), data=st.data())
@settings(deadline=None)
def test_part_of_a_rotated_image_matches_pillow(resample, height, width, degrees, data):
    """Equal up to rounding between two pixels, which is rare at such angles."""
    angle = degrees + 0.123
    image = torch.randint(256, (3, height, width), dtype=torch.uint8)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = (top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    whole = v2.functional.to_pil_image(image).rotate(angle, resample)
    expected = v2.functional.crop(v2.functional.pil_to_tensor(whole), *box)
    differ = (rotated_part(image, angle, resample, *box) != expected).any(dim=0)
    assert differ.sum() <= 3 + differ.numel() / 50


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("crop", [{}, {"size": 12}, {"scale": [0.01, 0.02]}, {"ratio": [3.0, 4.0]}])
@pytest.mark.parametrize(("interpolation", "differs"), [("bilinear", 0), ("nearest", 1)])
def test_rotation_with_crop_matches_the_two_separate_steps(interpolation, differs, crop, seed):
    """Nearest is equal up to rounding: on average less than one grey level."""
    crop = {"kind": "random_resized_crop"} | crop
    rotation = {"kind": "rotation", "degrees": 15, "interpolation": interpolation}
    image = torch.randint(256, (3, 256, 384), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    view = build_augmentation(steps(rotation, crop), 16)(image)
    then = torch.random.get_rng_state()
    torch.manual_seed(seed)
    expected = build_augmentation(steps(crop), 16)(build_augmentation(steps(rotation), 16)(image))
    assert view.shape == expected.shape
    assert (view.int() - expected.int()).abs().float().mean() <= differs
    assert torch.equal(torch.random.get_rng_state(), then)


RAMP = torch.arange(16, dtype=torch.uint8).mul(16).expand(3, 16, 16)  # dark on the left, light on the right


@pytest.mark.parametrize(("probability", "flipped"), [(0, 0), (1, 400), (0.3, 120)])
def test_flips_happen_with_the_configured_probability(probability, flipped):
    torch.manual_seed(0)
    flip = build_augmentation(steps({"kind": "horizontal_flip", "probability": probability}), 16)
    views = [flip(RAMP) for _ in range(400)]
    assert sum(torch.equal(view, RAMP.flip(2)) for view in views) == pytest.approx(flipped, abs=4 * 400**0.5 * 0.46)
    assert all(torch.equal(view, RAMP) or torch.equal(view, RAMP.flip(2)) for view in views)


@pytest.mark.parametrize(
    "kind",
    [
        "random_resized_crop",
        {"kind": "rotation", "degrees": 15},
        {"kind": "affine", "degrees": 5, "translate": 0.1, "scale": [0.9, 1.1]},
    ],
)
def test_random_views_depend_on_torchs_seed(kind):
    augmentation = build_augmentation(steps(kind), 16)

    def view(seed):
        torch.manual_seed(seed)
        return augmentation(RAMP)

    assert torch.equal(view(1), view(1))
    assert not torch.equal(view(1), view(2))


def test_affine_translates_no_further_than_configured():
    shift = build_augmentation(steps({"kind": "affine", "translate": 0.25}), 16)
    dot = torch.zeros(3, 16, 16, dtype=torch.uint8)
    dot[:, 8, 8] = 255
    places = [shift(dot)[0].nonzero()[0] - 8 for _ in range(100)]
    assert torch.stack(places).abs().max() == 4


@pytest.mark.parametrize("section", [image_of(), image_of("center_crop", resize=20)], ids=lambda section: section.kind)
@given(height=SIDES, width=SIDES)
@settings(deadline=None)
def test_evaluation_views_have_the_networks_size_and_are_not_random(section, height, width):
    image = torch.randint(256, (3, height, width), dtype=torch.uint8)
    view = view_of(image, section)
    assert (view.shape, view.dtype) == ((3, 16, 16), torch.uint8)
    assert torch.equal(view, view_of(image, section))


def test_squash_keeps_the_whole_image_and_center_crop_its_middle():
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    image[:, :, :10] = 250  # the left quarter
    image[:, :, 15:25] = 50  # the middle
    squashed, cropped = (
        view_of(image, image_of()),
        view_of(image, image_of("center_crop", size=10, resize=20)),
    )
    assert squashed[0, 8].unique().numel() > 2
    assert squashed[0, 8, 0] == 250
    assert torch.equal(cropped, image[:, 5:15, 15:25])


@pytest.mark.parametrize("normalize", [False, True])
def test_the_networks_input_is_between_0_and_1_or_normalised(normalize):
    views = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    inputs = to_input(views, image_of(normalize=normalize), CPU, torch.channels_last)
    expected = views.double() / 255
    if normalize:
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double()[:, None, :, None, None]
        expected = (expected - mean) / std
    torch.testing.assert_close(inputs, expected.float())
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_very_long_images_are_cut_before_resizing():
    image = torch.zeros(3, 2, 5000, dtype=torch.uint8)
    image[:, :, 2490:2510] = 200
    view = build_evaluation_view(image_of("center_crop", size=10, resize=20))
    enlarged = []
    view.transforms[1].register_forward_pre_hook(lambda _, arguments: enlarged.append(tuple(arguments[0].shape)))
    shown = view(image)
    assert (tuple(shown.shape), shown.unique().tolist(), enlarged) == ((3, 10, 10), [200], [(3, 2, 8)])
