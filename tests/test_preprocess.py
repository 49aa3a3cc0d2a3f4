import numpy as np
import pytest

from fer_lightning.errors import InputError
from fer_lightning.preprocess import Preprocess


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)


def laplacian(image):
    """The sum of the four neighbours minus four times the pixel; the border is mirrored about its own pixels."""
    padded = np.pad(image.astype(int), 1, mode="reflect")
    return padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * padded[1:-1, 1:-1]


class TestPrepare:
    @pytest.mark.parametrize(
        "settings", [{}, {"channels": 3}, {"gaussian_kernel": 5, "laplacian": True}], ids=["gray", "colour", "filtered"]
    )
    @pytest.mark.parametrize("shape", [(48, 48), (48, 48, 3), (100, 60), (60, 100, 3), (20, 30), (30, 90, 3)], ids=str)
    def test_any_picture_becomes_a_square_of_bytes(self, settings, shape):
        preprocess = Preprocess(size=48, **settings)
        prepared = preprocess.prepare(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        assert prepared.dtype == np.uint8
        assert prepared.shape == ((48, 48, 3) if preprocess.channels == 3 else (48, 48))

    def test_a_gray_picture_of_the_right_size_is_left_as_it_is(self, noise):
        np.testing.assert_array_equal(Preprocess().prepare(noise), noise)

    def test_a_gray_picture_stored_in_colour_is_the_same_gray(self, noise):
        np.testing.assert_array_equal(Preprocess().prepare(np.dstack([noise] * 3)), noise)

    def test_gray_in_three_channels_is_three_times_the_gray(self, noise):
        np.testing.assert_array_equal(Preprocess(channels=3).prepare(noise), np.dstack([noise] * 3))

    @pytest.mark.parametrize(
        ("blue_green_red", "gray"),
        [((255, 0, 0), 29), ((0, 255, 0), 150), ((0, 0, 255), 76)],
        ids=["blue", "green", "red"],
    )
    def test_gray_weighs_blue_green_and_red_as_eyes_do(self, blue_green_red, gray):
        assert Preprocess(size=2).prepare(np.full((2, 2, 3), blue_green_red, np.uint8)).tolist() == [[gray, gray]] * 2

    def test_colours_keep_their_order(self):
        colour = np.full((48, 48, 3), (10, 20, 30), np.uint8)
        np.testing.assert_array_equal(Preprocess(channels=3).prepare(colour), colour)

    def test_shrinking_averages(self):
        dots = np.full((144, 144), 180, np.uint8)
        dots[1::3, 1::3] = 0
        assert np.unique(Preprocess().prepare(dots)).tolist() == [160]

    def test_enlarging_interpolates(self):
        enlarged = Preprocess(size=4).prepare(np.array([[0, 200], [0, 200]], np.uint8))
        assert enlarged.tolist() == [[0, 50, 150, 200]] * 4

    def test_gaussian_smooths_with_the_kernel_alone(self):
        point = np.zeros((5, 5), np.uint8)
        point[2, 2] = 160
        smoothed = Preprocess(size=5, gaussian_kernel=3).filtered(point)
        assert smoothed[1:4, 1:4].tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
        assert smoothed.sum() == 160

    @pytest.mark.parametrize(("kernel", "more"), [(3, 5), (5, 9)])
    def test_a_larger_gaussian_smooths_more(self, noise, kernel, more):
        assert (
            Preprocess(gaussian_kernel=more).filtered(noise).std()
            < Preprocess(gaussian_kernel=kernel).filtered(noise).std()
        )

    def test_clahe_spreads_a_dull_pictures_contrast_before_it_is_smoothed(self, noise):
        dull = (100 + noise // 8).astype(np.uint8)
        equalised = Preprocess(clahe=2.0).filtered(dull)
        assert equalised.std() > 1.5 * dull.std()
        both = Preprocess(clahe=2.0, gaussian_kernel=3).filtered(dull)
        np.testing.assert_array_equal(both, Preprocess(gaussian_kernel=3).filtered(equalised))

    def test_clahe_keeps_a_colour_pictures_hues(self):
        blue = np.zeros((48, 48, 3), np.uint8)
        blue[..., 0] = np.arange(100, 148)
        equalised = Preprocess(channels=3, clahe=2.0).filtered(blue)
        assert (equalised.argmax(axis=-1) == 0).all()
        assert equalised[..., 0].std() > blue[..., 0].std()

    def test_laplacian_subtracts_it_and_clips_to_bytes(self, noise):
        sharpened = noise.astype(int) - laplacian(noise)
        assert sharpened.min() < 0
        assert sharpened.max() > 255
        np.testing.assert_array_equal(Preprocess(laplacian=True).filtered(noise), np.clip(sharpened, 0, 255))

    def test_laplacian_sharpens_an_edge(self):
        edge = np.repeat(np.array([[100, 100, 140, 140]], np.uint8), 4, axis=0)
        assert Preprocess(size=4, laplacian=True).filtered(edge).tolist() == [[100, 60, 180, 140]] * 4

    def test_laplacian_leaves_a_flat_picture_as_it_is(self):
        flat = np.full((48, 48), 77, np.uint8)
        np.testing.assert_array_equal(Preprocess(laplacian=True).filtered(flat), flat)

    def test_laplacian_comes_after_gaussian(self, noise):
        both = Preprocess(gaussian_kernel=3, laplacian=True).filtered(noise)
        smoothed = Preprocess(gaussian_kernel=3).filtered(noise)
        np.testing.assert_array_equal(both, Preprocess(laplacian=True).filtered(smoothed))

    def test_filters_come_after_resizing_and_before_scaling(self, noise):
        filtered = Preprocess(size=24, gaussian_kernel=3, laplacian=True)
        plain = Preprocess(size=24)
        expected = plain.finish(filtered.filtered(plain.prepare(noise))[None])
        np.testing.assert_array_equal(filtered(noise), expected)

    def test_what_is_cached_is_the_same_whatever_the_filters(self, noise):
        filtered = Preprocess(gaussian_kernel=5, laplacian=True, scaling="symmetric")
        assert filtered.prepare_key() == Preprocess().prepare_key()
        np.testing.assert_array_equal(filtered.prepare(noise), noise)

    def test_it_does_not_change_the_picture_it_is_given(self, noise):
        before = noise.copy()
        Preprocess(gaussian_kernel=3, laplacian=True).filtered(noise)
        np.testing.assert_array_equal(noise, before)


class TestScale:
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"scaling": "unit"}, [0, 0.2, 1]),
            ({"scaling": "symmetric"}, [-1, -0.6, 1]),
            ({"scaling": "standard", "mean": 0.6, "std": 0.2}, [-3, -2, 2]),
        ],
        ids=["unit", "symmetric", "standard"],
    )
    def test_scaling_maps_black_gray_and_white_as_its_name_says(self, settings, expected):
        scaled = Preprocess(size=1, **settings).scale(np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1))
        assert scaled.dtype == np.float32
        np.testing.assert_allclose(scaled.ravel(), expected, atol=1e-6)

    @pytest.mark.parametrize("shape", [(5, 48, 48), (5, 48, 48, 3)], ids=["gray", "colour"])
    def test_channels_come_before_rows(self, shape):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        scaled = Preprocess(channels=3 if len(shape) == 4 else 1).finish(images)
        np.testing.assert_allclose(scaled, images.reshape(5, 48, 48, -1).transpose(0, 3, 1, 2) / 255, atol=1e-6)
        assert scaled.flags.c_contiguous

    def test_standard_without_mean_and_deviation_is_refused(self, noise):
        with pytest.raises(
            InputError, match=r"preprocess\.scaling=standard needs a mean and a std: set both, or train"
        ):
            Preprocess(scaling="standard")(noise)

    def test_fitted_measures_them_on_the_unit_scale(self):
        fitted = Preprocess(size=1, scaling="standard").fitted(np.array([0, 255], np.uint8).reshape(2, 1, 1))
        assert (fitted.mean, fitted.std) == (pytest.approx(0.5), pytest.approx(0.5))

    def test_fitted_measures_filtered_pictures(self, noise):
        preprocess = Preprocess(scaling="standard", gaussian_kernel=5)
        assert preprocess.fitted(noise[None]).std == pytest.approx(preprocess.filtered(noise).std() / 255)

    @pytest.mark.parametrize("scaling", ["unit", "symmetric"])
    def test_other_scalings_have_nothing_to_fit(self, noise, scaling):
        preprocess = Preprocess(scaling=scaling)
        assert preprocess.fitted(noise[None]) == preprocess

    def test_pictures_without_contrast_are_refused(self):
        fitted = Preprocess(scaling="standard").fitted(np.zeros((3, 48, 48), np.uint8))
        with pytest.raises(InputError, match=r"preprocess\.std must be positive, got 0\.0"):
            fitted(np.zeros((48, 48), np.uint8))


