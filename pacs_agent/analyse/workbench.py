"""What the analysis process does with pictures: decoded, through the network, and on demand shown with a heat map.

Enters: paths and body parts. Leaves: an answer for each picture, or the reason why there is none; rendered captures.
Whatever a picture does to a decoder, it costs that picture alone; the network's failure is not caught. Keeps the last
pictures and their maps, so that a capture needs no second decoding; what is no longer kept is made again.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pacs_agent.analyse.display import Picture
from pacs_agent.analyse.ensemble import Ensemble
from pacs_agent.analyse.overlay import LONGEST_SIDE, Attention, Caption, Rgb, rendered
from pacs_agent.analyse.pixels import model_input, read_picture, reduce_picture
from pacs_agent.errors import PixelsError, UnreadableInstanceError

KEPT_BYTES = 256 * 1024 * 1024  # of pictures: some fifty of 2500 × 2048
KEPT_PIXELS = 8_000_000  # of one picture; a larger one is kept as its capture will show it
CAPTURE_DETAIL = 1024  # a picture decoded to less than this (JPEG 2000, for the network) is decoded again to be shown


class _DiskError(str):
    """Why there is no picture: the disk does not give its file back, now."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """A picture that went through the network, and its map; None where it is to be read again."""

    picture: Picture | None
    attention: Attention

    @property
    def size_bytes(self) -> int:
        return self.attention.nbytes + (0 if self.picture is None else self.picture.nbytes)


class Workbench:
    """Pictures to answers and captures.

    Args:
        ensemble: on its device.
        decoders: the threads that decode.
        batch_images: pictures that go through the network at a time.
        max_pixels: rows × columns allowed of one picture.
    """

    def __init__(self, ensemble: Ensemble, decoders: ThreadPoolExecutor, batch_images: int, max_pixels: int) -> None:
        self._ensemble = ensemble
        self._decoders = decoders
        self._batch_images = batch_images
        self._max_pixels = max_pixels
        self._spec = ensemble.bundle.manifest.input
        self._seen: OrderedDict[tuple[str, str | None], _Seen] = OrderedDict()
        self._seen_bytes = 0

    def analyse(self, images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """One answer for each of images `{key, path, body_part}`: decoded side by side, then all in one batch."""
        decoded = list(self._decoders.map(lambda image: self._decode(image["path"]), images))
        answers: list[dict[str, Any]] = [
            {
                "key": image["key"],
                "abnormal_probability": None,
                "member_probabilities": [],
                "reason": each if isinstance(each, str) else None,
                "unread": isinstance(each, _DiskError),
                "doubt": None,
                "attention": None,
            }
            for image, each in zip(images, decoded, strict=True)
        ]
        readable = [(index, each) for index, each in enumerate(decoded) if not isinstance(each, str)]
        if not readable:
            return answers
        found = self._ensemble.examine(
            np.stack([inner for _, (_, inner) in readable]),
            [images[index]["body_part"] for index, _ in readable],
            self._batch_images,
            with_maps=True,
        )
        for (index, (picture, _)), probability, of_members, verdict, attention in zip(
            readable,
            found.probabilities.tolist(),
            found.member_probabilities.tolist(),
            found.verdicts,
            found.attention,
            strict=True,
        ):
            highest = float(attention.max())
            if all(map(math.isfinite, (probability, *of_members, highest))):
                answers[index].update(
                    abnormal_probability=probability,
                    member_probabilities=of_members,
                    doubt=verdict.reason if verdict else None,
                    attention=highest,
                )
                self._keep((images[index]["path"], images[index]["body_part"]), picture, attention)
            else:  # NaN is not greater than any threshold: it would read as normal
                answers[index]["reason"] = "the network gave no probability"
        return answers

    def capture(
        self,
        path: str,
        body_part: str | None,
        full_scale: float,
        title: str,
        lines: Sequence[str],
        scale: tuple[str, str],
    ) -> Rgb | str:
        """The capture of a picture that was analysed, or the reason why there is none."""
        key = (path, body_part)
        if key not in self._seen:
            (answer,) = self.analyse([{"key": "", "path": path, "body_part": body_part}])
            if answer["reason"] is not None:
                return str(answer["reason"])
        seen = self._seen[key]
        picture = self._read(path, CAPTURE_DETAIL) if seen.picture is None else seen.picture
        if isinstance(picture, str):
            return picture
        low, high = scale
        return rendered(picture, seen.attention, full_scale, self._spec, Caption(title, tuple(lines), (low, high)))

    def _keep(self, key: tuple[str, str | None], picture: Picture, attention: Attention) -> None:
        if key in self._seen:
            self._seen_bytes -= self._seen.pop(key).size_bytes
        kept = _Seen(picture if max(picture.shape) >= CAPTURE_DETAIL else None, attention)
        self._seen[key] = kept
        self._seen_bytes += kept.size_bytes
        while self._seen_bytes > KEPT_BYTES and len(self._seen) > 1:
            self._seen_bytes -= self._seen.popitem(last=False)[1].size_bytes

    def _decode(self, path: str) -> tuple[Picture, Picture] | str:
        """The picture and the network's input, or the reason why there is none."""
        picture = self._read(path, self._spec.source_longest_side)
        if isinstance(picture, str):
            return picture
        inner = model_input(picture, self._spec)
        return (reduce_picture(picture, LONGEST_SIDE) if picture.size > KEPT_PIXELS else picture), inner

    def _read(self, path: str, longest_side: int) -> Picture | str:
        try:
            return read_picture(Path(path), max_pixels=self._max_pixels, longest_side=longest_side)
        except UnreadableInstanceError as error:
            return _DiskError(error)
        except PixelsError as error:
            return str(error)
        except MemoryError:
            return "could not be read: it needs more memory than the analysis process may use"
        except Exception as error:  # noqa: BLE001 - a picture may break a decoder in any way; it must not cost its neighbours
            lines = str(error).strip().splitlines() or [""]
            return f"could not be read: {type(error).__name__}: {lines[0][:200]}"
