"""pacs-agent: a daemon beside a PACS that reads musculoskeletal radiographs and reports. Research software."""

from importlib.metadata import version

__version__ = version("pacs-agent")
