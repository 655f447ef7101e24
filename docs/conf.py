"""The site: pages of docs/ and of the repository's root, and an API reference from docstrings.

    sphinx-build -W --keep-going -c docs . build/site

The source is the whole repository, of which only pages are read: so links between pages, and from
pages to other files, are the same here as on a forge. Source code that pages link to becomes pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import fastlstm
from docutils import nodes
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx

project = "fastlstm"
author = copyright = "The fastlstm developers"
release = version = fastlstm.__version__

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]

myst_heading_anchors = 4  # as forges make them of headings

default_role = "py:obj"
autodoc_default_options = {
    "members": True,
    "imported-members": True,
    "member-order": "bysource",
}
autodoc_typehints = "none"  # docstrings say types in words
napoleon_google_docstring = False

html_theme = "furo"
html_title = f"fastlstm {release}"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
templates_path = ["site/templates"]
html_additional_pages = {"index": "forward.html"}  # the site's own address leads to the first page
html_copy_source = False
html_show_sourcelink = False
linkcheck_anchors = False

# Links to files of these kinds lead to pages that show them; others are downloads.
LANGUAGES = {".cff": "yaml", ".cpp": "cpp", ".h": "c", ".hpp": "cpp", ".py": "python"}


def keep_descriptions_whole(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Napoleon takes what is before a colon in the first line of an attribute for its type."""
    if what in ("attribute", "property") and lines:
        lines[0] = f": {lines[0]}"  # of no type


def resolve_words_of_types(app: Sphinx, doctree: nodes.document) -> None:
    """Of types in words only classes are links; where two have a name, to that of the layers."""
    for reference in list(doctree.findall(pending_xref)):
        target = reference["reftarget"]
        if not reference.get("refspecific") or "." in target:
            continue
        if not target[:1].isupper() or len(target) == 1:
            reference.replace_self(reference.children)
        elif target in fastlstm.__all__ and reference.get("py:module") != "fastlstm.torch":
            reference["reftarget"] = f"fastlstm.{target}"


def skip_what_scikit_learn_adds(
    app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object
) -> bool | None:
    """Methods for the routing of metadata, whose descriptions refer to its own pages."""
    return True if name.endswith(("_request", "metadata_routing")) else None


def language_of(path: str) -> str | None:
    return LANGUAGES.get(PurePosixPath(path).suffix)


def link_code(app: Sphinx, doctree: nodes.document) -> None:
    if app.builder.format != "html":
        return
    for link in list(doctree.findall(download_reference)):
        path, _ = app.env.relfn2path(link["reftarget"])
        if language_of(path):
            uri = app.builder.get_relative_uri(app.env.docname, f"code/{path}")
            link.replace_self(nodes.reference("", "", *link.children, refuri=uri, internal=True))


def pages_of_code(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    for path in app.env.dlfiles:
        if language := language_of(path):
            text = (app.srcdir / path).read_text(encoding="utf-8")
            body = app.builder.highlighter.highlight_block(text, language)
            title = f"<code>{path}</code>"
            body = f'<h1>{title}</h1><div class="whole-file">{body}</div>'
            yield f"code/{path}", {"title": title, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", keep_descriptions_whole, priority=400)  # before it
    app.connect("doctree-read", resolve_words_of_types)
    app.connect("autodoc-skip-member", skip_what_scikit_learn_adds)
    app.connect("doctree-read", link_code)
    app.connect("html-collect-pages", pages_of_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
