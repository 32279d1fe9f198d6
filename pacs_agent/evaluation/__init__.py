"""Findings against what is known, or against each other: figures, tables, plots, a page. Pure."""
