"""From a MURA folder to an evaluated bundle. Imports the network and the preprocessing from pacs_agent.analyse."""
