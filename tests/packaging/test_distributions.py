"""What is in the sdist and in the wheel that is built of it, and what their metadata say."""

import subprocess
import sys
import tarfile
import tempfile
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

import tenios_async

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.no_canary
"""The tests are unpacked, listed and removed here, and the key that they use stands in them."""


def build(source, into, *what):
    """Without isolation, and so without a network: hatchling is in the environment of the tests."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", str(into), str(source)],
        check=True,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def sdist():
    """The unpacked source distribution. It is not left behind: at the end the canary would find the tests' own key in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(ROOT, folder, "--sdist")
        (archive,) = folder.glob("*.tar.gz")
        assert archive.name == f"tenios_async-{tenios_async.__version__}.tar.gz"
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        yield folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build(sdist, folder, "--wheel")
    (archive,) = folder.glob("*.whl")
    assert archive.name == f"tenios_async-{tenios_async.__version__}-py3-none-any.whl"
    with ZipFile(archive) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(wheel):
    return Parser().parsestr(wheel.read(f"tenios_async-{tenios_async.__version__}.dist-info/METADATA").decode())


def test_the_wheel_has_the_package_and_nothing_besides(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = ROOT / "tenios_async"
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    assert {"tenios_async/py.typed", "tenios_async/batch/report.css"} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_sdist_has_all_that_git_has(sdist):
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # where the machine lacks it
        pytest.skip("this is not a git checkout")
    missing = [name for name in listed.splitlines() if (ROOT / name).exists() and not (sdist / name).exists()]
    assert missing == []


@pytest.mark.timeout(300)
def test_the_sdist_can_run_its_tests(sdist):
    """All of them are found and import what they need; those of the pages run."""
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for arguments in (["--collect-only"], ["tests/docs", "-k", "links or make or kind"]):
        done = subprocess.run(
            [*pytest_, *arguments], cwd=sdist, capture_output=True, text=True, check=False, timeout=140
        )
        assert done.returncode == 0, done.stdout[-3000:]


def test_metadata(metadata):
    assert metadata["Name"] == "tenios_async"
    assert metadata["Version"] == tenios_async.__version__
    assert metadata["Author"] == "the tenios_async authors"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# tenios_async")
    assert set(metadata.get_all("Provides-Extra")) == {"cli", "distributed", "otel", "phone", "simulator"}
    classifiers = metadata.get_all("Classifier")
    assert "Typing :: Typed" in classifiers
    assert "Framework :: Pytest" in classifiers
    for url in metadata.get_all("Project-URL", []):
        assert "https://" in url


def test_every_requirement_has_a_lower_bound_and_no_upper_one(metadata):
    """A bound that was tested; what is new is not refused before it was tried."""
    for requirement in (line.partition(";")[0] for line in metadata.get_all("Requires-Dist")):
        assert "<" not in requirement
        assert ">=" in requirement or requirement.startswith("tzdata")


def test_entry_points(wheel):
    text = wheel.read(f"tenios_async-{tenios_async.__version__}.dist-info/entry_points.txt").decode()
    assert "tenios = tenios_async.__main__:main" in text
    assert "tenios_simulator = tenios_async.simulator.pytest_plugin" in text
