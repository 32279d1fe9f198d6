"""Are there known vulnerabilities in the versions of constraints.txt? Asks with pip-audit, or says why it does not.

Exit code 0 good or skipped, 1 where any is known, or where the service does not know a package. Nothing leaves the
machine unless AUDIT=online: the question names every package, and a machine in a hospital shall not ask unbidden.
"""

import importlib.util
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

SERVICE = "https://pypi.org/"
PINS = Path(__file__).with_name("constraints.txt")


def skipped_because(service: str) -> str | None:
    """Why nothing can or shall be asked; None where it can."""
    if os.environ.get("AUDIT") != "online":
        return f"it would ask {service} about every package; AUDIT=online lets it"
    if importlib.util.find_spec("pip_audit") is None:
        return "pip-audit is not installed (extra `test`)"
    try:
        urllib.request.urlopen(urllib.request.Request(service, method="HEAD"), timeout=10).close()
    except OSError as error:
        return f"{service} cannot be reached: {error}"
    return None


def main(service: str = SERVICE) -> int:
    """Ask, and pass on what pip-audit says."""
    if reason := skipped_because(service):
        print(f"audit skipped: {reason}")
        return 0
    # As they are pinned: nothing is resolved, downloaded or built.
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(PINS), "--no-deps", "--disable-pip"]
    command.append("--strict")  # what the service does not know is not free of anything
    return subprocess.run([*command, "--progress-spinner", "off"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
