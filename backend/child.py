"""`python -m backend.child COMMAND ...`: a command that ends with its parent.

The parent holds the other end of standard input: when it is killed, that end
closes, and nothing is left running that nobody watches.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def _end_with_parent() -> None:
    # Not through sys.stdin: its lock, held here, would break the command's own exit.
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    from backend.cli import main as command_line

    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
