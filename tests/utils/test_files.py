"""Atomic writes and JSON lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from memo_habitat.errors import UserError
from memo_habitat.utils.files import (
    append_json_line,
    atomic_path,
    atomic_write,
    read_json,
    read_json_lines,
    remove_unfinished,
    write_json,
    write_json_lines,
)


class Row(BaseModel):
    steps: int


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "made" / "file"
    atomic_write(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half of the ne")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    atomic_write(path, b"new")
    assert path.read_text() == "new"


def test_what_kills_left_of_files_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("weights", ".train.lock", ".hidden.tensors", "a.deadbeef")]
    for path in kept:
        path.touch()
    with atomic_path(tmp_path / "weights") as temporary:
        temporary.touch()
        (tmp_path / "copy").touch()
        killed = temporary.name
    (tmp_path / "copy").rename(tmp_path / killed)  # as it lies there after a kill
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below"
    with pytest.raises(UserError, match=f"cannot write {path}"):
        atomic_write(path, "x")
    with pytest.raises(UserError, match=f"cannot write {path}"):
        append_json_line(path, {})


def test_json_comes_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    write_json(path, {"steps": 1})
    assert read_json(path) == {"steps": 1}
    assert read_json(path, Row.model_validate) == Row(steps=1)


def test_json_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert list(read_json_lines(path)) == []
    write_json_lines(path, [{"steps": 1}])
    append_json_line(path, {"steps": 2})
    assert list(read_json_lines(path, Row.model_validate)) == [Row(steps=1), Row(steps=2)]


def test_only_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"steps": 1}\n{"steps": "\xc3')
    assert list(read_json_lines(path)) == [{"steps": 1}]
    path.write_text('{"steps": 1}\n{"steps":\n{"steps": 3}\n')
    with pytest.raises(UserError, match=f"{path}, line 2"):
        list(read_json_lines(path))


@pytest.mark.parametrize(
    ("line", "told"),
    [("[1]", "list"), ('{"steps": "many"}', "steps: .*integer"), ("[" * 100_000, "recursion")],
)
def test_what_is_malformed_is_told_with_file_line_and_field(
    tmp_path: Path, line: str, told: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=f"{path}, line 1 .*{told}"):
        list(read_json_lines(path, Row.model_validate))
    with pytest.raises(UserError, match=f"{path} .*{told}"):
        read_json(path, Row.model_validate)
