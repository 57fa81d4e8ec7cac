"""The images that are shown beside a point: small PNG files as texts, from the digits that are embedded in the kit."""

import base64
import io
from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from rkdkit import data

EMBEDDED = "digits"
"""The dataset whose images are at hand wherever the site is made."""


def thumbnails(
    dataset: str,
    part: str,
    shown: Mapping[int, str],
    *,
    classes: Sequence[str] = (),
    n_train: int | None = None,
    n_val: int = 0,
) -> list[str]:
    """Return the images that an exhibit's CSV names by their index, as data URIs in the order of the index.

    Parameters
    ----------
    dataset : as `data.load` takes it; only the embedded digits, and selections of their classes, have images here.
    part : one of `data.PARTS`.
    shown : the class of each image that the CSV names, by its index.
    classes, n_train, n_val : as `Dataset.images`.

    Returns
    -------
    The data URIs of all images up to the last one named. It is empty for other datasets, and where the classes of the
    images found here are not those of the CSV: these are other images then.
    """
    if dataset.partition(":")[0] != EMBEDDED or not shown:
        return []
    loaded = data.load(dataset)
    split = loaded.images(part, n_train=n_train, n_val=n_val, classes=classes)
    found = [loaded.classes[label] for label in split.labels.tolist()]
    if any(index >= len(found) or found[index] != name for index, name in shown.items()):
        return []
    return [_data_uri(image) for image in split.images[: max(shown) + 1]]


def _data_uri(image: Tensor) -> str:
    """Return a (C, H, W) uint8 image of one or three channels as a PNG in a data URI."""
    pixels = image.permute(1, 2, 0).squeeze(2).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
