"""What training foresaw may go wrong, beside the tree of `pacs_agent.errors`."""

from pacs_agent.errors import PacsAgentError


class TrainingError(PacsAgentError):
    """Training cannot go on; the message says why, in one line for a person."""
