"""The TypeScript client of web/client: whether it is generated from docs/openapi.json as that is, and compiles.

``python -m tests.web_client`` checks it, with ``--write`` it writes `src/schema.ts` anew. What it needs of npm is installed
into .cache, and the sources are copied there: nothing is made in the tree.
"""

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT, ServerError, install_node_project, node

PROJECT = ROOT / "web/client"
SCHEMA = PROJECT / "src/schema.ts"
_OPENAPI = ROOT / "docs/openapi.json"
_SOURCES = ("src/index.ts", "src/schema.ts", "example.ts", "tsconfig.json", "tsconfig.build.json")


def installed() -> Path:
    """A copy of the project with what it depends on."""
    place = install_node_project(PROJECT).parent
    for name in _SOURCES:
        source, copy = PROJECT / name, place / name
        if not source.exists() or (copy.exists() and filecmp.cmp(source, copy, shallow=False)):
            continue
        copy.parent.mkdir(exist_ok=True)
        # Moved: another run may be reading it.
        shutil.copyfile(source, copy.with_suffix(".new"))
        copy.with_suffix(".new").replace(copy)
    return place


def generated() -> str:
    """What `src/schema.ts` has to be."""
    # What a request may leave out is not required because it has a default.
    return _run("openapi-typescript/bin/cli.js", _OPENAPI, "--default-non-nullable", "false")


def faults() -> list[str]:
    """What is wrong; nothing where all is well."""
    found = []
    if SCHEMA.read_text() != generated():
        found.append("web/client/src/schema.ts is not current: write it anew with python -m tests.web_client --write")
    try:
        _run("typescript/bin/tsc")
    except ServerError as error:
        found.append(str(error))
    return found


def _run(program: str, *arguments: str | Path) -> str:
    place = installed()
    command = [node(), place / "node_modules" / program, *arguments]
    run = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise ServerError(f"web/client: {program} failed:\n{run.stdout}{run.stderr}")
    return run.stdout


def main(arguments: list[str]) -> int:
    """The exit status."""
    try:
        if arguments == ["--write"]:
            SCHEMA.write_text(generated())
        found = faults()
    except ServerError as error:
        found = [str(error)]
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
