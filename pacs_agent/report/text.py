"""A report as plain text, for a terminal.

Enters: the data set of a report, just built or read back from its file. Leaves: the lines a person reads. Says what
the object says and nothing else, so that `show`, a viewer and the archive tell one story.
"""

from collections.abc import Iterator
from textwrap import wrap

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pacs_agent.errors import PacsAgentError
from pacs_agent.report import codes, tree
from pacs_agent.report.tree import children, first_text, is_called, normality, texts

WIDTH = 100  # columns


def report_text(ds: Dataset) -> str:
    """The report in words.

    Args:
        ds: a report made by `structured_report`, of any of its classes.

    Raises:
        PacsAgentError: it is no measurement report (TID 1500).
    """
    if not is_called(ds, codes.IMAGING_MEASUREMENT_REPORT):
        raise PacsAgentError("not a measurement report (TID 1500)")
    groups = tree.groups(ds)
    lines = [_text(ds, "SeriesDescription").upper()]
    for evaluations in children(ds, codes.QUALITATIVE_EVALUATIONS):
        lines += [line for comment in texts(evaluations, codes.COMMENT) for line in wrap(comment, WIDTH)]
    lines.append("")
    lines += [f"{label:<9}{value}" for label, value in _heading(ds, groups) if value]
    views = _views(ds)
    differ = len(set(map(_threshold, groups))) > 1
    for group in groups:
        name = first_text(group, codes.TRACKING_IDENTIFIER)
        if tree.is_of_an_image(group):
            lines += wrap(_image_line(group, name, views), WIDTH, subsequent_indent=" " * 12)
        else:
            lines += _finding_lines(group, name, _threshold(group) if differ else "")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _heading(ds: Dataset, groups: list[Dataset]) -> Iterator[tuple[str, str]]:
    birth, sex, quality = _date(ds, "PatientBirthDate"), _text(ds, "PatientSex"), _text(ds, "QualityControlSubject")
    yield (
        "Patient",
        _joined(
            _name(_text(ds, "PatientName")),
            _text(ds, "PatientID") and f"ID {_text(ds, 'PatientID')}",
            birth and f"born {birth}",
            sex,
            "phantom" if quality == "YES" else "",
        ),
    )
    accession = _text(ds, "AccessionNumber")
    yield (
        "Study",
        _joined(_date(ds, "StudyDate"), _text(ds, "StudyDescription"), accession and f"accession {accession}"),
    )
    completion = _joined(_text(ds, "CompletionFlag").lower(), _text(ds, "CompletionFlagDescription"), mark=": ")
    time = _text(ds, "ContentTime")
    yield (
        "Report",
        _joined(
            f"revision {_text(ds, 'InstanceNumber')}",
            f"{_date(ds, 'ContentDate')} {time[:2]}:{time[2:4]}",
            _text(ds, "VerificationFlag").lower(),
            _text(ds, "PreliminaryFlag").lower(),
            completion,
        ),
    )
    if groups:
        thresholds = set(map(_threshold, groups))
        model = f"{first_text(groups[0], codes.ALGORITHM_NAME)} {first_text(groups[0], codes.ALGORITHM_VERSION)}"
        # Of parts with thresholds of their own each finding says its own.
        yield "Model", _joined(model, thresholds.pop() if len(thresholds) == 1 else "")


def _finding_lines(group: Dataset, name: str, threshold: str) -> list[str]:
    result = _joined(normality(group).upper(), _percent(group), threshold, mark="   ")
    lines = ["", f"{name[:1].upper()}{name[1:]}: {result}"]
    for comment in texts(group, codes.COMMENT):
        lines += wrap(comment, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines


def _image_line(group: Dataset, name: str, views: dict[str, str]) -> str:
    uid = next(iter(tree.source_uids(group)), "")
    number = name.rpartition(": image ")[2].partition(" of ")[0]
    heat_map = "heat map" if any(True for _ in children(group, codes.VISUAL_EXPLANATION)) else ""
    says = _joined(_percent(group), heat_map, *texts(group, codes.COMMENT), mark=" ")
    return f"  image {number:<3} {views.get(uid, ''):<18} {normality(group):<13} {says}"


def _threshold(group: Dataset) -> str:
    return first_text(group, codes.ALGORITHM_PARAMETERS).replace("=", " ")


def _views(ds: Dataset) -> dict[str, str]:
    """View, by SOP Instance UID, of the images in the library that have one."""
    return {
        str(entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID): str(view.ConceptCodeSequence[0].CodeMeaning)
        for library in children(ds, codes.IMAGE_LIBRARY)
        for group in children(library, codes.IMAGE_LIBRARY_GROUP)
        for entry in group.ContentSequence
        for view in children(entry, codes.IMAGE_VIEW)
    }


def _percent(group: Dataset) -> str:
    if (found := tree.percent(group)) is None:
        return ""
    name, value = found
    return f"{name.meaning.lower()} {value:.1f} %"


def _text(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str("" if value is None else value)


def _date(ds: Dataset, keyword: str) -> str:
    text = _text(ds, keyword)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 else text


def _name(name: str) -> str:
    """`Doe^Jane` as `Doe, Jane`; component groups (alphabetic, ideographic, phonetic) apart."""
    groups = (", ".join(part for part in group.split("^") if part) for group in name.split("="))
    return " / ".join(group for group in groups if group)


def _joined(*parts: str, mark: str = " · ") -> str:
    return mark.join(part for part in parts if part)
