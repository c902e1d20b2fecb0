"""`edgec-agent`: the agent's commands and the service's, where edgec itself is installed on the device."""

from __future__ import annotations

import sys

_OF_SERVICE = ("serve", "install", "unit")


def main() -> int:
    """Run one command; its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] and arguments[0] in _OF_SERVICE:
        from edgec.service.main import main as service

        return service(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(f"Of the service: {', '.join(_OF_SERVICE)} (edgec-agent serve --help). Of the agent:\n\n")
    from edgec.runners.agent import main as agent

    return agent(arguments)
