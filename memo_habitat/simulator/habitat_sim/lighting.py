"""Image-based lighting, left out: it takes 10 s and more of CPU to prepare, and flat-shaded assets
do without it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

#: Where Habitat-Sim looks for its default below the working directory, and what it finds there:
#: of images that it does not find it makes nothing.
_FILE = "data/default.pbr_config.json"
_NONE = {"enable_ibl": False, "ibl_blut_filename": "none.png", "ibl_envmap_filename": "none.hdr"}
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def no_image_based_lighting() -> Iterator[None]:
    """Within: metadata mediators that are made light nothing by images.

    The working directory is another one meanwhile; paths should be absolute.
    """
    with _one_at_a_time, tempfile.TemporaryDirectory() as folder:
        file = Path(folder, _FILE)
        file.parent.mkdir()
        file.write_text(json.dumps(_NONE))
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
