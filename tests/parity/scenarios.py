"""What people do with a video predictor, written once for both packages.

Each scenario takes a predictor and a state and gives every answer the
predictor gave, in order. Coordinates are shares of the frame, so that any
clip serves.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

Answer = tuple[str, int, list, object]
"""What was done, frame, object ids, logits (N, 1, H, W)."""


class Session:
    """One predictor's calls, with relative coordinates, recording each answer."""

    def __init__(self, predictor, state, frame_count: int) -> None:
        self.predictor = predictor
        self.state = state
        self.frame_count = frame_count
        self.size = np.array([state["video_width"], state["video_height"]], dtype=np.float32)
        self.answers: list[Answer] = []

    def _record(self, what: str, answer) -> None:
        frame_index, object_ids, logits = answer
        self.answers.append((what, frame_index, list(object_ids), logits))

    def click(self, frame, object_id, points, labels, box=None, **kwargs) -> None:
        points = np.array(points, dtype=np.float32) * self.size if points else None
        labels = np.array(labels, dtype=np.int32) if labels else None
        if box is not None:
            box = np.array(box, dtype=np.float32) * np.tile(self.size, 2)
        self._record(
            f"prompt {object_id}",
            self.predictor.add_new_points_or_box(
                self.state, frame_idx=frame, obj_id=object_id, points=points,
                labels=labels, box=box, **kwargs,
            ),
        )

    def mask(self, frame, object_id, box) -> None:
        width, height = self.size.astype(int)
        mask = np.zeros((height, width), dtype=bool)
        x0, y0, x1, y1 = (np.array(box) * np.tile(self.size, 2)).astype(int)
        mask[y0:y1, x0:x1] = True
        self._record(
            f"mask {object_id}",
            self.predictor.add_new_mask(self.state, frame_idx=frame, obj_id=object_id, mask=mask),
        )

    def clear(self, frame, object_id) -> None:
        self._record(
            f"clear {object_id}",
            self.predictor.clear_all_prompts_in_frame(self.state, frame, object_id),
        )

    def remove(self, object_id) -> None:
        _, updated = self.predictor.remove_object(self.state, object_id)
        for frame, logits in sorted(updated, key=lambda item: item[0]):
            self._record("remove", (frame, [], logits))

    def propagate(self, **kwargs) -> None:
        for answer in self.predictor.propagate_in_video(self.state, **kwargs):
            self._record("propagate", answer)


def one_click(session: Session) -> None:
    session.click(0, 1, [[0.5, 0.5]], [1])
    session.propagate()


def three_clicks_with_a_negative(session: Session) -> None:
    session.click(0, 1, [[0.4, 0.5], [0.6, 0.5], [0.2, 0.2]], [1, 1, 0])
    session.propagate()


def box(session: Session) -> None:
    session.click(0, 1, None, None, box=[0.3, 0.25, 0.7, 0.8])
    session.propagate()


def box_and_clicks(session: Session) -> None:
    session.click(
        0, 1, [[0.5, 0.6], [0.35, 0.3]], [1, 0], box=[0.3, 0.25, 0.7, 0.8]
    )
    session.propagate()


def clicks_one_after_another(session: Session) -> None:
    session.click(0, 1, [[0.5, 0.5]], [1])
    session.click(0, 1, [[0.6, 0.5]], [1], clear_old_points=False)
    session.click(0, 1, [[0.1, 0.5]], [0], clear_old_points=False)
    session.propagate()


def mask(session: Session) -> None:
    session.mask(0, 1, [0.3, 0.25, 0.7, 0.8])
    session.propagate()


def three_objects_on_different_frames(session: Session) -> None:
    middle = session.frame_count // 2
    session.click(0, 1, [[0.5, 0.5]], [1])
    session.click(1, 2, None, None, box=[0.1, 0.2, 0.4, 0.7])
    session.mask(middle, 3, [0.5, 0.5, 0.9, 0.9])
    session.propagate()


def correction_then_again(session: Session) -> None:
    session.click(0, 1, [[0.5, 0.5]], [1])
    session.propagate()
    at = session.frame_count // 2
    session.click(at, 1, [[0.6, 0.6]], [0])
    session.click(at, 1, [[0.45, 0.4]], [1], clear_old_points=False)
    session.propagate()


def mask_correction_then_again(session: Session) -> None:
    session.click(0, 1, [[0.5, 0.5]], [1])
    session.propagate()
    session.mask(session.frame_count // 2, 1, [0.3, 0.25, 0.7, 0.8])
    session.propagate(start_frame_idx=session.frame_count // 2)


def object_added_after_tracking(session: Session) -> None:
    session.click(0, 1, [[0.5, 0.5]], [1])
    session.propagate()
    session.click(1, "late", None, None, box=[0.1, 0.2, 0.4, 0.7])
    session.propagate()


def reverse(session: Session) -> None:
    session.click(session.frame_count - 1, 1, [[0.5, 0.5]], [1])
    session.propagate(start_frame_idx=session.frame_count - 1, reverse=True)


def both_directions(session: Session) -> None:
    middle = session.frame_count // 2
    session.click(middle, 1, None, None, box=[0.3, 0.25, 0.7, 0.8])
    session.propagate()
    session.propagate(start_frame_idx=middle, reverse=True)


def prompt_later_than_start(session: Session) -> None:
    session.click(session.frame_count // 2, 1, [[0.5, 0.5]], [1])
    session.propagate(start_frame_idx=0)


def cleared_prompts(session: Session) -> None:
    session.click(0, 1, [[0.5, 0.5]], [1])
    session.click(2, 1, [[0.6, 0.5]], [1])
    session.propagate()
    session.clear(2, 1)
    session.propagate()


def removed_object(session: Session) -> None:
    session.click(0, 1, [[0.5, 0.5]], [1])
    session.click(0, 2, None, None, box=[0.1, 0.2, 0.4, 0.7])
    session.propagate(max_frame_num_to_track=2)
    session.remove(1)
    session.propagate()


def many_prompted_frames(session: Session) -> None:
    for index, frame in enumerate(range(0, min(8, session.frame_count), 2)):
        session.click(frame, 1, [[0.4 + 0.05 * index, 0.5]], [1])
    session.propagate()
    session.propagate(start_frame_idx=session.frame_count - 1, reverse=True)


SCENARIOS: tuple[Callable[[Session], None], ...] = (
    one_click,
    three_clicks_with_a_negative,
    box,
    box_and_clicks,
    clicks_one_after_another,
    mask,
    three_objects_on_different_frames,
    correction_then_again,
    mask_correction_then_again,
    object_added_after_tracking,
    reverse,
    both_directions,
    prompt_later_than_start,
    cleared_prompts,
    removed_object,
)


def run(scenario, predictor, state, frame_count: int) -> list[Answer]:
    session = Session(predictor, state, frame_count)
    scenario(session)
    return session.answers
