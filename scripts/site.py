"""MkDocs hook: adds README.md, CONTRIBUTING.md and SECURITY.md to the site and rewrites links to them."""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}  # file in the project's root -> page of the site
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config, **_) -> Files:
    """Add the pages outside docs/, and the project's files that pages link to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "examples").iterdir()):
        if path.is_file():
            files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Rewrite a page's links from project paths to site paths."""
    beside = ROOT if page.file.src_uri in PAGES.values() else ROOT / "docs"
    return LINK.sub(lambda link: f"]({_on_site(link[1], beside)}{link[2] or ''})", markdown)


def _on_site(target: str, beside: Path) -> str:
    if not target:
        return target
    path = (beside / target).resolve()
    if not path.is_relative_to(ROOT):
        return target
    named = path.relative_to(ROOT).as_posix()
    return PAGES.get(named, named.removeprefix("docs/"))
