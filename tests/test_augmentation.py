from functools import cache

import numpy as np
import pytest

from fer_lightning.settings.config import CONF_DIR, compose_config, instantiate

# Of single images; `batch` has its tests in test_on_device.py.
NAMES = sorted(path.stem for path in (CONF_DIR / "augmentation").glob("*.yaml") if path.stem != "batch")
RANDOM = [name for name in NAMES if name != "none"]


@cache
def config(name, size):
    return compose_config(f"augmentation={name}", f"preprocess.size={size}")


@pytest.fixture
def augment():
    """augment(name, image, times): draws of an option of conf/augmentation, uint8 (times, H, W) or (times, H, W, 3)."""

    def draw(name, image, times=30, seed=0):
        augmentation = instantiate(config(name, len(image)).augmentation, _convert_="all")
        augmentation.set_random_seed(seed)
        return np.stack([augmentation(image=image)["image"] for _ in range(times)])

    return draw


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(48, 48), (48, 48, 3), (40, 40)], ids=["gray", "colour", "small"])
def test_it_keeps_shape_and_type(augment, name, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    draws = augment(name, image)
    assert (draws.shape, draws.dtype) == ((30, *shape), np.uint8)


@pytest.mark.parametrize("name", RANDOM)
def test_draws_differ(augment, face, name):
    draws = augment(name, face(0))
    assert len({image.tobytes() for image in draws}) > 15  # `light` leaves three in ten as they are, but for a mirror


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_repeats_its_draws_and_another_does_not(augment, face, name):
    draws = augment(name, face(0), seed=1)
    np.testing.assert_array_equal(draws, augment(name, face(0), seed=1))
    assert (draws != augment(name, face(0), seed=2)).any()


@pytest.mark.parametrize("name", RANDOM)
def test_a_face_stays_where_it_is_within_a_quarter_of_the_picture(augment, name):
    disc = (np.hypot(*(np.indices((48, 48)) - 23.5)) < 12).astype(np.uint8) * 200
    rows, columns = np.indices((48, 48))
    for image in augment(name, disc).astype(float):
        centre = (image * rows).sum() / image.sum(), (image * columns).sum() / image.sum()
        np.testing.assert_allclose(centre, 23.5, atol=12)


def test_none_changes_nothing(augment, face):
    assert (augment("none", face(0)) == face(0)).all()


@pytest.mark.parametrize("name", RANDOM)
def test_half_of_the_draws_are_mirrored(augment, name):
    dark_to_bright = np.tile(np.linspace(20, 235, 48).astype(np.uint8), (48, 1))
    draws = augment(name, dark_to_bright, times=400)
    mirrored = draws[:, :, :16].mean(axis=(1, 2)) > draws[:, :, 32:].mean(axis=(1, 2))
    assert mirrored.mean() == pytest.approx(0.5, abs=0.08)
