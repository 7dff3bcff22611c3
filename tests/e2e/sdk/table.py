"""The scenes that the official client plays: one for each of its methods, kept by the method's name."""

from collections.abc import Awaitable, Callable

from peers.arkclient import Api
from peers.arkdoor import ArkDoor

Scene = Callable[[Api, ArkDoor], Awaitable[None]]

SCENES: dict[str, Scene] = {}


def scene(name: str) -> Callable[[Scene], Scene]:
    """Keep a scene for the method ``name``; it calls it with all its parameters, and looks at what it gave."""

    def keep(function: Scene) -> Scene:
        assert name not in SCENES, name
        SCENES[name] = function
        return function

    return keep
