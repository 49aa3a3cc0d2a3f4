"""The changes that a batch of images is trained with."""

import pytest
import torch

from fer_lightning.data.batch_transforms import (
    Affine,
    BrightnessContrast,
    Erasing,
    Gamma,
    GaussianNoise,
    HorizontalFlip,
)
from fer_lightning.errors import InputError

STILL = {"degrees": 0.0, "translate": 0.0, "scale": (1.0, 1.0), "shear": 0.0, "p": 1.0}
ALL = {
    HorizontalFlip: {},
    Affine: {"degrees": 12.0, "translate": 0.08, "scale": (0.85, 1.15), "shear": 5.0},
    BrightnessContrast: {"brightness": (0.75, 1.25), "contrast": (0.7, 1.4)},
    Gamma: {"gamma": (0.7, 1.4)},
    GaussianNoise: {"std": 0.02},
    Erasing: {"scale": (0.02, 0.15)},
}


@pytest.fixture
def images():
    """40 pictures of chance, (40, 1, 48, 48), from 0.3 to 0.6."""
    generator = torch.Generator().manual_seed(0)
    return 0.3 + 0.3 * torch.rand(40, 1, 48, 48, generator=generator)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def spot(row: int, column: int) -> torch.Tensor:
    """A bright spot of 4 x 4 pixels in 600 black pictures, its middle right and below of this pixel."""
    pictures = torch.zeros(600, 1, 48, 48)
    pictures[:, :, row - 1 : row + 3, column - 1 : column + 3] = 1
    return pictures


def place(pictures: torch.Tensor) -> torch.Tensor:
    """Where the light of each picture is, as (N, 2) rows and columns from the middle."""
    offsets = torch.arange(48.0) - 23.5
    light = pictures.sum((1, 2, 3))
    rows, columns = (pictures.sum((1, axis)) @ offsets / light for axis in (3, 2))
    return torch.stack([rows, columns], dim=1)


class TestEveryTransform:
    @pytest.mark.parametrize(("kind", "settings"), ALL.items())
    def test_it_changes_no_picture_with_a_probability_of_zero(self, kind, settings, images):
        torch.testing.assert_close(kind(p=0.0, **settings)(images), images, atol=1e-4, rtol=0)

    @pytest.mark.parametrize(("kind", "settings"), ALL.items())
    def test_it_changes_about_as_many_pictures_as_its_probability_says(self, kind, settings):
        pictures = 0.3 + 0.3 * torch.rand(1000, 1, 16, 16)
        changed = (kind(p=0.3, **settings)(pictures) - pictures).abs().amax((1, 2, 3)) > 1e-3
        assert changed.float().mean() == pytest.approx(0.3, abs=0.06)

    @pytest.mark.parametrize(("kind", "settings"), ALL.items())
    def test_all_channels_of_a_picture_are_changed_alike_but_for_noise(self, kind, settings, images):
        colour = kind(p=1.0, **settings)(images.repeat(1, 3, 1, 1))
        assert colour.shape == (40, 3, 48, 48)
        assert torch.equal(colour[:, 0], colour[:, 2]) is (kind is not GaussianNoise)

    @pytest.mark.parametrize(("kind", "settings"), ALL.items())
    @pytest.mark.parametrize("p", [-0.1, 1.1])
    def test_a_probability_out_of_range_is_refused(self, kind, settings, p):
        with pytest.raises(InputError, match=f"p of {kind.__name__} must be 0 to 1, got {p}"):
            kind(p=p, **settings)

    @pytest.mark.parametrize(("kind", "settings"), ALL.items())
    def test_no_value_leaves_the_range_from_0_to_1(self, kind, settings):
        changed = kind(p=1.0, **settings)(torch.rand(40, 1, 48, 48).round(decimals=1))
        assert 0 <= changed.min() < changed.max() <= 1

    @pytest.mark.parametrize(
        ("kind", "wrong", "message"),
        [
            (Affine, {"scale": [0.85]}, r"scale of Affine must be \[lowest, highest\], above 0, got \[0.85\]"),
            (Affine, {"scale": [0, 1]}, "scale of Affine must be .*above 0"),
            (BrightnessContrast, {"contrast": [1.4, 0.7]}, r"contrast of BrightnessContrast must .*got \[1.4, 0.7\]"),
            (Gamma, {"gamma": [0, 1]}, "gamma of Gamma must be .*above 0"),
            (Erasing, {"ratio": [0, 1]}, "ratio of Erasing must be .*above 0"),
            (GaussianNoise, {"std": -1}, "std of GaussianNoise must be at least 0, got -1"),
        ],
    )
    def test_a_setting_out_of_range_is_refused(self, kind, wrong, message):
        with pytest.raises(InputError, match=message):
            kind(p=1.0, **ALL[kind] | wrong)


def test_a_flip_is_the_mirror_image(images):
    assert torch.equal(HorizontalFlip(p=1.0)(images), images.flip(-1))


