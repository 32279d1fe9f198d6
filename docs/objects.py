"""Makes what docs/objects.md shows: the texts between its marks, and the pictures in docs/objects.

Phantom studies go the way of the daemon, from the record to the outbox, at a fixed moment; nothing is listened to and
nothing is sent. The same program and bundle give the same page, but for what another processor does to the last digits.

    python docs/objects.py [FOLDER that holds objects.md; without it the one of this file]
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.display import Picture
from pacs_agent.analyse.pixels import read_dicom_picture
from pacs_agent.analyse.station import AnalysisStation
from pacs_agent.analyse.supervisor import AnalysisProcess
from pacs_agent.deliver.outbox import Outbox
from pacs_agent.phantom.dataset import study
from pacs_agent.phantom.lesion import Lesion
from pacs_agent.record.claiming import queue_study, receiving_studies
from pacs_agent.record.reading import query
from pacs_agent.record.receiving import Receipt, Reception
from pacs_agent.record.store import Store
from pacs_agent.report.content import Equipment
from pacs_agent.report.text import report_text
from pacs_agent.reporting import Reporting
from pacs_agent.settings import Agent, Settings
from pacs_agent.study.bodypart import map_body_part
from pacs_agent.study.eligibility import EligibilityRules, assess
from pacs_agent.study.instance import Instance

MOMENT = datetime(2026, 1, 5, 10, 15, tzinfo=UTC)
DSRDUMP = "/usr/bin/dsrdump"
COLOURS = 256  # of a picture on the page
SAME = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "StudyDate", "AccessionNumber", "StudyID")

Study = list[FileDataset]


def main(docs: Path) -> None:
    """Write the page and its pictures."""
    os.environ["TZ"] = "UTC"  # a report's time is the site's
    time.tzset()
    with TemporaryDirectory() as folder:
        studies = {name: make() for name, make in STUDIES.items()}
        objects = analysed(studies, Path(folder))
        blocks = {name: report_text(reports[-1]) for name, reports in objects.items() if name != "light"}
        blocks["dsrdump"] = dumped(objects["dark"][-1], Path(folder))
        blocks["series"] = series([*studies["dark"], *objects["dark"]])
    page = (docs / "objects.md").read_text()
    for name, text in blocks.items():
        mark = re.escape(f"<!-- {name} -->\n```text\n")
        page, count = re.subn(rf"(?s)({mark}).*?(```)", lambda found: found[1] + text + found[2], page)  # noqa: B023
        if count != 1:
            raise SystemExit(f"objects.md: the mark {name} stands there {count} times")
    (docs / "objects.md").write_text(page)
    pictures = docs / "objects"
    pictures.mkdir(exist_ok=True)
    for name in ("dark", "light"):
        keep(Image.fromarray(objects[name][0].pixel_array), pictures / f"capture-{name}.png")
    keep(hanging(studies["dark"], objects["dark"]), pictures / "hanging.png")


def phantom(part: str, seed: int, lesion: Lesion | None = None, side: str = "R", views: int = 2) -> Study:
    """A phantom's study as a DX modality sends it."""
    return study(
        part, seed=seed, abnormal=lesion is not None, lesion=lesion, laterality=side, views=views, longest_side=640,
        kind="DX", header_style="standard", transfer_syntax_uid=ExplicitVRLittleEndian,
    )  # fmt: skip


def together(first: Study, *others: Study) -> Study:
    """All in the study of the first."""
    for ds in (each for other in others for each in other):
        for keyword in SAME:
            setattr(ds, keyword, first[0][keyword].value)
    return [*first, *(each for other in others for each in other)]


def with_elements(images: Study, place: int, **elements: object) -> Study:
    """With elements of one image changed."""
    for keyword, value in elements.items():
        setattr(images[place], keyword, value)
    return images


def noise(images: Study) -> Study:
    """The pictures replaced by what is no radiograph."""
    for seed, ds in enumerate(images):
        values = np.random.default_rng(seed).integers(0, 1 << ds.BitsStored, (ds.Rows, ds.Columns))
        ds.PixelData = values.astype("<u2").tobytes()
    return images


def cut(images: Study, place: int) -> Study:
    """The pixel data of one image ends early."""
    return with_elements(images, place, PixelData=images[place].PixelData[:1000])


STUDIES: dict[str, Callable[[], Study]] = {
    "dark": lambda: phantom("finger", 7006, Lesion("displaced fracture", 0.9)),
    "light": lambda: phantom("shoulder", 7005, Lesion("displaced fracture", 0.9), views=1),
    "normal": lambda: phantom("hand", 3),
    "two-parts": lambda: together(
        phantom("elbow", 10, Lesion("wire", 0.8), side="L"), phantom("forearm", 11, side="L")
    ),
    "guard": lambda: noise(phantom("wrist", 12)),
    "disagree": lambda: with_elements(
        phantom("hand", 13, views=1), 0, BodyPartExamined="ELBOW", AnatomicRegionSequence=[], StudyDescription="",
        SeriesDescription="", ProtocolName="",
    ),
    "part-read": lambda: cut(phantom("hand", 23), 1),
    "sides": lambda: with_elements(phantom("hand", 15), 1, SeriesDescription="Hand left"),
    "patient": lambda: with_elements(phantom("hand", 16, views=1), 0, QualityControlSubject="NO"),
}  # fmt: skip


