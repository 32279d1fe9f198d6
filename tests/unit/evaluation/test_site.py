"""Pure parts of judging: models by their names, rows of a truth file, sides that match, reasons, plots."""

import re
from xml.etree import ElementTree

import pytest

from pacs_agent.errors import PacsAgentError
from pacs_agent.evaluation.comparison import compare
from pacs_agent.evaluation.drawing import intervals, reliability_plot, roc
from pacs_agent.evaluation.said import ModelName, Said, chosen_model, patients_of
from pacs_agent.evaluation.site import FEWEST, SiteReport, Truth, kind_of_reason, match, site_report
from pacs_agent.evaluation.truthfile import read_truth

NET = ModelName("net", "1", "ab" * 32)
OTHER = ModelName("net", "2", "cd" * 32)


def said(
    index: int, probability: float | None, *, part: str = "hand", patient: str = "", side: str | None = "R"
) -> Said:
    """A model's word on a study at the threshold of .5."""
    finding = "undetermined" if probability is None else "abnormal" if probability > 0.5 else "normal"
    return Said(f"1.{index}", "", patient, "XR <1>", "XR1", part, side, finding, probability, 0.5, None)


def report(count: int) -> SiteReport:
    """*count* abnormal cases and as many normal ones, most of them right."""
    words = [said(index, (index % 10) / 20 + (0.5 if index % 2 else 0.05)) for index in range(2 * count)]
    truths = [
        Truth(each.study_instance_uid, "hand", "R", "abnormal" if index % 2 else "normal", "analysed")
        for index, each in enumerate(words)
    ]
    return site_report(NET, words, truths)


def test_a_model_is_named_by_name_version_or_hash() -> None:
    """What names one finds it; a prefix of a hash of four characters at least."""
    assert chosen_model("net@2", [NET, OTHER]) == OTHER
    assert chosen_model(" ABAB ", [NET, OTHER]) == NET
    with pytest.raises(PacsAgentError, match=r"several: net@1 .*, net@2 "):
        chosen_model("net", [NET, OTHER])
    for unknown in ("aba", "abb", "", "net@3"):
        with pytest.raises(PacsAgentError, match="no model called"):
            chosen_model(unknown, [NET, OTHER])
    with pytest.raises(PacsAgentError, match="none has"):
        chosen_model("net", [])


def test_a_study_without_a_patient_is_a_patient_of_its_own() -> None:
    """Nobody knows whether two of them belong together."""
    numbers, count = patients_of([said(1, 0.1, patient="/P"), said(2, 0.1), said(3, 0.1, patient="/P"), said(4, 0.1)])
    assert (numbers.tolist(), count) == ([0, 1, 0, 2], 3)


@pytest.mark.parametrize(
    ("side", "sides", "found"),
    [
        ("L", ["L", "R"], ["L"]),
        ("L", ["R"], []),
        ("L", [None], [None]),
        ("L", ["R", None], [None]),
        (None, ["R"], ["R"]),
        (None, ["L", "R"], ["L", "R"]),
        (None, ["R", None], [None]),
        (None, [], []),
    ],
)
def test_sides_match_where_either_is_not_stated(
    side: str | None, sides: list[str | None], found: list[str | None]
) -> None:
    """The same side is meant, or one of which either says none; never the other side."""
    assert match(side, sides) == found


def test_labels_that_contradict_each_other_are_left_out() -> None:
    """Two labels that turn out to mean one finding, of a side and of none, are no truth."""
    truths = [Truth("1.1", "hand", "R", "normal", "analysed"), Truth("1.1", "hand", None, "abnormal", "analysed")]
    found = site_report(NET, [said(1, 0.9)], truths)
    assert (found.truths, found.contradicted, found.overall.known) == (2, 2, 0)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("SeriesDescription 'L'Hand of 3' names x", "SeriesDescription '…' names x"),
        (
            "1 of 2 images analysed (picture looks like wrist, 0.97)",
            "n of n images analysed (picture looks like wrist, n)",
        ),
        (None, "not said"),
    ],
)
def test_reasons_are_counted_by_kind(reason: str | None, kind: str) -> None:
    """Quotes of a header and numbers say something of one study only."""
    assert kind_of_reason(reason) == kind


def test_nothing_in_common_is_no_comparison() -> None:
    """Another study, part or side is another finding."""
    words = [said(1, 0.1)]
    for other in (said(2, 0.1), said(1, 0.1, part="wrist"), said(1, 0.1, side="L")):
        assert compare(NET, OTHER, words, [other]) is None
    found = compare(NET, OTHER, words, [said(1, None)])
    assert found is not None
    assert (found.groups[0].claimed, found.groups[0].agreement.value, found.differ_most) == (0, None, ())


def test_plots_are_drawn_of_enough_cases_only() -> None:
    """Well-formed SVG that escapes names; of too few cases no curve, and the intervals say so."""
    enough, few = report(FEWEST), report(FEWEST - 1)
    assert roc(few) is None
    assert reliability_plot(few) is None
    drawn = [roc(enough), reliability_plot(enough), intervals(enough.cohorts, "by <all>"), intervals(few.cohorts, "x")]
    for svg in drawn:
        assert svg is not None
        ElementTree.fromstring(svg)
    assert "XR &lt;1&gt;" in (drawn[2] or "")
    assert len(re.findall(r"too few \(9 patients\)", drawn[3] or "")) == 2 * len(few.cohorts)
    assert "too few" not in (drawn[2] or "")


def test_a_quote_that_is_not_closed_costs_one_row() -> None:
    """Each line is read by itself."""
    rows, refused = read_truth('accession_number,label\n"A1,normal\nA2,normal\n"A3",abnormal\n')
    assert [row.accession_number for row in rows] == ["A2", "A3"]
    assert [each.row for each in refused] == [2]
