"""What README and the pages name exists: modules, targets, files, links, options. Nothing is run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.option_help import options_of
from scripts.options_doc import SECTIONS

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")])
CODE_FOLDERS = ("cli", "storage", "schemas", "jobs", "esmm", "scripts", "benchmarks")
FOLDERS = (*CODE_FOLDERS, "airflow_dags", "tests", "configs", "docs", "requirements")
HISTORY = "CHANGELOG.md"  # names what there was, too

FENCED = re.compile(r"^```.*?\n(.*?)^```", re.M | re.S)
INDENTED = re.compile(r"^(?: {4}.*\n)+", re.M)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


def code_of(page: Path) -> list[str]:
    """Blocks and `words` of a page; commands over several lines are one."""
    text = page.read_text()
    blocks = FENCED.findall(text) + INDENTED.findall(text)
    return [block.replace("\\\n", " ") for block in blocks] + INLINE.findall(FENCED.sub("", text))


def found(pattern: str, page: Path) -> list[str]:
    return [match for code in code_of(page) for match in re.findall(pattern, code)]


def is_module(name: str) -> bool:
    path = PROJECT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@every_page
def test_modules_exist(page: Path) -> None:
    if page.name == HISTORY:
        return
    packages = "|".join(CODE_FOLDERS)
    names = found(rf"(?<![\w./])((?:{packages})(?:\.[a-z_]+)+)\b(?!/)", page)
    named = {name for name in names if not name.endswith((".py", ".md", ".zip"))}
    assert [name for name in sorted(named) if not is_module(name)] == []


@every_page
def test_imported_names_exist(page: Path) -> None:
    for module, names in found(r"from ((?:jobs|esmm|schemas|cli|storage)[\w.]*) import ([\w, ]+)", page):
        path = PROJECT / module.replace(".", "/")
        for name in names.split(", "):
            text = path.with_suffix(".py").read_text() if path.with_suffix(".py").is_file() else ""
            assert is_module(f"{module}.{name}") or re.search(rf"^(def|class) {name}\b|^{name}\b", text, re.M)


@every_page
def test_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (PROJECT / "Makefile").read_text(), re.M))
    assert set(found(r"\bmake ([a-z][a-z-]*)", page)) <= targets


@every_page
def test_files_exist(page: Path) -> None:
    folders = "|".join(FOLDERS)
    paths = found(rf"(?<![\w./$*-])((?:{folders})/[\w./*-]*)", page)
    assert [path for path in paths if not stands(path.rstrip("./"))] == []


def stands(path: str) -> bool:
    """Whether there is such a file or folder; a command, as in `jobs/build_samples`, has no ending."""
    return any(PROJECT.glob(path)) or (PROJECT / f"{path}.py").is_file()


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


OPTIONS = {option.name for section, model in SECTIONS.items() for option in options_of(section, model)}


@every_page
def test_options_exist(page: Path) -> None:
    sections = "|".join(SECTIONS)
    named = found(rf"(?<![\w./*])((?:{sections})\.[a-z_][a-z_.0-9]*)(?=$|[\s=:;,`)])", page)
    written = {name.rstrip(".") for name in named if not name.endswith((".py", ".log", ".jsonl", ".json"))}
    known = OPTIONS | {name.rpartition(".")[0] for name in OPTIONS}
    assert [name for name in sorted(written) if name not in known] == []


COMMAND = re.compile(r"(jobs|esmm|scripts|benchmarks)[./]")


def commands(page: Path) -> Iterator[list[str]]:
    for code in code_of(page):
        for line in code.splitlines():
            if re.search(rf"(python -m|spark-submit.*) {COMMAND.pattern}", line):
                yield shlex.split(line, comments=True)


@every_page
def test_options_of_commands_exist(page: Path) -> None:
    folders = (PROJECT / name for name in CODE_FOLDERS)
    code = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    for words in commands(page):
        command = next(i for i, word in enumerate(words) if COMMAND.match(word))
        flags = {word.partition("=")[0] for word in words[command:] if word.startswith("--")} - {"--help"}
        assert [flag for flag in flags if f'"{flag}"' not in code] == [], words


def test_every_page_is_in_the_index() -> None:
    index = (PROJECT / "docs" / "README.md").read_text()
    names = {page.name for page in PROJECT.glob("docs/*.md")} - {"README.md"}
    assert {name for name in names if f"]({name})" not in index} == set()
