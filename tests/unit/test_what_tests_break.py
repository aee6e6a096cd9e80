"""What tests break in a process or in a copy of the package is there to be broken.

A name that has moved is found here, and not by the test in a container that needs it.
"""

from __future__ import annotations

import ast
import os
import shutil
import sqlite3
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from ai_ticket_daemon.store.sqlite.schema import MIGRATIONS
from tests.support.project import ROOT
from tests.support.system.service_host import add_to_schema, break_start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = "ai_ticket_daemon"


def programs() -> Iterator[tuple[str, ast.Module]]:
    """Yield the tests, and what they have other processes run, each with where it is."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text())
        yield str(path.relative_to(ROOT)), tree
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and f"from {PACKAGE} " in str(node.value):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.parse(str(node.value))


def broken_names(program: ast.Module) -> Iterator[tuple[Any, str]]:
    """Yield the owner and the name of each attribute of the package that a program replaces."""
    imported = dict(_imported(program))
    for node in ast.walk(program):
        match node:
            case ast.Assign(targets=[ast.Attribute(value=owner, attr=name)]):
                names = [name]
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Call(func=ast.Name(id="vars"), args=[owner]), attr="update"
                ),
                keywords=keywords,
            ):
                names = [keyword.arg or "" for keyword in keywords]
            case _:
                continue
        path = ast.unparse(owner).split(".")
        if path[0] in imported:
            found = imported[path[0]]
            for part in path[1:]:
                found = getattr(found, part)
            yield from ((found, name) for name in names)


def _imported(program: ast.Module) -> Iterator[tuple[str, Any]]:
    for node in program.body:
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == PACKAGE:
            for alias in node.names:
                yield alias.asname or alias.name, _find(str(node.module), alias.name)


def _find(module: str, name: str) -> Any:
    found = import_module(module)
    return getattr(found, name) if hasattr(found, name) else import_module(f"{module}.{name}")


def test_every_name_that_a_program_of_the_tests_replaces_exists() -> None:
    replaced = [(where, *each) for where, tree in programs() for each in broken_names(tree)]

    assert [each for each in replaced if not hasattr(each[1], each[2])] == []
    assert {name for _, _, name in replaced} >= {
        "Daemon", "INTERVAL_SECONDS", "_actions", "_show_tasks", "_toggle_debug",
    }  # fmt: skip


@pytest.mark.parametrize(
    "line", ["app.Daemon._gone = None", "vars(app).update(Gone=None)", "app.gone = None"]
)
def test_a_name_that_is_gone_is_found(line: str) -> None:
    [(owner, name)] = broken_names(ast.parse(f"from {PACKAGE} import app\n{line}"))

    assert not hasattr(owner, name)


def test_the_version_that_does_not_start_fails_once_it_has_migrated_the_store(
    tmp_path: Path,
) -> None:
    copy, store, conf = tmp_path / PACKAGE, tmp_path / "events.db", tmp_path / "a.conf"
    shutil.copytree(ROOT / PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "testing"))
    add_to_schema(copy)
    break_start(copy)
    conf.write_text(
        f'http.bind = ["127.0.0.1:0"]\nmetrics.bind = "127.0.0.1:0"\ncontrol.socket = ""\n'
        f'store.url = "sqlite:///{store}"\ntelemetry.traces = "none"\n'
        '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:1"\n'
    )

    done = subprocess.run(
        [sys.executable, "-m", PACKAGE, "--config", conf],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert "this version is broken" in done.stderr, done
    assert str(copy) in done.stderr
    assert done.returncode == 70
    with sqlite3.connect(store) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    file.close()
