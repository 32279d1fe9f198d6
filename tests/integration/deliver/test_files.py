"""`send`'s C-STORE of files: what each peer's temper makes of them."""

from pathlib import Path

import pytest
from deliveries import Pacs
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from radiographs import cr, deep

from pacs_agent.deliver import files
from pacs_agent.deliver.files import Peer, parse_peer, send_files
from pacs_agent.errors import DeliveryError, PacsAgentError

CR, DX = ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three CR files in the order of their names, and a text beside them."""
    made = tmp_path / "study"
    made.mkdir()
    for number in range(3):
        cr(seed=number).save_as(made / f"{number}.dcm", enforce_file_format=True)
    (made / "notes.txt").write_text("not DICOM")
    return made


def told(paths: list[Path], pacs: Pacs) -> dict[str, str | None]:
    """File name to what became of it."""
    found = list(send_files(paths, Peer("PACS", "127.0.0.1", pacs.port), "TESTS"))
    assert {total for _, total, _ in found} == {len(found)}
    return {path.name: problem for path, _, problem in found}


def test_each_file_is_told(folder: Path, pacs: Pacs) -> None:
    """Stored, refused with the peer's words, or no DICOM file at all."""

    def answer(_event: evt.Event) -> int | Dataset:
        if len(pacs.received) != 2:
            return 0
        refusal = Dataset()
        refusal.Status, refusal.ErrorComment = 0xA700, "disk full"
        return refusal

    pacs.answer = answer
    pacs.start(CR)
    assert told([folder], pacs) == {
        "0.dcm": None, "1.dcm": "status A700 disk full", "2.dcm": None, "notes.txt": "not a DICOM file",
    }  # fmt: skip


def test_file_that_cannot_be_read_costs_itself_alone(folder: Path, pacs: Pacs) -> None:
    """Sequences 10,000 deep: one line, and the others are stored."""
    deep(folder / "1.dcm")
    pacs.start(CR)
    found = told([folder], pacs)
    assert found.pop("1.dcm") is not None
    assert found == {"0.dcm": None, "2.dcm": None, "notes.txt": "not a DICOM file"}


def test_unreachable_peer_is_no_wrong_usage(folder: Path, pacs: Pacs) -> None:
    """An error of its own that names the peer; an unknown host is one too."""
    with pytest.raises(DeliveryError, match=rf"^PACS@127\.0\.0\.1:{pacs.port}: cannot be reached$"):
        list(send_files([folder / "0.dcm"], Peer("PACS", "127.0.0.1", pacs.port), "TESTS"))
    with pytest.raises(DeliveryError, match=r"^PACS@no-such-host\.invalid:104: .*[a-z]"):
        list(send_files([folder / "0.dcm"], Peer("PACS", "no-such-host.invalid", 104), "TESTS"))


def test_rejection_is_told_in_words(folder: Path) -> None:
    """The peer's reason as the standard names it. PS3.8 Table 9-21"""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(CR)
    ae.require_called_aet = True
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        peer = Peer("OTHER", "127.0.0.1", server.server_address[1])
        with pytest.raises(DeliveryError, match="association rejected: Called AE title not recognised"):
            list(send_files([folder / "0.dcm"], peer, "TESTS"))
    finally:
        server.shutdown()


def test_wrong_usage_is_no_delivery_error(folder: Path) -> None:
    """A path that is not there, a peer that is none."""
    for wrong in (lambda: list(send_files([folder / "x"], Peer("A", "h", 1), "T")), lambda: parse_peer("nonsense")):
        with pytest.raises(PacsAgentError) as caught:
            wrong()
        assert not isinstance(caught.value, DeliveryError)


def test_class_that_is_not_accepted(folder: Path, pacs: Pacs) -> None:
    """Each such file is told, with or without others that are accepted."""
    pacs.start(DX)
    assert set(told([folder / "0.dcm", folder / "1.dcm"], pacs).values()) == {
        "the destination does not accept this SOP class"
    }
    cr(seed=9, SOPClassUID=DX).save_as(folder / "dx.dcm", enforce_file_format=True)
    found = told([folder / "0.dcm", folder / "dx.dcm"], pacs)
    assert found["dx.dcm"] is None
    assert "presentation context" in str(found["0.dcm"]).lower()


def test_broken_association_costs_its_own_files_only(folder: Path, pacs: Pacs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file at which it broke, the rest of that association, and the next one goes on."""
    monkeypatch.setattr(files, "MAX_CONTEXTS", 1)
    cr(seed=9, SOPClassUID=DX).save_as(folder / "dx.dcm", enforce_file_format=True)
    assert cr(seed=9).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    pacs.answer = lambda event: event.assoc.abort() or 0 if len(pacs.received) == 2 else 0
    pacs.start(CR, DX)
    assert told([folder], pacs) == {
        "notes.txt": "not a DICOM file",
        "0.dcm": None,
        "1.dcm": "the association ended without an answer",
        "2.dcm": "not sent: the association has ended",
        "dx.dcm": None,
    }


def test_peer_that_goes_away_between_associations(folder: Path, pacs: Pacs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored stays told, and the rest is told with the reason."""
    monkeypatch.setattr(files, "MAX_CONTEXTS", 1)
    cr(seed=9, SOPClassUID=DX).save_as(folder / "dx.dcm", enforce_file_format=True)
    pacs.start(CR, DX)
    found: dict[str, str | None] = {}
    for path, _, problem in send_files([folder / "0.dcm", folder / "dx.dcm"], Peer("P", "127.0.0.1", pacs.port), "T"):
        found[path.name] = problem
        pacs.stop()
    assert found == {"0.dcm": None, "dx.dcm": f"P@127.0.0.1:{pacs.port}: cannot be reached"}
