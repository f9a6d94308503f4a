"""An image file as RGB: bounded in pixels, upright, on white where it is transparent.

Runs in the media worker only, whose memory and time are bounded, too.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from agent.errors import MediaRefused

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_DECODED_PIXELS = 1 << 24
"""More are refused; a JPEG is decoded at a half, a quarter or an eighth of its sides before."""
MAX_PIXELS = 1 << 22
"""Larger images are made smaller: projectors look at no more than about 3 million pixels."""
MAX_RATIO = 200
"""Of the sides; projectors divide by the shorter one."""
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_INTEGER_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    """The image in a file: uint8 [height, width, 3]. Raises `MediaRefused`."""
    # ours is checked below
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return np.asarray(_as_rgb(image))
    except UnidentifiedImageError as error:
        raise MediaRefused("it is no JPEG, PNG, WebP, GIF or BMP file") from error
    except (MemoryError, MediaRefused):
        raise
    except Exception as error:
        # a decoder may raise anything at a damaged file
        raise MediaRefused(f"the file is damaged ({type(error).__name__}: {error})") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    width, height = image.size
    if max(width, height) > MAX_RATIO * min(width, height):
        raise MediaRefused(
            f"it has {width} x {height} pixels; one side may be {MAX_RATIO} times the other"
        )
    smaller = min(1.0, (MAX_PIXELS / (width * height)) ** 0.5)
    size = (max(int(width * smaller), 1), max(int(height * smaller), 1))
    # of a JPEG: the least size that can be decoded and is not below this; others are left as is
    image.draft("RGB", size)
    if image.width * image.height > MAX_DECODED_PIXELS:
        raise MediaRefused(
            f"it has {width} x {height} pixels, at most {MAX_DECODED_PIXELS} are decoded"
        )
    turn = _turn(image)
    image.load()
    shown = _on_white(_resized(_with_channels(image), size))
    return shown if turn is None else shown.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a photograph upright."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 (a camera's notes may be damaged where the image is not)
        return None


def _with_channels(image: Image.Image) -> Image.Image:
    """Colours instead of numbers of a palette, 8 bits instead of 16."""
    if image.mode in _INTEGER_MODES:
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("1", "F"):
        return image.convert("L")
    if image.mode == "P" or "transparency" in image.info:
        return image.convert("RGBA")
    return image


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