def analysed(studies: dict[str, Study], folder: Path) -> dict[str, Study]:
    """The objects of each study, the report last."""
    settings = Settings(agent=Agent(data_dir=folder))
    store = Store.open(settings.database_path)
    store.clock = lambda: MOMENT
    (folder / "inbox").mkdir()
    reception = Reception(store)
    for images in studies.values():
        for ds in images:
            path = f"inbox/{ds.SOPInstanceUID}.dcm"
            ds.save_as(folder / path, enforce_file_format=True)
            facts = Instance.from_dataset(ds)
            eligibility = assess(facts, EligibilityRules(), MOMENT.date())
            reception.accept(Receipt(facts, eligibility, path, path, 1, "XR1", store.now()))
    for waiting in receiving_studies(store):
        queue_study(store, waiting, "quiet for 60 s")
    bundle = load_bundle("demonstration")
    process = AnalysisProcess.of(bundle, settings.model)
    equipment = Equipment(device_uid="2.25.7", station_name="PACS_AGENT", software_version="0.1.0")
    outbox = Outbox(folder, store, ())
    station = AnalysisStation(
        store=store,
        data_dir=folder,
        bundle=bundle,
        process=process,
        assess=lambda facts, received_on: assess(facts, EligibilityRules(), received_on),
        map_body_part=map_body_part,
        make_reports=Reporting(settings, store, outbox, bundle.identity, equipment, process.capture),
        discard_unrecorded=outbox.reconcile,
        batch_studies=4,
        lease_s=600,
    )
    try:
        while station.work_once(Event()):
            pass
    finally:
        process.stop()
    sql = (
        "SELECT r.path FROM report r JOIN analysis a ON a.id = r.analysis_id JOIN study s ON s.id = a.study_id"
        " WHERE s.study_instance_uid = ? ORDER BY r.id"
    )
    found = {
        name: [dcmread(folder / row[0]) for row in query(store.path, sql, [str(images[0].StudyInstanceUID)]).rows]
        for name, images in studies.items()
    }
    store.close()
    return found


def dumped(report: Dataset, folder: Path) -> str:
    """What dsrdump prints, UIDs shortened: the captures' are drawn by chance."""
    path = folder / "report.dcm"
    report.save_as(path, enforce_file_format=True)
    done = subprocess.run(
        [DSRDUMP, "+Pl", "+U8", str(path)], check=True, capture_output=True, encoding="utf-8"
    )  # fmt: skip
    lines = re.sub(r"2\.25\.\d{10,}", "2.25.…", done.stdout).strip().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def series(objects: Sequence[Dataset]) -> str:
    """The study as a viewer lists it."""
    rows: dict[str, tuple[int, str, str, list[str]]] = {}
    for ds in objects:
        row = rows.setdefault(
            str(ds.SeriesInstanceUID),
            (int(ds.SeriesNumber), str(ds.Modality), str(ds.get("SeriesDescription", "")), []),
        )
        row[3].append(str(ds.InstanceNumber))
    lines = [f"{'series':>6}  {'modality':<8}  {'description':<42}  instances"]
    lines += [
        f"{number:>6}  {modality:<8}  {description:<42}  {', '.join(instances)}"
        for number, modality, description, instances in sorted(rows.values())
    ]
    return "\n".join(lines) + "\n"


def hanging(images: Study, objects: Sequence[Dataset]) -> Image.Image:
    """The study side by side, as a viewer hangs it by series number."""
    margin, heading, height = 8, 40, 320
    shown: list[tuple[Dataset, Image.Image | None]] = [(ds, shown_radiograph(ds)) for ds in images]
    shown += [(ds, None if ds.Modality == "SR" else Image.fromarray(ds.pixel_array)) for ds in objects]
    shown.sort(key=lambda each: (int(each[0].SeriesNumber), int(each[0].InstanceNumber)))
    widths = [360 if picture is None else 200 for _, picture in shown]
    page = Image.new("RGB", (margin + sum(width + margin for width in widths), heading + height + margin), (24, 24, 28))
    draw, font, small = ImageDraw.Draw(page), ImageFont.load_default(14), ImageFont.load_default(10)
    left = margin
    for (ds, picture), width in zip(shown, widths, strict=True):
        draw.text((left, 4), f"{ds.SeriesNumber}  {ds.Modality}", (255, 190, 60), font)
        words = str(ds.get("SeriesDescription", ""))
        draw.text((left, 22), words, (200, 200, 200), small)
        if picture is None:
            text = [line for part in report_text(ds).splitlines() for line in wrapped(part, width - 24, small)]
            draw.rectangle((left, heading, left + width, heading + height), fill=(250, 250, 250))
            draw.multiline_text((left + 8, heading + 8), "\n".join(text), (20, 20, 20), small, spacing=4)
        else:
            picture.thumbnail((width, height), Image.Resampling.LANCZOS)
            page.paste(picture, (left + (width - picture.width) // 2, heading + (height - picture.height) // 2))
        left += width + margin
    return page


def wrapped(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """A line of a report broken for a narrow tile."""
    lines = [""]
    for word in line.split():
        longer = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if font.getlength(longer) > width:
            lines.append(f"    {word}")
        else:
            lines[-1] = longer
    return lines


def shown_radiograph(ds: FileDataset) -> Image.Image:
    """The radiograph as it is meant to be shown."""
    picture: Picture = read_dicom_picture(ds, max_pixels=10_000_000, longest_side=640)
    return Image.fromarray(picture).convert("RGB")


def keep(picture: Image.Image, path: Path) -> None:
    """A small PNG, without anything that changes from day to day."""
    picture.quantize(COLOURS, kmeans=2).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]) if sys.argv[1:] else Path(__file__).parent)
