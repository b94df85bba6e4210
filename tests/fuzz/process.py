"""One target in a process of its own, under libFuzzer: ``python -m tests.fuzz.process TARGET [libFuzzer's arguments]``."""

import importlib
import sys
from typing import Any

# No types of its own, and not on every system.
atheris: Any = importlib.import_module("atheris")


def main() -> None:
    name = sys.argv.pop(1)
    # What is imported in here tells libFuzzer of each branch that it takes.
    with atheris.instrument_imports(include=["transport", "proxy"]):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    atheris.Setup(sys.argv, targets[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
