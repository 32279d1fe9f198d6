"""Images in, their studies out as arrays: what is averaged, judged and counted. Pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacs_agent.evaluation.metrics import Scored, figure_values, study_means
from training.mura import Image

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Studies:
    """The studies of N images.

    Attributes:
        of_image: int64 (N,), the study of each image.
        patients: int64 (S,).
        parts: S names.
        labels: bool (S,), True abnormal.
    """

    of_image: NDArray[np.int64]
    patients: NDArray[np.int64]
    parts: NDArray[np.str_]
    labels: NDArray[np.bool_]

    def means(self, probabilities: Floats) -> Floats:
        """(N,) of images to (S,): the arithmetic mean (MURA's rule)."""
        return study_means(self.of_image, probabilities, len(self.labels))[0]

    def scored(self, probabilities: Floats, thresholds: Floats | float = 0.5) -> Scored:
        """(S,) probabilities, with the threshold of each, as metrics.py wants them."""
        broadcast = np.broadcast_to(np.asarray(thresholds, np.float64), self.labels.shape)
        return Scored(self.patients, self.parts, self.labels, probabilities, broadcast)


def studies_of(images: Sequence[Image]) -> Studies:
    """The studies of some images, in the order of their keys."""
    keys, first, of_image = np.unique([image.study for image in images], return_index=True, return_inverse=True)
    del keys
    patients = np.unique([images[index].patient for index in first], return_inverse=True)[1]
    return Studies(
        of_image.astype(np.int64),
        patients.astype(np.int64),
        np.array([images[index].part for index in first], np.str_),
        np.array([images[index].label == 1 for index in first], np.bool_),
    )


def choosing_figures(studies: Studies, probabilities: Floats) -> dict[str, float]:
    """Figures of a hold-out by which an epoch is chosen: `score` is the AUROC of the studies' means.

    AUROC, because thresholds are chosen later, on studies that chose nothing.
    """
    values = figure_values(studies.scored(studies.means(probabilities)))
    return {"score": values["auroc"], "auroc": values["auroc"], "kappa_at_half": values["kappa"]}
