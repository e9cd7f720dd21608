"""Seed each bug in a copy of the project, and see a test notice it.

    python tests/mutations/run.py [NAME ...]

NAME is a part of a mutation's name; without one all are seeded. Nothing of the working tree is touched: what is there
at the start is copied once, and each bug goes into a copy of that copy.

Exit code 1: a bug survived, or no longer applies. 2: no such mutation, or the tests fail without any bug.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # as pytest and mypy see it

from mutations.seeded import MUTATIONS, Mutation  # noqa: E402

NEEDED = ("pipeline", "tests", "configs", "data", "pyproject.toml", "README.md")
NOT_NEEDED = shutil.ignore_patterns("__pycache__", "build", ".venv*", "vllm-venv")
SECONDS = 60  # for one test
TESTS_FAILED = 1  # pytest's exit code; any other but 0 says that it could not run them


def main(names: list[str]) -> int:
    """Seed the mutations whose name holds one of `names`, one after the other."""
    chosen = [each for each in MUTATIONS if not names or any(name in each.name for name in names)]
    if not chosen:
        print(f"no mutation's name holds {' or '.join(map(repr, names))}")
        return 2
    os.nice(10)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        sound = Path(folder) / "sound"
        copy_of(ROOT, sound)
        refuse_another_pipeline(sound)
        done = tested(sound, dict.fromkeys(test for each in chosen for test in each.tests))
        if done.returncode:
            print(f"{done.stdout}\nthe tests fail without any bug")
            return 2
        print(f"{'sound':<10} {time.monotonic() - began:5.1f} s  all the tests chosen, without a bug", flush=True)
        verdicts = [verdict_on(each, sound, Path(folder) / "seeded") for each in chosen]
    killed = verdicts.count("killed")
    print(f"{killed} of {len(chosen)} killed in {time.monotonic() - began:.0f} s")
    return 0 if killed == len(chosen) else 1


def copy_of(source: Path, folder: Path) -> None:
    """What the tests need of a project, without what they make."""
    folder.mkdir()
    for name in NEEDED:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=NOT_NEEDED)
        else:
            shutil.copy2(source / name, folder / name)


def verdict_on(mutation: Mutation, sound: Path, folder: Path) -> str:
    """Seed one bug, say what became of it, and take the copy away."""
    began, output = time.monotonic(), ""
    code = (sound / "pipeline" / mutation.file).read_text(encoding="utf-8")
    if code.count(mutation.old) != 1 or mutation.old == mutation.new:
        verdict, output = "NO PLACE", f"{mutation.file} holds it {code.count(mutation.old)} times:\n{mutation.old}"
    else:
        shutil.copytree(sound, folder)
        (folder / "pipeline" / mutation.file).write_text(code.replace(mutation.old, mutation.new), encoding="utf-8")
        done = tested(folder, mutation.tests)
        verdict = {0: "SURVIVED", TESTS_FAILED: "killed"}.get(done.returncode, "NOT RUN")
        output = done.stdout if verdict == "NOT RUN" else ""
        shutil.rmtree(folder)
    print(f"{verdict:<10} {time.monotonic() - began:5.1f} s  {mutation.name}", flush=True)
    if output:
        print(output)
    return verdict


def tested(folder: Path, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy, up to the first failure: always the same examples, and no verdict by a stray warning."""
    without = [word for name in ("randomly", "cacheprovider", "unraisableexception") for word in ("-p", f"no:{name}")]
    flags = ["-x", "-q", "--hypothesis-profile=ci", "--timeout", str(SECONDS)]
    return python(folder, "-m", "pytest", *without, *flags, *(f"tests/{test}" for test in tests))


def refuse_another_pipeline(folder: Path) -> None:
    """The project is installed in editable mode: see that the copy is imported all the same, `python -P` included."""
    for flags in ((), ("-P",)):
        found = python(folder, *flags, "-c", "import pipeline; print(pipeline.__file__)", within="/").stdout.strip()
        if Path(found).resolve() != (folder / "pipeline" / "__init__.py").resolve():
            raise SystemExit(f"the tests would import {found}, not the copy in {folder}")


def python(folder: Path, *arguments: str, within: str = "") -> subprocess.CompletedProcess[str]:
    """Run our interpreter with the copy in front of all that is installed, for the processes it starts, too."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=within or folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
