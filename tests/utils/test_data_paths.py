"""What names in configs and episode files mean, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest

from memo_habitat.errors import UserError
from memo_habitat.utils.data_paths import resolve


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("data/models/vc1-base/pytorch_model.bin", "memo-habitat data get vc1"),
        ("data/mine/episodes/train.json.gz", "memo-habitat scenes generate"),
        ("weights/mine.pth", "correct it"),
    ],
)
def test_what_is_missing_is_told_with_how_to_get_it(path, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{path} .*{remedy}") as told:
        resolve(path)
    assert ("scenes generate" in str(told.value)) == ("scenes generate" in remedy)
