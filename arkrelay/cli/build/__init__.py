"""From a source tree to what is installed: ``python -m arkrelay.cli.build pyz|deb|man|completion OUTDIR``.

It is a part of the program, because man pages and completion are made of its commands and the tests run what it
makes; it is no word of ``arkrelay``, because it needs the tree that it builds from (``etc/``, ``systemd/``) and so
serves nobody who has only installed. ``stage`` unpacks arkrelay and its dependencies into one folder, precompiled;
``pyz`` and ``deb`` wrap that folder:

- ``arkrelay.pyz`` is one file that runs. Python cannot import compiled modules from a zip, so ``start`` unpacks them
  once, as shiv and pex do. It is ours because who may write where they are unpacked decides who runs as us, and a
  daemon's user has no home: that wants our own rules, which are most of its 150 lines.
- ``arkrelay_VERSION_ARCH.deb`` has the same folder below /usr/lib/arkrelay, beside units, man pages and completion.
  Debian 12's own aiohttp and others are older than what pyproject.toml asks for, so they come along. It is made by
  ``dpkg-deb`` alone: there is nothing here that debhelper would compile or find.

Both are for the Python (3.11) and the processor on which they were made.
"""
