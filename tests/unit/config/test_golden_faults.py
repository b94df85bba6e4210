"""Bad documents and what is said of them: each `tests/golden/config/NAME.yaml` has its lines in `NAME.faults`.

To add a case, add a file and run this with `UPDATE_GOLDEN=1`; then read what was written.
"""

import os
from pathlib import Path

import pytest

from config.faults import ConfigFaults
from config.load import load

GOLDEN = Path(__file__).parents[2] / "golden" / "config"
ENVIRONMENT = {"SET": "a-value-that-no-message-shows", "EMPTY": ""}


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.yaml")))
def test_a_bad_document_is_told_every_fault_with_its_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)  # so that messages name the files without a path of this machine
    with pytest.raises(ConfigFaults) as refused:
        load(f"{name}.yaml", ENVIRONMENT)
    told = f"{refused.value}\n"
    if os.environ.get("UPDATE_GOLDEN"):
        Path(f"{name}.faults").write_text(told, encoding="utf-8")
    assert Path(f"{name}.faults").read_text(encoding="utf-8") == told


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.faults")), ids=lambda path: path.stem)
def test_no_message_shows_a_value_of_the_environment(path: Path) -> None:
    assert ENVIRONMENT["SET"] not in path.read_text(encoding="utf-8")
    assert "password/" not in path.read_text(encoding="utf-8")
    assert "a-piece" not in path.read_text(encoding="utf-8")
    assert path.with_suffix(".yaml").exists(), "a .faults file without its document"
