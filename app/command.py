"""The entry point of `charsmith`: small, so that Ctrl-C is heeded from the first moment on.

What the commands are made of takes half a second to import, and on a busy machine a few.
"""

import sys

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def main() -> None:
    """Run a command; after Ctrl-C end with 130 and no traceback."""
    try:
        from app.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
