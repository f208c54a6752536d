"""The manual pages say what the programs know: every key, verb, option, counter and exit status."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vpnd.config.names import SECTION_KEYS
from vpnd.control import EXIT_CODES, EXIT_DONE
from vpnd.ctl.main import load_verbs
from vpnd.daemon import main as daemon

ROOT = Path(__file__).resolve().parent.parent.parent
MANUAL = ROOT / "docs/man"
PAGES = ("vpnd.8", "vpnctl.8", "vpnd.toml.5", "vpnd-protocol.7")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("manual")
    for name in PAGES:
        words = [
            sys.executable,
            str(MANUAL / "manual.py"),
            str(MANUAL / f"{name}.md"),
            "0.1.0",
            str(folder / name),
        ]
        subprocess.run(words, check=True, timeout=60)
    return {name: folder / name for name in PAGES}


def plain(page: Path) -> str:
    """The page as text, with what roff makes of minus signs and the like undone."""
    text = re.sub(r"\\f[BIR]|\\&", "", page.read_text(encoding="utf-8"))
    return text.replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\(ti", "~").replace(r"\e", "\\")


def tagged(page: Path) -> list[str]:
    """The words that paragraphs of the page are about."""
    lines = plain(page).splitlines()
    return [lines[number + 1] for number, line in enumerate(lines) if line == ".TP"]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_without_a_warning(pages: dict[str, Path], name: str) -> None:
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("man-db or groff is not installed")
    done = subprocess.run(
        ["man", "--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(pages[name])],
        env=os.environ | {"LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("name", PAGES)
def test_nothing_of_the_markup_is_left_in_a_page(pages: dict[str, Path], name: str) -> None:
    text, _ = re.subn(r"(?s)\.nf\n.*?\.fi\n", "", plain(pages[name]))
    assert not re.search(r"\*\*|^\|.*\|$|^#+ |\]\(|\{include", text, re.MULTILINE)


@pytest.mark.parametrize("section", [name for name in SECTION_KEYS if name not in ("dns", "pool", "push")])
def test_every_key_has_its_paragraph(pages: dict[str, Path], section: str) -> None:
    assert set(SECTION_KEYS[section]) <= set(tagged(pages["vpnd.toml.5"]))


@pytest.mark.parametrize("section", SECTION_KEYS)
def test_every_section_is_named(pages: dict[str, Path], section: str) -> None:
    assert f"[{section}" in plain(pages["vpnd.toml.5"])


@pytest.mark.parametrize("verb", tuple(load_verbs()), ids=lambda verb: str(verb.name))
def test_every_verb_has_its_section_with_its_options(pages: dict[str, Path], verb: object) -> None:
    name, add_arguments = verb.name, verb.add_arguments  # type: ignore[attr-defined]
    text = plain(pages["vpnctl.8"])
    found = re.search(rf'(?ms)^\.SH "{name}\b.*?(?=^\.SH )', text)
    assert found is not None, f"no section of {name}"
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    for option in options_of(parser):
        assert option in found[0], f"{name} {option}"


def test_every_global_option_of_vpnctl_is_there(pages: dict[str, Path]) -> None:
    tags = " ".join(tagged(pages["vpnctl.8"]))
    for option in ("-i", "--instance", "--json", "--no-color", "--runtime-dir", "--config-dir", "--version"):
        assert option in tags


def test_every_exit_status_and_error_code_of_vpnctl_is_there(pages: dict[str, Path]) -> None:
    page = pages["vpnctl.8"]
    assert {str(status) for status in (EXIT_DONE, *EXIT_CODES.values())} <= set(tagged(page))
    assert all(code in plain(page) for code in EXIT_CODES)


def test_every_option_and_exit_status_of_the_daemon_is_there(
    pages: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        daemon.parse(["--help"])
    options = set(re.findall(r"(?<!\S)\[?(-[a-z]\b|--[a-z-]+)", capsys.readouterr().out))
    assert {"--instance", "--teardown", "--state-dir"} <= options
    tags = " ".join(tagged(pages["vpnd.8"]))
    assert {option for option in options if option not in tags} == set()
    statuses = {"0", str(daemon.EXIT_FAILED), str(daemon.EXIT_CONFIG)}
    assert statuses <= set(tagged(pages["vpnd.8"]))
