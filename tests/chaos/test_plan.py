"""The plan: the same script for the same seed."""

from tests.chaos.plan import KINDS, draw


def test_a_seed_gives_the_same_plan_each_time_and_another_one_another():
    assert draw(7, 60) == draw(7, 60)
    assert draw(7, 60) != draw(8, 60)


def test_every_kind_of_action_comes_within_three_minutes():
    assert {(a.actor, a.name) for a in draw(1, 180)} == set(KINDS)


def test_what_is_left_out_leaves_the_others_as_they_are():
    every = draw(7, 60)
    assert draw(7, 60, ["rename"]) == [action for action in every if action.name != "rename"]
