"""The commands: words of an administrator become one edited file, or one request to the daemon.

``main`` knows every command and imports only the one that is asked for. Each noun has its file. Commands
about mail ask the running daemon through ``client``; commands about settings edit the files through
``config.tenants``, ask the daemon to reload, and work without it. ``output`` is the only place that knows
about terminals: a command gives it rows, and a person gets a table where a pipe gets plain text.

An import is four steps: ``import_ark`` or ``import_postal`` read what is there into ``foreign``, ``import_plan``
holds it against ours, ``import_run`` shows, writes and reports. ``assistant_tools`` is the REST API once more, for
``mcp``.
``build`` is no command: it makes man pages, packages and completion of all of them, for who has the source.

Every command ends with 0 (done), 1 (refused or failed) or 2 (not understood), except ``sendmail``, whose
callers expect the codes of sysexits.h.
"""
