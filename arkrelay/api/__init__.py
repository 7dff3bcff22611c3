"""The HTTP door: health, metrics, and what the command line needs, in the contract's shapes.

``app`` binds the sockets: every ``http`` listener of the configuration, and always ``state_dir/arkrelay.sock``,
the control socket, on which root and the service's own user need no key (SO_PEERCRED). ``connection`` stands
between a socket and aiohttp, and cuts who is slow or greedy. ``routes`` is the table of paths; they are served below
``/v1`` and at the root alike, because clients are configured with either (Ark contract §1). ``auth`` says who
asks, ``body`` and ``query`` read what is asked, ``shapes`` and ``errors`` write the answer. What goes in and out is
``model``'s types; ``openapi`` describes the API from them for programs, ``docs`` for people.

Answers follow Ark contract §2 and §3: ``{"success": true, "data", "meta"}``, pages with ``page``, ``perPage``,
``total`` and ``totalPages``, and errors with a code, a sentence and the field. A surprise of ours is a 500 with a
request id that stands beside the traceback in the log.

The dashboard (``web``) is a door of its own behind the same sockets: ``pages`` hands its requests on.

Nothing is decompressed, nothing is decided about mail: handlers read the store and call a verb of ``relay``.
"""
