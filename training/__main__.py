"""`python -m training`, the same as `pacs-train`."""

from training.cli import main

main()
