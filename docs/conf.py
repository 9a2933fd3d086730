"""Sphinx's configuration; built with warnings as errors."""

project = "skyward_dask"
copyright = "2026, skyward_dask developers"  # noqa: A001  Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
autodoc_typehints = "none"
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "skyward_dask"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {
    "source_repository": "https://github.com/skyward-dask/skyward_dask/",
    "source_branch": "main",
    "source_directory": "docs/",
}
