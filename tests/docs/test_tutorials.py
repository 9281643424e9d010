"""What tutorials have their readers type works, and prints what they show."""

import importlib.util
import re
from pathlib import Path

import pytest
from places import ROOT
from tutorials import MARK, Command, File, commands, differences, follow, steps

from deepjudge_core.sandbox.confine import is_full

PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if f"\n{MARK}\n" in page.read_text("utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_can_be_followed(page: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    text = page.read_text("utf-8")
    if pytestconfig.getoption("--without-frameworks") or not is_full():
        pytest.skip("tutorials open models of frameworks, in the full sandbox")
    for module in re.findall(r"^<!-- needs ([\w.]+) -->$", text, re.MULTILINE):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the page needs {module}, which is not installed: pip install 'deepjudge[all,dev]'")
    folder = tmp_path / "walk"
    folder.mkdir()
    follow(text, folder, {"PYTHONPATH": ":".join(map(str, (ROOT, ROOT / "adapters", ROOT / "plugins")))})


def test_there_are_tutorials() -> None:
    assert "tutorial" in {page.stem for page in PAGES}
    for page in PAGES:
        assert any(isinstance(step, Command) and step.output for step in steps(page.read_text("utf-8"))), page


PAGE = """
<!-- hidden
```python
open("a.txt", "w").write("1 2.5\\n")
```
-->

```python
# sub/b.py
print("b")
```

```console
$ cat a.txt \\
    sub/b.py
1 2.50001
# sub/...
...
$ export NAME=world; cd sub
$ python b.py; exit 4
b
$ echo $?
4
$ echo hello $NAME; pwd
hello world
.../sub
```

```sh
false
```
"""


def test_what_a_page_asks_for() -> None:
    made, file, *typed = steps(PAGE)
    assert isinstance(made, Command)
    assert file == File("sub/b.py", '# sub/b.py\nprint("b")\n')
    assert [step.any_status for step in typed if isinstance(step, Command)] == [False, False, True, False, False]


def test_a_page_is_followed(tmp_path: Path) -> None:
    follow(PAGE, tmp_path, {})
    assert (tmp_path / "sub" / "b.py").exists()


@pytest.mark.parametrize(
    ("old", "new"), [("1 2.5\\n", "2 2.5\\n"), ("hello $NAME", "bye"), ("print(", "print(1, "), ("$ echo $?\n4\n", "")]
)
def test_a_page_that_says_something_else_fails(old: str, new: str, tmp_path: Path) -> None:
    assert old in PAGE
    with pytest.raises(AssertionError):
        follow(PAGE.replace(old, new), tmp_path, {})


@pytest.mark.parametrize(
    ("expected", "found", "alike"),
    [
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nd\n", True),
        ("a\n...\nd", "a\nb\n", False),
        ("took ... s", "took 12 s", True),
        ("x  0.5", "x 0.25", True),
        ("x 5", "x 6", False),
        ("│ a │ 1e-07 │", "┃  a  ┃ 2.5e-08  ┃", True),
        ("a", "", False),
        ("", "a", False),
        (f"digest {'0' * 64}", f"digest {'a1' * 32}", True),
    ],
)
def test_what_is_compared(expected: str, found: str, alike: bool) -> None:
    assert (differences(expected, found) == "") is alike


def test_whole_numbers_may_be_let_go() -> None:
    assert differences("175 cases of 200 by v2-a", "170 cases of 200 by v2-a")
    assert not differences("175 cases of 200 by v2-a", "170 cases of 201 by v2-a", numbers=True)
    assert differences("175 cases by v2-a", "175 cases by v3-a", numbers=True)


def test_commands_of_a_block() -> None:
    assert [(one.typed, one.output) for one in commands("$ a\n1\n2\n\n$ b \\\n  c\n")] == [
        ("a", "1\n2"),
        ("b \\\n  c", ""),
    ]
