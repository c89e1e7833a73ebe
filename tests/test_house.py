"""The tree in README and CONTRIBUTING is the package's, and light things stay light."""

import ast
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "sentiment_core"
LAYERS = (
    "data", "metrics", "figures", "artifacts", "models", "engines", "engines/packed", "training",
    "evaluation", "evaluation/systems", "live", "benchmarks", "dashboard", "dashboard/tabs",
    "dashboard/components", "publishing",
)  # fmt: skip
BEGIN, END = "<!-- tree:begin -->\n", "<!-- tree:end -->"


def tree(*, brief: bool = False) -> str:
    """Each package with its modules and, unless brief, its docstring, in the order of the layers."""

    def modules(folder: Path) -> str:
        names = [path.stem for path in sorted(folder.glob("*.py")) if not path.stem.startswith("__")]
        return " ".join(names)

    lines = [f"sentiment_core/: {modules(CORE)}"]
    for name in LAYERS:
        folder = CORE / name
        says = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        lines.append(f"{name}/: {modules(folder)}")
        if not brief:
            lines += [f"    {line}" for line in textwrap.wrap(" ".join(says.split()), 96)]
    return "```\n" + "\n".join(lines) + "\n```\n"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_tree_is_the_packages_own(name: str) -> None:
    """`python -m tests.test_house` writes it."""
    text = (ROOT / name).read_text()
    assert text.split(BEGIN)[1].split(END)[0] == tree(brief=name == "CONTRIBUTING.md")


def test_every_package_is_in_the_tree_and_says_where_to_begin() -> None:
    packages = {path.parent.relative_to(CORE).as_posix() for path in CORE.rglob("__init__.py")} - {"."}
    assert packages == set(LAYERS)
    for name in packages:
        content = ast.parse((CORE / name / "__init__.py").read_text())
        assert [type(node) for node in content.body] == [ast.Expr], f"{name} holds a docstring only"
        assert "read " in (ast.get_docstring(content) or "").lower()


def test_no_module_is_longer_than_400_lines_nor_readme_than_200_nor_contributing_than_60() -> None:
    assert [p.name for p in CORE.rglob("*.py") if len(p.read_text().splitlines()) > 400] == []
    for name, most in (("README.md", 200), ("CONTRIBUTING.md", 60)):
        assert len((ROOT / name).read_text().splitlines()) <= most


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=str)
def test_what_a_document_links_to_is_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        name, _, heading = target.partition("#")
        if not name.startswith("http"):
            assert (path.parent / name).exists(), target
            titles = re.findall(r"^#+ (.*)", (path.parent / name).read_text(), re.M) if heading else [heading]
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_help_imports_the_standard_library_alone(script: str) -> None:
    code = f"""
        import runpy, sys
        sys.argv = ["{script}", "--help"]
        try:
            runpy.run_path("{script}", run_name="__main__")
        except SystemExit:
            print(sorted({{"torch", "pandas", "numpy", "pydantic"}} & set(sys.modules)), file=sys.stderr)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "--dataset" in done.stdout


@pytest.mark.slow
def test_an_installed_package_works_from_any_folder(tmp_path: Path) -> None:
    """Built as pip does, run elsewhere: the page finds its templates and that folder's artifacts."""
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path]
    copy = tmp_path / "source"
    wanted = ["sentiment_core", "*.py", "*.toml", "*.txt", "README.md", "LICENSE"]
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *wanted], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.split():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, *build, copy], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "assets" / "runs" / "unfinished").mkdir(parents=True)
    code = """if True:
        import app, sentiment_core.config as c, importlib.metadata as installed
        from sentiment_core.publishing.card import TEMPLATE
        print(c.ASSETS, app.__file__, len(app.demo.blocks) > 50, TEMPLATE.exists())
        commands = installed.entry_points(group="console_scripts")
        print(*sorted(c.name for c in commands if c.name.startswith("sentiment-") and callable(c.load())))
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SENTIMENT")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True,
        env=environment | {"PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    placed, commands = done.stdout.splitlines()
    assert placed.split() == [str(elsewhere / "assets"), str(tmp_path / "site" / "app.py"), "True", "True"]
    assert commands.split() == ["sentiment-app", "sentiment-eval", "sentiment-train"]


if __name__ == "__main__":
    for file in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        before, rest = file.read_text().split(BEGIN)
        brief = file.name == "CONTRIBUTING.md"
        file.write_text(before + BEGIN + tree(brief=brief) + END + rest.split(END)[1])
