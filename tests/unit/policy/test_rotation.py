"""What comes next in a rotation, and when."""

import pytest

from arkrelay.policy.rotation import RETIRE_S, SEEN_S, KeyState, plan

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("keys", "step", "due_at"),
    [
        ([], "publish", None),
        ([KeyState("a", "active")], "publish", None),
        ([KeyState("a", "active"), KeyState("b", "published")], "see", None),
        ([KeyState("a", "active"), KeyState("b", "published", NOW, NOW)], "activate", NOW + SEEN_S),
        (
            [KeyState("b", "published", NOW, NOW), KeyState("c", "published", NOW, NOW + 60)],
            "activate",
            NOW + 60 + SEEN_S,
        ),
        ([KeyState("b", "published", NOW, NOW), KeyState("c", "published", NOW)], "see", None),
        ([KeyState("a", "retired", NOW), KeyState("b", "active", NOW)], "retire", NOW + RETIRE_S),
        ([KeyState("a", "retired"), KeyState("b", "active", NOW)], "retire", None),  # from before dates were kept
    ],
)
def test_the_next_step(keys: list[KeyState], step: str, due_at: float | None) -> None:
    found = plan(keys)
    assert (found.step, found.due_at) == (step, due_at)
    assert found.due(NOW * 2) == (step == "see" or due_at is not None)
    assert not (due_at and found.due(NOW))
