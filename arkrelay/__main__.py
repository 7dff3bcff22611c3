"""The program: ``serve`` runs the daemon, every other word is a command of ``arkrelay.cli``."""

import gc
import sys
from pathlib import Path


def main() -> int:
    """Run the command line of this process and return its exit status; called as ``sendmail``, behave as that."""
    name = Path(sys.argv[0]).name
    if name in {"sendmail", "newaliases", "mailq"}:
        from arkrelay.cli import sendmail  # noqa: PLC0415 -- only what this word needs is imported

        return sendmail.main(sys.argv[1:], name=name)
    from arkrelay.cli.main import run  # noqa: PLC0415 -- likewise

    return run(sys.argv[1:], serve=_serve)


def _serve(config: Path) -> int:
    gc.disable()  # 800 modules are no garbage, and looking for it costs 60 ms; ``daemon.main`` enables it again
    # structlog imports rich where it finds it, for tracebacks in colour: 30 ms and 5 MB that a log does not need
    sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's own word for "not there"
    from arkrelay import daemon  # noqa: PLC0415 -- the daemon brings every part with it; commands need few

    return int(daemon.main(config) or 0)


if __name__ == "__main__":
    sys.exit(main())
