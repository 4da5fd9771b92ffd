#!/usr/bin/env python3
"""Resolves scripts/requirements/NAME.in into NAME.txt: exact versions with the hashes of their files.

    scripts/lock_requirements.py [NAME...]      (default: every .in file)

Run it after changing a .in file, with the Python version that scripts/bootstrap.sh uses, and commit the result.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parent / "requirements"


def lock(name: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
             "--report", report.name, "--requirement", str(FOLDER / f"{name}.in")], check=True)
        packages = json.load(open(report.name, encoding="utf-8"))["install"]
    lines = [f"# Made by scripts/lock_requirements.py from {name}.in."]
    for package in sorted(packages, key=lambda p: p["metadata"]["name"].lower()):
        metadata = package["metadata"]
        sha256 = package["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{metadata['name']}=={metadata['version']} --hash=sha256:{sha256}")
    (FOLDER / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{name}.txt: {len(packages)} packages")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.in")):
        lock(name)
