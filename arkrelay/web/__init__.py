"""The dashboard: pages for people, rendered on the server, on listeners that serve ``dashboard``.

``dashboard`` says which requests are its own, keeps ``sessions`` and answers; ``routes`` is the table of pages. A
handler gets a ``visit`` and returns a template with its data, which ``render`` makes a page of, or leads elsewhere.
Each page has its file: ``overview``, ``messages`` and ``message``, ``domains``, ``credentials``, ``suppressions``,
``webhooks``, ``events``, ``usage`` (with ``charts``) and ``requests``. The daemon hands ``dashboard`` to the HTTP
door, which owns the sockets.

A page needs nothing but itself, one stylesheet and one script, works without the script, and loads nothing from
elsewhere. What peers and senders wrote is text on every page, and HTML only in a frame that may do nothing. Each read
walks an index from a place onwards, so a page costs the same with ten messages and with ten million.
"""
