"""The built wheel holds every source and data file as a real file, and works away from the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = ("focusc", "ir", "isa", "backends")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the checkout's files, built in a copy so that no build folder is left behind or picked up."""
    source = tmp_path_factory.mktemp("source")
    for name in (*SHIPPED, "pyproject.toml", "README.md"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    return next(out.glob("focusc-*.whl"))


def test_every_file_of_the_four_folders_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        links = [info.filename for info in archive.infolist() if (info.external_attr >> 16) & 0o170000 == 0o120000]
    assert not links
    wanted = set()
    for folder in SHIPPED:
        prefix = "" if folder == "focusc" else "focusc/"
        for path in (ROOT / folder).rglob("*"):
            inside_link = any(parent.is_symlink() for parent in path.parents)
            if path.is_file() and not inside_link and path.suffix in {".py", ".toml", ".lark", ".safetensors", ".json"}:
                wanted.add(prefix + path.relative_to(ROOT).as_posix())
    assert not wanted - held


def test_the_unpacked_wheel_runs_elsewhere(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    probe = (
        "import focusc, focusc.ir, focusc.isa, focusc.backends\n"
        "for m in (focusc, focusc.ir, focusc.isa, focusc.backends): print(m.__file__)\n"
        "from focusc.backends import load_hardware\n"
        "print(load_hardware('focus').name, load_hardware('systolic').name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *files, names = done.stdout.split("\n")[:5]
    assert all(file.startswith(str(site)) for file in files)
    assert names == "focus systolic"
