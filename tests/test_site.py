"""The documentation site, built as it is published."""

import os
import subprocess
import sys

from commands import ROOT


def test_the_site_is_built_without_broken_links(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {path.parent.name for path in (tmp_path / "site").glob("*/index.html")}
    assert pages >= {path.stem for path in (ROOT / "docs").glob("*.md")} | {"contributing"}
    assert "own_data/" in (tmp_path / "site/index.html").read_text()


def test_a_broken_link_fails_the_build(tmp_path):
    """The other test relies on this strictness of the build."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Page\n\n[gone](gone.md)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nvalidation: {not_found: warn}\n")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode and "gone.md" in built.stdout + built.stderr
