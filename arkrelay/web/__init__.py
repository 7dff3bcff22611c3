"""Doors for people: the dashboard for who runs this (listeners that serve ``dashboard``), and what recipients meet
of us without a key (those that serve ``public``). The daemon hands both to the HTTP door, which owns the sockets.

The world: ``site`` says what is ours. On the host name of a track domain nothing is answered but its pixel and its
links (``track``), on any other name the pages below ``/u/`` (``unsubscribe``). ``client`` says who asks and how often
that may be. Nothing that a request says is ever shown again, no cookie is set, no script runs, and no answer leads
anywhere but to a link that a tenant wrote. What cannot be answered is a short plain text.

The dashboard: ``dashboard`` says which requests are its own, keeps ``sessions`` and answers; ``routes`` is the table
of pages. A handler gets a ``visit`` and returns a template with its data, which ``render`` makes a page of, or leads
elsewhere. Each page has its file: ``overview``, ``messages`` (with ``bulk``) and ``message``, ``domains``,
``credentials``, ``suppressions``, ``webhooks`` (with ``hookform``) and ``deliveries``, ``events``, ``usage`` (with
``charts``), ``requests`` and ``doctor``.

A page needs nothing but itself, one stylesheet and one script, works without the script, and loads nothing from
elsewhere. What peers and senders wrote is text on every page, and HTML only in a frame that may do nothing. Each read
walks an index from a place onwards, so a page costs the same with ten messages and with ten million.
"""
