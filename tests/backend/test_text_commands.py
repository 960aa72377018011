"""What people type, and what it is taken for."""

import pytest

from backend.text_commands import HELP, Command, UnknownCommand, command_of, parse_command
from converters.types import Direction
from tests.backend.calls import box, choice, text

FORWARD, BACKWARD, BOTH = Direction.FORWARD, Direction.BACKWARD, Direction.BOTH


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("track", Command()),
        ("go", Command()),
        ("forward", Command(direction=FORWARD)),
        ("track 100", Command(frame_limit=100)),
        ("track 1 frame", Command(frame_limit=1)),
        ("track 20 frames", Command(frame_limit=20)),
        ("back", Command(direction=BACKWARD)),
        ("backward 7", Command(direction=BACKWARD, frame_limit=7)),
        ("both", Command(direction=BOTH)),
        ("both 100", Command(direction=BOTH, frame_limit=100)),
        ("to 250", Command(to_ls_frame=250)),
        ("track to frame 250", Command(to_ls_frame=250)),
        ("stop", Command(action="stop")),
        ("cancel", Command(action="stop")),
        ("help", Command(action="help")),
        ("?", Command(action="help")),
        ("  Track \t 100\n", Command(frame_limit=100)),
        ("TO 250", Command(to_ls_frame=250)),
        ("track\u00a0100", Command(frame_limit=100)),  # a space that does not break
        ("track\u3000100", Command(frame_limit=100)),  # an ideographic one
        ("track 999999", Command(frame_limit=999999)),
        ("track \u0661\u0660", Command(frame_limit=10)),  # Arabic digits
    ],
)
def test_a_command_is_understood(typed, expected):
    assert parse_command(typed) == expected
    assert Command.from_json(parse_command(typed).to_json()) == expected


@pytest.mark.parametrize(
    "typed",
    [
        "", " ", "trackk", "track -1", "track 0", "to 0", "track 1.5", "track 1e3", "to", "both to",
        "track 10000000", "track " + "9" * 100_000, "stop it", "track; rm -rf /", "<script>",
        "\u0442rack",  # a Cyrillic letter
        "track \u00b2", "track \u2167",  # numbers, but no digits
        "t" * 1_000_000, "\ud800", "\x00", "track\u200b100",
    ],
)
def test_other_text_is_answered_with_a_short_sentence(typed):
    with pytest.raises(UnknownCommand) as caught:
        parse_command(typed)
    assert HELP in str(caught.value) and len(str(caught.value)) < len(HELP) + 1200
    str(caught.value).encode()  # can be sent


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], None),
        ([box()], None),
        ([choice("both")], None),
        ([text("track")], Command()),
        ([text("back", "track 5")], Command(frame_limit=5)),  # the newest entry
        ([text("stop"), choice("both")], Command(action="stop")),
        ([text("track"), choice("both")], Command(direction=BOTH)),
        ([choice("both", "track 9"), text("track")], Command(direction=BOTH, frame_limit=9)),
        ([text("back 5"), choice("both", "track 9")],
         Command(direction=BACKWARD, frame_limit=5)),  # the text says more than the menu
        ([text("track"), choice("night", "to 30")], Command(to_ls_frame=30)),
        ([text("track"), choice("stop")], Command()),  # no option
        ([text("back"), text("it rains", name="remarks")], Command(direction=BACKWARD)),
        ([text("it rains", name="remarks"), text("back")], Command(direction=BACKWARD)),
    ],
)
def test_the_command_among_results(results, expected):
    assert command_of(results) == expected


@pytest.mark.parametrize(
    "value", [None, [], "track", {}, {"text": None}, {"text": 3}, {"text": [3, None, ["track"]]},
              {"text": {"text": "track"}}, {"text": [" "]}]
)
def test_odd_values_hold_no_command(value):
    assert command_of([text("x") | {"value": value}]) is None


def test_a_text_that_is_no_list_counts_too():
    assert command_of([text() | {"value": {"text": "back"}}]) == Command(direction=BACKWARD)


def test_an_entry_that_is_no_command_is_said():
    with pytest.raises(UnknownCommand, match="dance"):
        command_of([text("track", "dance")])
