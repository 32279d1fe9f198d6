"""`python -m pacs_agent`: the same as `pacs-agent`."""

from pacs_agent.cli import main

if __name__ == "__main__":
    main()
