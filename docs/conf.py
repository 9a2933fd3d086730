"""Sphinx's configuration; built with warnings as errors."""

project = "skyward_dask"
copyright = "2026, skyward_dask developers"  # noqa: A001  Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
autodoc_typehints = "none"
exclude_patterns = ["_build"]