class TestCall:
    def test_it_prepares_and_finishes_one_picture(self, noise):
        preprocess = Preprocess(size=24, gaussian_kernel=3, laplacian=True, scaling="symmetric")
        np.testing.assert_array_equal(preprocess(noise), preprocess.finish(preprocess.prepare(noise)[None]))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_it_returns_a_batch_of_one(self, noise, channels):
        assert Preprocess(channels=channels)(noise).shape == (1, channels, 48, 48)


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"size": 0}, "size must be at least 1 pixel, got 0"),
            ({"channels": 4}, r"channels must be 1 \(grey\) or 3 \(colour\), got 4"),
            ({"clahe": 0}, "clahe must be a positive clip limit, or null, got 0"),
            ({"gaussian_kernel": 4}, "gaussian_kernel must be odd and positive, or null, got 4"),
            ({"gaussian_kernel": 0}, "gaussian_kernel must be odd and positive, or null, got 0"),
            ({"gaussian_kernel": -3}, "gaussian_kernel must be odd and positive, or null, got -3"),
            ({"scaling": "minmax"}, "scaling must be unit, symmetric or standard, got 'minmax'"),
            ({"mean": 0.5, "std": 0.2}, "mean and preprocess.std are set together, and with .*got mean=0.5"),
            ({"mean": 0.5, "scaling": "standard"}, "mean and preprocess.std are set together.*std=None"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else "",
    )
    def test_unusable_ones_are_refused(self, settings, message):
        with pytest.raises(InputError, match=rf"preprocess\.{message}"):
            Preprocess(**settings)

    @pytest.mark.parametrize(
        "preprocess",
        [
            Preprocess(),
            Preprocess(
                size=64, channels=3, clahe=1.5, gaussian_kernel=5, laplacian=True, scaling="standard", mean=0.4, std=0.2
            ),
        ],
        ids=["defaults", "all"],
    )
    def test_they_travel_as_plain_data(self, preprocess):
        data = preprocess.to_dict()
        assert Preprocess(**data) == preprocess
        assert {type(value) for value in data.values()} <= {int, float, str, bool, type(None)}
