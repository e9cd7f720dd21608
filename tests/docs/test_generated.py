"""What is generated from the code is up to date: the option tables, the keys of the config, the reference config."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import generate_docs
import msgspec
import pytest

from pipeline.config import Config, load

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "configs" / "reference.toml"


@pytest.mark.parametrize("path", generate_docs.FILES, ids=lambda path: path.name)
def test_what_is_generated_is_up_to_date(path: Path) -> None:
    """The option tables and the keys say what the code says."""
    wanted = generate_docs.files()[path]
    assert path.read_text(encoding="utf-8") == wanted, "run python tests/support/generate_docs.py"


class Undocumented(msgspec.Struct):
    """A section with a key that nobody has documented."""

    first: int = 1
    """A key."""
    second: int = 2


def test_a_key_without_documentation_is_noticed() -> None:
    """Then nothing can be generated."""
    with pytest.raises(LookupError, match=r"Undocumented\.second"):
        generate_docs.documentation(Undocumented)


# -- configs/


def test_the_reference_config_is_every_key_with_its_default() -> None:
    """Section by section: each key once, in the order of the code; what is in force is the default."""
    text = REFERENCE.read_text(encoding="utf-8")
    assert load(str(REFERENCE), {}) == Config()
    sections = re.split(r"^\[(\w+)\]$", text, flags=re.MULTILINE)[1:]
    found = {
        name: re.findall(r"^(?:# )?(\w+) = ", body, re.MULTILINE)
        for name, body in zip(sections[0::2], sections[1::2], strict=True)
    }
    assert found == {name: list(get_type_hints(struct)) for name, struct in get_type_hints(Config).items()}


def test_the_examples_of_the_reference_config_are_valid(tmp_path: Path) -> None:
    """Every example, put in force, is a value that its key takes."""
    text = REFERENCE.read_text(encoding="utf-8")
    examples = re.findall(r"^# Example: (\w+) = .*\n(?!\1 = )", text, re.MULTILINE)
    assert not examples, "an example stands above its key"
    text = re.sub(r"^# Example: (\w+ = .*)\n.*$", r"\1", text, flags=re.MULTILINE)
    (tmp_path / "config.toml").write_text(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    config = msgspec.to_builtins(load(str(tmp_path / "config.toml"), {}))
    for section, keys in config.items():
        for key, value in keys.items():
            assert value is not None, f"{section}.{key}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.name)
def test_the_sample_configs_are_valid(path: Path) -> None:
    """Also with every key that is commented out, one at a time."""
    load(str(path), {})
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        section = found[1] if (found := re.fullmatch(r"\[(\w+)\]", line)) else section
        if key := re.match(r"# (\w+) = ", line):
            assert key[1] in get_type_hints(get_type_hints(Config)[section]), f"{section}.{key[1]}"
