"""Captures: the map where it belongs on the picture, all of the picture seen, every word readable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pacs_agent.analyse.overlay import LONGEST_SIDE, SHORTEST_WIDTH, Caption, on_picture, rendered
from pacs_agent.analyse.pixels import InputSpec, model_input

CAPTION = Caption("AI RESEARCH", ("Shows model attention, not lesion location.", "wrist " * 30), ("none", "most"))


def spec(fit: str) -> InputSpec:
    """An input of 160 pixels."""
    return InputSpec(160, fit, 512, 3, 0.5, 0.2)  # type: ignore[arg-type]


def nothing(cells: int = 20) -> NDArray[np.float32]:
    return np.zeros((cells, cells), np.float32)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("shape", [(2500, 2048), (400, 900), (900, 400), (160, 160), (37, 301)])
def test_the_way_to_the_network_is_undone(fit: str, shape: tuple[int, int]) -> None:
    """What the network saw of a bright spot comes back, as a map, to where the spot is in the picture."""
    rows, columns = shape
    for down, across in ((0.25, 0.25), (0.7, 0.3), (0.5, 0.8)):
        picture = np.zeros(shape, np.uint8)
        half = max(2, min(shape) // 16)
        row, column = round(rows * down), round(columns * across)
        picture[row - half : row + half, column - half : column + half] = 255
        seen = model_input(picture, spec(fit)).astype(np.float32)
        levels = on_picture(seen, float(seen.max()), spec(fit), (columns, rows), shape).astype(float)
        assert levels.shape == shape
        for axis, (place, length) in enumerate(((row, rows), (column, columns))):
            profile = levels.sum(axis=1 - axis)
            centre = (profile * np.arange(length)).sum() / profile.sum()
            assert abs(centre - (place - 0.5)) < max(2.0, 0.01 * max(shape))


def test_the_bars_of_a_letterbox_are_cut_off() -> None:
    """What lies on the black bars is on no part of the picture."""
    attention = np.zeros((20, 20), np.float32)
    attention[:, :4] = 1.0
    assert on_picture(attention, 1.0, spec("letterbox"), (100, 400), (400, 100)).max() == 0
    assert on_picture(attention, 1.0, spec("stretch"), (100, 400), (400, 100)).max() == 255


def test_scale_is_the_findings_not_the_pictures() -> None:
    """A faint map stays faint beside a strong one of the same finding, and more than the scale is its end."""
    attention = np.full((20, 20), 2.0, np.float32)
    faint = on_picture(attention, 8.0, spec("stretch"), (100, 100), (100, 100))
    assert abs(int(faint.mean()) - 64) <= 1
    assert (on_picture(attention, 1.0, spec("stretch"), (100, 100), (100, 100)) == 255).all()
    assert (on_picture(attention, 0.0, spec("stretch"), (100, 100), (100, 100)) == 0).all()


@given(rows=st.integers(1, 5000), columns=st.integers(1, 5000))
def test_no_side_is_too_long(rows: int, columns: int) -> None:
    """Whatever its shape, a capture fits with its footer, and is wide enough for words."""
    if rows * columns > 4_000_000:
        rows, columns = rows // 10 + 1, columns // 10 + 1
    capture = rendered(np.full((rows, columns), 90, np.uint8), nothing(), 0.0, spec("stretch"), CAPTION)
    assert max(capture.shape[:2]) <= LONGEST_SIDE
    assert capture.shape[1] >= SHORTEST_WIDTH
    assert capture.dtype == np.uint8


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_picture_is_seen_through_the_map(grey: int) -> None:
    """Without attention a pixel is as it was; at its highest half of it is still there, and it is not grey."""
    picture = np.full((600, 700), grey, np.uint8)
    attention = np.zeros((20, 20), np.float32)
    attention[:, 10:] = 1.0
    capture = rendered(picture, attention, 1.0, spec("stretch"), CAPTION).astype(int)
    assert (capture[300, 50] == grey).all()
    hot = capture[300, 650]
    assert hot.max() - hot.min() > 40
    assert abs(hot - grey).max() <= 128
    assert abs(hot - grey).max() > 30  # to be told from the picture, dark or light


def test_footer_is_below_the_picture_and_readable() -> None:
    """No word lies on the radiograph; its rows are as they were, and the words are light on black."""
    picture = np.tile(np.arange(700, dtype=np.uint16) // 3, (600, 1)).astype(np.uint8)
    capture = rendered(picture, nothing(), 0.0, spec("stretch"), CAPTION)
    assert (capture[:600, :, 0] == picture).all()
    footer = capture[601:]
    assert len(footer) > 80
    assert (footer == 0).all(axis=2).mean() > 0.7
    assert (footer > 200).all(axis=2).mean() > 0.01


def test_narrow_picture_stands_in_the_middle() -> None:
    """The words need their width; the picture is not stretched for it."""
    capture = rendered(np.full((500, 100), 200, np.uint8), nothing(), 0.0, spec("stretch"), CAPTION)
    assert capture.shape[1] == SHORTEST_WIDTH
    row = capture[250, :, 0]
    assert (row[270:370] == 200).all()
    assert row[:270].max() == row[370:].max() == 0


def test_large_picture_is_reduced_by_area() -> None:
    """A picture of 5000 pixels is no longer than a capture may be, its proportions kept."""
    picture = np.asarray(Image.linear_gradient("L").resize((1250, 5000)))
    capture = rendered(picture, nothing(), 0.0, spec("stretch"), CAPTION)
    assert capture.shape[0] <= LONGEST_SIDE
    assert capture.shape[0] > 0.95 * LONGEST_SIDE


def test_same_arguments_give_the_same_picture() -> None:
    """A capture depends on nothing else."""
    attention = np.random.default_rng(0).random((20, 20), np.float32)
    picture = np.random.default_rng(1).integers(0, 255, (300, 300), np.uint8)
    first, second = (rendered(picture, attention, 1.0, spec("letterbox"), CAPTION) for _ in range(2))
    np.testing.assert_array_equal(first, second)
