"""Sizes of photos: worked cases of both rules, and what each crop keeps."""

import pytest
import torch
from PIL import Image

from minillada.official import resize


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((512, 512), (512, 512)),  # fits as it is
        ((500, 300), (512, 288)),  # nearest multiples of 32
        ((800, 800), (800, 800)),  # just allowed
        ((832, 832), (800, 800)),  # one step too large
        ((1920, 1080), (1056, 576)),  # 640,000 px at 16:9 are 1066 x 600, rounded down
        ((1080, 1920), (576, 1056)),
        ((64, 64), (128, 128)),  # too small: 128² px at least
        ((20, 100), (64, 288)),  # 57.2 x 286.2, rounded up
        ((65, 64), (160, 128)),  # 129.0 x 127.0, rounded up
        ((130, 126), (128, 128)),  # just large enough
        ((300, 500), (288, 512)),
        ((80, 512), (64, 512)),  # 2.5 steps: halves go to the even neighbour
        ((512, 80), (512, 64)),
        ((810, 795), (800, 800)),  # its nearest size is just allowed
        ((800, 1000), (704, 864)),  # 715.5 x 894.4, by the photo's own sides
        ((1637, 1000), (992, 608)),  # 1023.6 x 625.3, rounded down
        ((200, 1), (1824, 32)),  # as narrow as can be: 1810.2 x 9.1, rounded up
    ],
)
def test_sizes_to_understand(given, wanted):
    assert resize.understanding_size(*given) == wanted


def test_several_photos_are_smaller():
    assert resize.understanding_size(1000, 1000, images=2) == (448, 448)
    # 800 · 0.56 is 447.99… in floating point, so the released code takes one step less; as do we.
    assert resize.understanding_size(800, 800, images=2) == (416, 416)
    assert resize.for_understanding(Image.new("RGB", (1920, 1080)), images=3).size == (576, 320)
    # The short side would be 31.8 px, and one step is the least.
    assert resize.understanding_size(100, 19_900, images=2) == (32, 6304)
    assert resize.understanding_size(19_900, 100, images=2) == (6304, 32)


@pytest.mark.parametrize("width", [33, 79, 128, 500, 801, 1333, 4000])
@pytest.mark.parametrize("height", [40, 144, 480, 1080, 3000])
def test_limits_hold(width, height):
    wide, high = resize.understanding_size(width, height)
    assert wide % 32 == high % 32 == 0
    assert resize.SMALLEST <= wide * high <= resize.LARGEST
    got = resize.for_understanding(Image.new("RGB", (width, height)))
    assert got.width % 32 == got.height % 32 == 0
    assert got.width >= wide and got.height >= high


def test_what_stands_out_is_kept_in_whole_steps():
    # 48 rounds to 64 (even), so the photo grows by 4/3 and 400 become 533 px: 16 steps and a rest.
    assert resize.understanding_size(48, 400) == (64, 384)
    assert resize.for_understanding(Image.new("RGB", (48, 400))).size == (64, 512)
    assert resize.for_understanding(Image.new("RGB", (400, 48))).size == (512, 64)


def test_photos_to_understand_are_resized_bicubically():
    photo = resize.picture(torch.rand(3, 300, 500))
    expected = photo.resize((512, 307), Image.Resampling.BICUBIC)  # covers 512 x 288
    middle = expected.crop((0, 9, 512, 9 + 288))  # 19 rows too many: 9 above, 10 below
    assert resize.for_understanding(photo).tobytes() == middle.tobytes()


def test_edit_sizes():
    sizes = resize.edit_sizes()
    assert (512, 512) in sizes and (1024, 256) in sizes and (256, 1024) in sizes
    assert (256, 256) not in sizes  # inside the border
    for wide, high in sizes:
        assert (wide // 32) * (high // 32) <= 256
        assert max(wide, high) <= 4 * min(wide, high)
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((2000, 2000), (512, 512)),
        ((300, 300), (512, 512)),  # likeness counts, not size
        ((1600, 900), (672, 384)),  # 1.75; 640 x 384 is 1.67, 704 x 352 is 2
        ((900, 1600), (384, 672)),
        ((4000, 100), (1024, 256)),  # 4:1 at most
    ],
)
def test_sizes_to_edit(given, wanted):
    assert resize.edit_size(*given) == wanted


