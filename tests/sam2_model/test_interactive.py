"""A person's work that goes on in another process comes out as in one go."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from converters.types import Box, Prompt
from sam2_model.interactive import FramePrompt, InteractiveVideo
from sam2_model.kept_state import KeptState, OtherModel
from sam2_model.session import StateLimits
from sam2_model.tracker import StopRules
from sam2_model.video import open_frame_source
from tests.sam2_model.small_model import moving_square, small_network, small_predictor

COUNT = 24
PICTURES = moving_square(COUNT)
LIMITS = StateLimits()
TIGHT = StateLimits(feature_cache_bytes=0, history_bytes=100_000)


def click(frame_index, object_id="a", *points, before=None):
    xy = np.array(points or [(20, 30)], np.float32)
    labels = np.ones(len(xy), np.int32)
    prompt = Prompt(object_id, frame_index, points_xy=xy, point_labels=labels)
    return FramePrompt(prompt, before)


def drawn(frame_index, object_id="a"):
    x = 3 * frame_index % 76
    box = Box(x, 20, x + 22, 45)
    return FramePrompt(Prompt(object_id, frame_index, box=box))


def forward(start, stop=COUNT):
    return [range(start, stop)]


def both(pivot):
    return [range(pivot, COUNT), range(pivot - 1, -1, -1)]


ALONE = [drawn(5)]
TWO = [drawn(5), drawn(9, "b")]
CORRECTED = [*TWO, click(14, "a", (50, 30), (52, 34))]
CORRECTED_BEFORE = [*CORRECTED, drawn(7, "a")]

WORK = {
    "forward": [(TWO, forward(5))],
    "backward": [(TWO, [range(9, -1, -1)])],
    "both": [(TWO, both(5))],
    "corrected": [(TWO, both(5)), (CORRECTED, forward(14)), (CORRECTED_BEFORE, both(7))],
    "taken back": [(CORRECTED, forward(5)), (TWO, forward(12)), (ALONE, both(20))],
    "another object later": [(ALONE, forward(5)), (TWO, both(9))],
    "from the middle": [(TWO, forward(20)), (CORRECTED, [range(22, 3, -1)])],
}


@dataclasses.dataclass
class Person:
    """Works on a video, in one process after another."""

    limits: StateLimits = LIMITS
    stop: StopRules = StopRules()
    network: dict = dataclasses.field(default_factory=dict)
    known: dict = dataclasses.field(default_factory=dict)
    """(object, frame) -> mask of an earlier time."""

    def __post_init__(self):
        self.video = self.open()
        self.found: list = []

    def open(self):
        return InteractiveVideo.open(
            open_frame_source(PICTURES), predictor=small_predictor(small_network(**self.network)),
            limits=self.limits, stop=self.stop,
        )

    def follow(self, items, passes, name, count=None):
        steps = self.video.follow(
            items, passes, name=name, known_mask=lambda *key: self.known.get(key)
        )
        shown = (step for step in steps if step is not None)
        found = list(itertools.islice(shown, count))
        steps.close()
        self.found += found
        return found

    def move_to_another_process(self, saved, rest=None):
        self.video.close()
        self.video = self.open()
        self.video.restore(KeptState.parse(saved), rest)

    def work(self, steps, break_after=None, *, lost=0):
        """`break_after` so many frames in all, the last `lost` of them after the last save."""
        done = 0
        for number, (items, passes) in enumerate(steps):
            name, total = f"run {number}", sum(map(len, passes))
            if break_after is None or not done < break_after <= done + total:
                done += len(self.follow(items, passes, name))
                continue
            lost = min(lost, break_after - done - 1)
            self.follow(items, passes, name, break_after - done - lost)
            saved = self.video.save()
            self.follow(items, left(passes, break_after - done - lost), name, lost)
            rest = left(passes, break_after - done)
            self.move_to_another_process(saved, rest)
            self.follow(items, rest, name)
            done += total


def left(passes, count):
    rest = []
    for order in passes:
        rest.append(order[count:])
        count = max(0, count - len(order))
    return [order for order in rest if order]


def assert_equal(one, other):
    assert [frame.frame_index for frame in one] == [frame.frame_index for frame in other]
    for a, b in zip(one, other):
        assert a.object_ids == b.object_ids
        assert np.array_equal(a.masks, b.masks), a.frame_index
        assert np.array_equal(a.scores, b.scores), a.frame_index


def in_one_go(steps, **options):
    person = Person(**options)
    person.work(steps)
    return person.found


@functools.cache
def known_work(name):
    return in_one_go(WORK[name])


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize(("done", "lost"), [(1, 0), (25, 4), (34, 2)])
def test_a_run_that_is_broken_off_goes_on_as_in_one_go(name, done, lost):
    person = Person()
    person.work(WORK[name], done, lost=lost)
    assert_equal(person.found, known_work(name))


@pytest.mark.parametrize("name", [name for name, work in WORK.items() if len(work) > 1])
def test_what_is_corrected_in_another_process_comes_out_as_in_the_same(name):
    person = Person()
    for number, step in enumerate(WORK[name]):
        person.follow(*step, f"run {number}")
        person.move_to_another_process(person.video.save(), [])
    assert_equal(person.found, known_work(name))


def test_what_nothing_has_changed_for_is_not_computed_again():
    person = Person(limits=StateLimits(feature_cache_bytes=0))
    person.follow(TWO, forward(5), "one")
    person.move_to_another_process(person.video.save(), [])
    person.follow(TWO, forward(5), "two")
    assert person.video.encoded_frame_count == 0


@pytest.mark.parametrize("lost", [0, 5])
def test_a_correction_among_frames_that_were_found_after_the_last_save(lost):
    items, corrected = [drawn(5)], [drawn(5), drawn(17)]
    one, two = Person(), Person()
    one.follow(items, forward(5), "one", 14)
    one.follow(corrected, forward(17), "two")
    two.follow(items, forward(5), "one", 14 - lost)
    saved = two.video.save()
    two.follow(items, forward(19 - lost), "one", lost)
    two.move_to_another_process(saved, forward(19))
    two.follow(corrected, forward(17), "two")
    assert_equal(two.found, one.found)


def test_one_that_went_on_from_a_mask_alone_does_so_until_its_end():
    mask = np.zeros((64, 96), bool)
    mask[20:45, 30:52] = True
    work, known = [([drawn(2)], forward(11)), ([drawn(2)], forward(20))], {("a", 10): mask}
    whole = in_one_go(work, known=known)
    for done, lost in ((3, 0), (6, 2), (20, 1)):
        person = Person(known=known)
        person.work(work, done, lost=lost)
        assert_equal(person.found, whole)


@pytest.mark.parametrize("done", [2, 3, 4, 9])
def test_objects_that_were_given_up_stay_so(done):
    options = {"network": {"score_bias": -50.0}, "stop": StopRules(lost_frames=3)}
    work = [([drawn(0), drawn(12), drawn(4, "b")], forward(0))]
    person = Person(**options)
    person.work(work, done)
    assert_equal(person.found, in_one_go(work, **options))


@pytest.mark.parametrize("name", ["both", "corrected"])
def test_what_was_forgotten_for_its_size_stays_so(name):
    person = Person(limits=TIGHT)
    person.work(WORK[name], 21)
    assert_equal(person.found, in_one_go(WORK[name], limits=TIGHT))


def test_its_size_is_bounded():
    person = Person(limits=StateLimits(history_bytes=0))
    sizes = []
    for stop in (22, 24):
        person.follow(ALONE, forward(5, stop), "one")
        sizes.append(len(person.video.save()))
    assert sizes[1] < 1.1 * sizes[0]


def test_the_same_prompt_said_again_changes_nothing():
    person = Person(limits=StateLimits(feature_cache_bytes=0))
    person.follow([drawn(5)], forward(5), "one")
    encoded = person.video.encoded_frame_count
    person.follow([drawn(5)], forward(5), "two")
    assert person.video.encoded_frame_count == encoded


def test_that_of_another_model_is_refused():
    person = Person()
    person.follow(ALONE, forward(5), "one", 3)
    saved = person.video.save()
    person.network = {"memory_dim": 16}
    with pytest.raises(OtherModel, match="another model"):
        person.move_to_another_process(saved)


@pytest.mark.parametrize("cut", [0, 100, -100])
def test_what_is_cut_off_is_refused(cut):
    person = Person()
    person.follow(ALONE, forward(5), "one", 3)
    with pytest.raises(ValueError, match="not a kept state"):
        KeptState.parse(person.video.save()[:cut])
