"""What people's image files hold, and what becomes of it."""

import contextlib
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_lightning.images import BadImageError, decode_picture

HALVES = np.zeros((40, 60, 3), np.uint8)
HALVES[:20] = (30, 60, 200)  # RGB: the upper half is blue, the lower black


def saved(image: Image.Image, format_: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


PICTURE = Image.fromarray(HALVES)
SIXTEEN_BITS = cv2.imencode(".png", HALVES[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
KINDS = {
    "JPEG": saved(PICTURE, "JPEG", quality=95),
    "CMYK JPEG": saved(PICTURE.convert("CMYK"), "JPEG", quality=95),
    "16-bit PNG": SIXTEEN_BITS,
    "palette PNG": saved(PICTURE.quantize(8), "PNG"),
    "RGBA PNG": saved(PICTURE.convert("RGBA"), "PNG"),
    "GIF": saved(PICTURE, "GIF"),
    "WebP": saved(PICTURE, "WEBP", lossless=True),
    "TIFF": saved(PICTURE, "TIFF"),
    "BMP": saved(PICTURE, "BMP"),
    "PPM": saved(PICTURE, "PPM"),
}
AVIF = saved(Image.effect_noise((200, 200), 90), "AVIF")


def test_a_photo_of_several_lenses_is_no_animation():
    data = saved(PICTURE, "MPO", save_all=True, append_images=[PICTURE])
    assert not decode_picture(data, "file").animated
    assert decode_picture(saved(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(90)]), "file").animated


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_blue_green_red_bytes(kind):
    picture = decode_picture(KINDS[kind], "file")
    assert picture.image.dtype == np.uint8
    assert picture.image.shape == (40, 60, 3)
    assert np.abs(picture.image[5, 5].astype(int) - (200, 60, 30)).max() < 12
    assert picture.image[35, 5].max() < 12
    assert not picture.animated


def test_a_gray_picture_has_three_equal_channels():
    image = decode_picture(saved(PICTURE.convert("L"), "JPEG"), "file").image
    assert image.shape == (40, 60, 3)
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("format_", ["GIF", "WEBP"])
def test_of_an_animation_the_first_picture_is_read(format_):
    red = Image.fromarray(np.full_like(HALVES, (200, 0, 0)))
    picture = decode_picture(saved(PICTURE, format_, save_all=True, append_images=[red]), "file")
    assert picture.animated
    assert picture.image[5, 5].argmax() == 0


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_picture_stands_as_its_exif_says(format_):
    exif = Image.Exif()
    exif[0x112] = 6  # the camera was held on its side: turn clockwise
    image = decode_picture(saved(PICTURE, format_, exif=exif), "file").image
    assert image.shape == (60, 40, 3)
    assert image[5, 35, 0] > 150
    assert image[5, 5].max() < 12


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"\(0 bytes\) does not decode"),
        (b"Dear diary", r"\(10 bytes\) does not decode"),
        (KINDS["JPEG"][:-30], "is cut short|does not decode"),
        (AVIF[: len(AVIF) * 6 // 10], "does not decode"),
        (b"P5 # ten bits\n2 1\n1023\n\x00\x00\x03\xff", "calls 1023 white, where 255 and 65535 can be read: save it"),
        (b"P5\n#%s\n2 1\n1023\n\x00\x00\x03\xff" % (b"x" * 5000), "calls 1023 white"),
        (b"P5\n2 ", "does not decode"),
    ],
    ids=["empty", "text", "truncated", "truncated AVIF", "ten bits", "a long comment", "half a header"],
)
def test_what_does_not_decode_is_told(data, reason):
    with pytest.raises(BadImageError, match=reason):
        decode_picture(data, "file")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    bomb = saved(Image.new("1", (20_000, 20_000)), "PNG")
    with pytest.raises(BadImageError, match=r"more than [\d,]+ pixels, the limit \(--max-pixels; in Python PIL"):
        decode_picture(bomb, "file")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60)
    assert decode_picture(KINDS["JPEG"], "file").image.shape == (40, 60, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60 - 1)
    with pytest.raises(BadImageError, match="more than 2,399 pixels"):
        decode_picture(KINDS["JPEG"], "file")


def test_a_picture_whose_pixels_cannot_be_counted_beforehand_is_refused_under_a_limit(monkeypatch):
    radiance = cv2.imencode(".hdr", HALVES.astype(np.float32))[1].tobytes()  # Pillow does not read it
    with pytest.raises(BadImageError, match="does not decode as an image"):
        decode_picture(radiance, "photo.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_picture(radiance, "photo.jpg").image.shape == (40, 60, 3)


def test_an_animation_cut_anywhere_is_read_or_told():
    frames = [Image.fromarray(np.roll(HALVES, shift, axis=0)) for shift in (0, 7, 14)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    for length in range(len(data)):
        with contextlib.suppress(BadImageError):
            decode_picture(data[:length], "a.gif")
    assert decode_picture(data, "a.gif").animated