def test_equally_like_sizes_go_to_the_larger():
    square = [size for size in resize.edit_sizes() if size[0] == size[1]]
    assert resize.edit_size(64, 64) == max(square)


def quarters(width, height):
    """A photo whose four quarters have four colours."""
    photo = Image.new("RGB", (width, height), (200, 0, 0))
    photo.paste((0, 200, 0), (width // 2, 0, width, height // 2))
    photo.paste((0, 0, 200), (0, height // 2, width // 2, height))
    photo.paste((200, 200, 0), (width // 2, height // 2, width, height))
    return photo


def test_the_released_crop_loses_the_borders_and_the_serving_one_does_not():
    photo = quarters(2000, 2000)
    photo.paste((250, 250, 250), (0, 0, 200, 200))  # a mark in the corner
    cut, kept = resize.released_crop(photo), resize.served_crop(photo)
    assert cut.size == kept.size == (512, 512)
    assert cut.getpixel((0, 0)) == (200, 0, 0)  # the mark is outside the centre
    assert kept.getpixel((10, 10)) == (250, 250, 250)
    assert cut.getpixel((500, 10)) == kept.getpixel((500, 10)) == (0, 200, 0)


def test_small_photos_get_black_on_the_right_and_below():
    photo = quarters(300, 300)
    cut = resize.released_crop(photo)
    assert cut.size == (512, 512)
    assert cut.crop((0, 0, 300, 300)).tobytes() == photo.tobytes()
    assert cut.crop((300, 0, 512, 512)).getextrema() == ((0, 0),) * 3
    assert resize.served_crop(photo).getpixel((511, 511)) == (200, 200, 0)


def test_the_serving_crop_is_resized_with_lanczos():
    photo = resize.picture(torch.rand(3, 300, 400, generator=torch.Generator().manual_seed(0)))
    wide, high = resize.edit_size(400, 300)
    scale = min(400 / wide, 300 / high)  # of the part that is kept, around the centre
    left, top = (400 - wide * scale) / 2, (300 - high * scale) / 2
    box = left, top, left + wide * scale, top + high * scale
    expected = photo.resize((wide, high), Image.Resampling.LANCZOS, box)
    served = resize.pixels(resize.served_crop(photo))
    assert (served - resize.pixels(expected)).abs().max() <= 1 / 255


def test_the_released_crop_is_the_centre():
    photo = Image.new("RGB", (700, 512))
    for x in range(700):
        photo.paste((x % 256, 0, 0), (x, 0, x + 1, 512))
    wide, high = resize.edit_size(700, 512)
    cut = resize.released_crop(photo)
    assert (wide, high) == cut.size
    assert cut.getpixel((0, 0))[0] == (700 - wide) // 2 % 256
    assert resize.centre(photo, 511, 512).getpixel((0, 0))[0] == 94  # 189 columns too many


def test_pixels():
    photo = Image.new("RGBA", (3, 2), (0, 127, 255, 255))
    values = resize.pixels(photo)
    assert values.shape == (3, 2, 3) and values.dtype == torch.float32
    assert values[:, 0, 0].tolist() == pytest.approx([0, 127 / 255, 1])
    assert resize.normalise(values)[:, 1, 2].tolist() == pytest.approx([-1, 127 / 127.5 - 1, 1])
    assert resize.normalise(values.bfloat16()).dtype == torch.float32
    nearest = resize.picture(torch.tensor([0.4, 0.6, 254.7]).view(3, 1, 1) / 255)
    assert nearest.getpixel((0, 0)) == (0, 1, 255)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (201, 1)])
def test_photos_that_cannot_be_read(size):
    for rule in (resize.understanding_size, resize.edit_size):
        with pytest.raises(ValueError, match="cannot be read"):
            rule(*size)
