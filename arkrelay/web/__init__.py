"""The door for the world: what recipients meet of us, without a key (listeners that serve ``public``).

``site`` says what is ours: on the host name of a track domain nothing is answered but its pixel and its links
(``track``), on any other name the pages below ``/u/`` (``unsubscribe``). ``client`` says who asks and how often that
may be. The daemon hands ``site`` to the HTTP door, which owns the sockets.

Nothing that a request says is ever shown again, no cookie is set, no script runs, and no answer leads anywhere but to
a link that a tenant wrote. What cannot be answered is a short plain text.
"""
