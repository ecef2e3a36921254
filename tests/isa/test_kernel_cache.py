"""Compiled code does not outlive the sources that it was made from."""

from __future__ import annotations

from pathlib import Path

from focusc.isa.kernel_cache import drop_stale


def test_code_is_dropped_when_any_source_of_the_group_changes(tmp_path: Path) -> None:
    cache = tmp_path / "__pycache__"
    cache.mkdir()
    modules = ("outer", "inner")

    def compiled() -> set[str]:
        return {file.name for file in cache.iterdir() if file.suffix in (".nbi", ".nbc")}

    for name in modules:
        (tmp_path / f"{name}.py").write_text("first\n")
    names = {"outer.f-1.py311.nbi", "outer.f-1.py311.1.nbc", "inner.g-3.py311.nbi", "other.h-9.py311.nbi"}
    for name in names:
        (cache / name).touch()
    drop_stale(tmp_path, modules)  # nothing is known of this code
    assert compiled() == {"other.h-9.py311.nbi"}
    for name in names:
        (cache / name).touch()
    drop_stale(tmp_path, modules)
    assert compiled() == names
    (tmp_path / "inner.py").write_text("second\n")
    drop_stale(tmp_path, modules)
    assert compiled() == {"other.h-9.py311.nbi"}
    assert not list(cache.glob("*.tmp")) and len(list(cache.glob("outer.*"))) == 1


def test_a_folder_that_cannot_be_read_or_written_is_left_alone(tmp_path: Path) -> None:
    drop_stale(tmp_path / "missing", ("outer",))
    assert not (tmp_path / "missing").exists()