class TestAffine:
    def test_it_turns_to_both_sides_as_far_as_its_degrees(self):
        turned = place(Affine(**STILL | {"degrees": 30.0})(spot(23, 39)))
        angles = torch.rad2deg(torch.atan2(turned[:, 0], turned[:, 1]) - torch.atan2(*place(spot(23, 39))[0]))
        assert (angles.min(), angles.max()) == (pytest.approx(-30, abs=1.5), pytest.approx(30, abs=1.5))
        assert angles.mean() == pytest.approx(0, abs=2)
        assert turned.norm(dim=1) == pytest.approx(place(spot(23, 39))[0].norm().item(), abs=0.5)

    def test_it_shifts_both_axes_by_as_much_as_its_share_of_the_side(self):
        moved = place(Affine(**STILL | {"translate": 0.25})(spot(23, 23))) - place(spot(23, 23))
        for axis in moved.T:
            assert (axis.min(), axis.max()) == (pytest.approx(-12, abs=0.3), pytest.approx(12, abs=0.3))
        assert torch.corrcoef(moved.T)[0, 1].abs() < 0.15

    def test_it_enlarges_and_shrinks_about_the_middle(self):
        distance = place(Affine(**STILL | {"scale": (0.5, 1.25)})(spot(23, 35)))[:, 1] / place(spot(23, 35))[0, 1]
        assert (distance.min(), distance.max()) == (pytest.approx(0.5, abs=0.03), pytest.approx(1.25, abs=0.03))

    def test_it_shears_a_line_above_the_middle_to_either_side(self):
        sheared = place(Affine(**STILL | {"shear": 45.0})(spot(11, 23))) - place(spot(11, 23))
        height = place(spot(11, 23))[0, 0].abs().item()
        assert sheared[:, 0].abs().max() < 0.2
        assert (sheared[:, 1].min(), sheared[:, 1].max()) == (
            pytest.approx(-height, abs=0.5),
            pytest.approx(height, abs=0.5),
        )

    def test_a_picture_that_is_shrunk_is_shifted_as_far_as_another(self):
        moved = place(Affine(**STILL | {"scale": (0.5, 0.5), "translate": 0.25})(spot(23, 23)))
        assert (moved.min(), moved.max()) == (pytest.approx(-12, abs=0.4), pytest.approx(12, abs=0.4))

    def test_turned_and_sheared_at_once_a_picture_keeps_its_area(self):
        offsets = torch.arange(48.0) - 23.5
        light = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / 50).expand(600, 1, 48, 48)
        changed = Affine(**STILL | {"degrees": 40.0, "shear": 40.0})(light)
        assert changed.sum((1, 2, 3)) == pytest.approx(light[0].sum().item(), rel=0.005)

    def test_the_borders_pixels_go_on_outside(self):
        gray = torch.full((20, 1, 48, 48), 0.5)
        torch.testing.assert_close(Affine(**ALL[Affine], p=1.0)(gray), gray)


class TestBrightnessContrast:
    def test_brightness_is_a_factor_and_clipped_before_contrast(self, images):
        brighter = BrightnessContrast(brightness=(2.0, 2.0), contrast=(0.5, 0.5), p=1.0)(images)
        clipped = (2 * images).clamp(max=1)
        torch.testing.assert_close(brighter, (clipped + clipped.mean((1, 2, 3), keepdim=True)) / 2)

    def test_more_contrast_keeps_a_pictures_mean(self, images):
        more = BrightnessContrast(brightness=(1.0, 1.0), contrast=(1.4, 1.4), p=1.0)(images)
        torch.testing.assert_close(more.mean((1, 2, 3)), images.mean((1, 2, 3)))
        torch.testing.assert_close(more.std((1, 2, 3)), 1.4 * images.std((1, 2, 3)))


def test_gamma_is_a_power_of_each_value(images):
    torch.testing.assert_close(Gamma(gamma=(1.4, 1.4), p=1.0)(images), images**1.4)


def test_noise_is_independent_of_pixel_and_picture(images):
    noise = GaussianNoise(std=0.02, p=1.0)(images) - images
    assert noise.std() == pytest.approx(0.02, rel=0.02)
    assert torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max() < 0.1


class TestErasing:
    def test_it_fills_one_rectangle_of_the_asked_area_and_shape_anywhere(self):
        filled = Erasing(scale=(0.02, 0.15), value=0.5, p=1.0)(torch.ones(2000, 1, 48, 48))[:, 0] == 0.5
        heights, widths = (filled.any(axis).sum(1).float() for axis in (2, 1))
        assert torch.equal(filled.sum((1, 2)).float(), heights * widths)
        area, ratio = heights * widths / 48**2, heights / widths
        assert (area.min(), area.max()) == (pytest.approx(0.02, abs=0.004), pytest.approx(0.15, abs=0.01))
        assert area.mean() == pytest.approx(0.085, abs=0.005)
        assert (ratio.min(), ratio.max()) == (pytest.approx(0.3, abs=0.08), pytest.approx(3.3, abs=0.7))
        assert ratio.log().mean() == pytest.approx(0, abs=0.06)
        assert filled.any(0).all()
