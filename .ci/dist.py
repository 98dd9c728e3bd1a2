"""Build the sdist and the wheel, and check them: python .ci/dist.py FOLDER (needs the extra `release`)

Both stand in FOLDER if all is well: the sdist has the files of the commit and no others, the wheel the package alone,
in the same bytes whether it is built from the sdist or from here, and no link of the page on PyPI leads nowhere.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]


def run(*command: str | Path) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


def main(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} must be a new or an empty folder.")
    run(sys.executable, "-m", "build", "--outdir", folder, ".")  # the wheel from the sdist
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "here", ".")
    (sdist,), (wheel,), (again,) = folder.glob("*.tar.gz"), folder.glob("*.whl"), (folder / "here").glob("*.whl")
    same(wheel, again)
    again.unlink()
    again.parent.rmdir()
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    check_sdist(sdist)
    check_wheel(wheel)
    print(*(f"{file.name}  {file.stat().st_size / 1e3:.0f} kB" for file in (sdist, wheel)), sep="\n")


def same(wheel: Path, again: Path) -> None:
    """Refuse a wheel that is not the one that is built from the sources as they stand."""
    if wheel.read_bytes() != again.read_bytes():
        raise SystemExit("The wheel of the sdist is another than that of the sources.")


def check_sdist(sdist: Path) -> None:
    """Its files are those of the commit, with PKG-INFO."""
    with tarfile.open(sdist) as tar:
        inside = {PurePosixPath(name).relative_to(sdist.name.removesuffix(".tar.gz")).as_posix()
                  for name in (member.name for member in tar.getmembers() if member.isfile())}  # fmt: skip
    inside.remove("PKG-INFO")
    require(inside == committed(), f"sdist and commit differ: {sorted(inside ^ committed())}")


def check_wheel(wheel: Path) -> None:
    """It has the package, its marker of types, licence and table, and nothing that an installation would not use."""
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        (info,) = {name.split("/")[0] for name in names} - {"fallline"}
        shown = message_from_bytes(opened.read(f"{info}/METADATA"))
    package = {name.removeprefix("src/") for name in committed() if name.startswith("src/fallline/")}
    inside = {name for name in names if not name.startswith(info)}
    require(inside == package, f"wheel and package differ: {sorted(inside ^ package)}")
    require({"fallline/py.typed", f"{info}/licenses/LICENSE"} <= names, "the wheel lacks py.typed or the licence")
    text = shown.get_payload(decode=True).decode()
    links = re.findall(r"(?:\]\(|\b(?:src|href)=\")([^)\"#\s]+)", text)
    astray = [link for link in links if (ROOT / link).exists()]
    require(not astray, f"links that lead nowhere from PyPI: {astray}")


def committed() -> set[str]:
    return set(run("git", "ls-files", "-z").rstrip("\0").split("\0"))


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(otherwise)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
