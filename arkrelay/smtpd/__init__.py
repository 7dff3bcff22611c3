"""The SMTP doors: bytes from outside become our types, and our answers go back. Nothing is decided here.

``listener.Doors`` binds the sockets. Each connection is one object, a subclass of aiosmtpd's ``SMTP``:

- ``connection`` is its life: bytes, deadlines, replies, TLS, and the end of a client that floods, drips or
  never reads; ``shared`` is what all of them share;
- ``conversation`` adds lines and the verbs that need no mail, and refuses who speaks out of turn;
- ``transaction`` adds MAIL, RCPT and DATA;
- ``session`` is authenticated submission (RFC 6409) on top of it, ``bounces`` the door for our return paths.

Beside them stand the parts that need no connection to be tested: ``input`` (bytes that nobody has read yet),
``data`` (the end of a message and its line ends), ``parameters`` (RFC 1870, 3461, 6152, 6531), ``auth`` (SASL
mechanisms against credentials), ``reply`` (one line, whatever happened), ``limiter`` (what one client address may
take).

aiosmtpd gives the protocol class, the life of a connection, the verbs by name and the state of session and
envelope. What it does with untrusted bytes is replaced: its address parser decodes RFC 2047 words into CR LF,
its DATA holds an endless line in memory past the size limit, a client that leaves cancels the commit, an
exception is shown to the client as a permanent failure, and AUTH has no limit of tries and does not know
implicit TLS.
"""
