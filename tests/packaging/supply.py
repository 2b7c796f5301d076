"""`make audit` and `make sbom`: what the wheel brings with all its extras, in a clean environment of its own.

Neither looks at what only tests and benchmarks use. Both need the package index, and the audit the service in which
vulnerabilities are published too; where that cannot be asked, it fails.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from wheel import OF_EXTRA, ROOT, environment

TOOLS = Path(sys.executable).parent


def audit(python: Path, folder: Path) -> None:
    """Asks for known vulnerabilities of each dependency at its newest version."""
    freeze = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "freeze"]
    pinned = subprocess.run([*freeze, "--exclude", "tenios_async"], check=True, capture_output=True, text=True).stdout
    (folder / "requirements.txt").write_text(pinned, encoding="utf-8")
    options = ["--strict", "--progress-spinner=off", "--disable-pip", "--no-deps", "-r", "requirements.txt"]
    if subprocess.run([TOOLS / "pip-audit", *options], check=False, cwd=folder).returncode:
        sys.exit("audit: not passed: something is known of a dependency, or the service could not be asked; see above")


def sbom(python: Path, folder: Path, wheel: Path) -> Path:
    """A bill of materials in CycloneDX's JSON beside the wheel; the same for the same dependencies."""
    name, version, *_ = wheel.name.split("-")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    said = project.replace(
        'dynamic = ["version"]', f'version = "{version}"'
    )  # hatchling knows it, CycloneDX's tool not
    assert said != project
    (folder / "pyproject.toml").write_text(said, encoding="utf-8")
    bill = wheel.with_name(f"{name}-{version}.cdx.json")
    options = ["--pyproject", folder / "pyproject.toml", "--mc-type", "library", "--output-reproducible", "-o", bill]
    subprocess.run([TOOLS / "cyclonedx-py", "environment", *options, python], check=True)
    return bill


def main(what: str, wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = environment(folder / "env", f"{wheel}[{','.join(OF_EXTRA)}]")
        if what == "audit":
            audit(python, folder)
        else:
            print(sbom(python, folder, wheel).relative_to(Path.cwd()))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
