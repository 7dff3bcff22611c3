"""The configuration: files in, one immutable snapshot out; and the only code that writes such a file.

``schema`` turns TOML tables into the dataclasses of ``model``; ``load`` reads every file of a configuration, and
``check`` and ``checktenants`` hold keys and files against each other; ``snapshot`` is the result, with the look-ups
that the doors need; ``live`` keeps the one in force, swaps it whole, and ``changes`` says what a swap did.
``tenants`` and ``domains`` change tenant and platform files through ``files``: whole, atomically, and only when the
result would load.

The files are the truth for what is configured, the database for what happened, so nothing here reads the
database. A broken file is refused whole and every problem is reported at once, because a person who fixes a
file wants the list and not one round trip per typing error. ``arkrelay.toml`` is never written by us.
"""
