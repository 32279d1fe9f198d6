"""Phantom radiographs: the same for the same seed, of the right part, abnormal where they say so."""

import numpy as np
import pytest
from scipy import ndimage

from pacs_agent.errors import PacsAgentError
from pacs_agent.phantom.lesion import LESIONS, PLAIN, SHARES, SUBTLE, drawn
from pacs_agent.phantom.radiograph import VIEWS, Radiograph, radiograph, study_views
from pacs_agent.study.bodypart import BODY_PARTS

SIDE = 192


def changed(one: Radiograph, other: Radiograph) -> np.ndarray:
    """Where two pictures differ in detail; a lesion also moves the window, and with it all grey a little."""
    difference = one.picture - other.picture
    return np.abs(difference - ndimage.gaussian_filter(difference, 12)) > 0.05


def test_views_of_every_part() -> None:
    """Every body part has a frontal view and another one."""
    assert tuple(VIEWS) == BODY_PARTS
    assert all(views[0] in ("AP", "PA") and len(views) >= 2 for views in VIEWS.values())


@pytest.mark.parametrize("body_part", BODY_PARTS)
def test_same_seed_same_picture(body_part: str) -> None:
    """A radiograph is made again to the bit from its seed, and another seed gives another."""
    one = radiograph(body_part, abnormal=True, seed=5, longest_side=SIDE)
    again = radiograph(body_part, abnormal=True, seed=5, longest_side=SIDE)
    other = radiograph(body_part, abnormal=True, seed=6, longest_side=SIDE)
    assert np.array_equal(one.picture, again.picture)
    assert (one.lesion, one.lesion_box, one.age_years) == (again.lesion, again.lesion_box, again.age_years)
    assert one.picture.shape != other.picture.shape or not np.array_equal(one.picture, other.picture)


@pytest.mark.parametrize(("body_part", "view"), [(part, view) for part, views in VIEWS.items() for view in views])
def test_picture(body_part: str, view: str) -> None:
    """A picture is float32 from 0 to 1, its longest side as asked, with dark background and bright bone."""
    made = radiograph(body_part, abnormal=False, seed=1, view=view, longest_side=SIDE)
    assert made.picture.dtype == np.float32
    assert max(made.picture.shape) == SIDE
    assert made.picture.min() == 0
    assert 0.7 < made.picture.max() <= 1
    assert np.percentile(made.picture, 3) < 0.1
    assert np.percentile(made.picture, 97) > 0.45
    assert (made.body_part, made.view, made.abnormal) == (body_part, view, False)
    assert made.lesion is None
    assert made.lesion_box is None


@pytest.mark.parametrize("body_part", BODY_PARTS)
@pytest.mark.parametrize("lesion", LESIONS)
def test_lesion_shows_in_its_box(body_part: str, lesion: str) -> None:
    """A lesion changes the picture within its box more than anywhere else, at 160 pixels."""
    normal = radiograph(body_part, abnormal=False, seed=2, longest_side=160)
    abnormal = radiograph(body_part, abnormal=True, seed=2, longest_side=160, lesion=lesion)
    assert abnormal.lesion == lesion
    assert abnormal.lesion_box is not None
    row0, column0, row1, column1 = abnormal.lesion_box
    assert 0 <= row0 < row1 <= abnormal.picture.shape[0]
    assert 0 <= column0 < column1 <= abnormal.picture.shape[1]
    difference = changed(normal, abnormal)
    inside = np.zeros_like(difference)
    inside[row0:row1, column0:column1] = True
    assert difference[inside].sum() >= 6
    outside = ~inside
    if "fracture" in lesion or lesion in ("dislocation", "joint narrowing"):
        # What hangs on a broken bone or a slipped joint moves with it: fingertips are up, arms hang down.
        beyond = slice(0, row0) if body_part in ("finger", "hand", "wrist") else slice(row1, None)
        outside[beyond] = False
    assert difference[inside].mean() > 2 * difference[outside].mean()


@pytest.mark.parametrize("lesion", ["transverse fracture", "displaced fracture", "dislocation", "joint narrowing"])
def test_severity_shows(lesion: str) -> None:
    """A gross lesion changes more of the picture than a subtle one, and a subtle one changes something."""
    normal = radiograph("forearm", abnormal=False, seed=4, longest_side=SIDE)
    subtle, gross = (
        radiograph("forearm", abnormal=True, seed=4, longest_side=SIDE, lesion=lesion, severity=severity)
        for severity in (0.0, 1.0)
    )
    assert changed(normal, gross).sum() > changed(normal, subtle).sum() > 0
    assert (subtle.severity, gross.severity, normal.severity) == (0.0, 1.0, None)


def test_drawn_lesions() -> None:
    """Kinds come by their shares; without subtle ones all are such as 160 pixels show, with nothing else none is."""
    rng = np.random.default_rng(1)
    plain = [drawn(rng) for _ in range(2000)]
    assert all(lesion.severity >= PLAIN[0] for lesion in plain)
    assert all(drawn(rng, subtle=1.0).severity <= SUBTLE[1] for _ in range(100))
    for kind in LESIONS:
        assert np.mean([lesion.kind == kind for lesion in plain]) == pytest.approx(SHARES[kind], abs=0.03)
    assert sum(SHARES.values()) == pytest.approx(1)


def test_study_views() -> None:
    """The views of a study follow the part's list; a view taken again has another seed."""
    assert study_views("wrist", 7, 4)[:3] == (("PA", 7), ("LATERAL", 7), ("OBLIQUE", 7))
    again, seed = study_views("wrist", 7, 4)[3]
    assert again == "PA"
    assert seed != 7
    with pytest.raises(PacsAgentError, match="one of"):
        study_views("knee", 7, 1)


def test_left_mirrors_right() -> None:
    """A left hand is the mirrored right hand, its lead letter apart."""
    right = radiograph("hand", abnormal=False, seed=3, longest_side=SIDE)
    left = radiograph("hand", abnormal=False, seed=3, laterality="L", longest_side=SIDE)
    correlation = np.corrcoef(right.picture.ravel(), left.picture[:, ::-1].ravel())[0, 1]
    unmirrored = np.corrcoef(right.picture.ravel(), left.picture.ravel())[0, 1]
    assert correlation > 0.9 > unmirrored


def test_spacing_follows_size() -> None:
    """Half the pixels are twice as far apart."""
    large, small = (radiograph("wrist", abnormal=False, seed=1, longest_side=side) for side in (256, 128))
    assert small.spacing_mm == pytest.approx(2 * large.spacing_mm)


@pytest.mark.parametrize(("body_part", "view"), [("knee", "AP"), ("hand", "LATERAL")])
def test_unknown(body_part: str, view: str) -> None:
    """An unknown part or view is refused with what there is."""
    with pytest.raises(PacsAgentError, match="one of"):
        radiograph(body_part, abnormal=False, seed=0, view=view)
