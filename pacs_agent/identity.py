"""How this implementation names itself to peers. PS3.7 D.3.3.2"""

from pacs_agent import __version__

# One for the program; a new one only when the encoding changes.
IMPLEMENTATION_CLASS_UID = "2.25.217284104316528014403189424061587433931"
IMPLEMENTATION_VERSION_NAME = f"PACS_AGENT_{__version__}"[:16]
