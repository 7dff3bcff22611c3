"""Formats: bytes in, bytes out, with no clock, no network and no state of their own.

``header`` finds the fields, ``author`` says who wrote the message, ``intake`` makes a submission ready, ``trace``
renders our Received field, ``dkim`` signs and ``dkim_verify`` checks, both over the forms of ``canonical``,
``sevenbit`` re-encodes for an old peer, ``tracking`` replaces links in the parts that ``leaves`` and ``markup`` find,
``unsubscribe`` renders the way out of a list, ``verp`` makes the return paths by which bounces find their recipient,
``feedback`` says where complaints go.

What comes back is read by ``report``, over the parts that ``mime`` finds: ``deliverystatus`` (RFC 3464), ``arf``
(RFC 5965), ``bouncetext`` (what servers tell people) and ``autoreply``, by the words of ``bounces.toml``.

The standard library's ``email`` package is not used on mail that comes from outside. It parses recursively, it
changes messages that it only should pass on, and it decodes encoded words where none may stand; here a message
is a block of header bytes, scanned by one regular expression, and a body that is left alone.
"""
