"""What a /predict body says, and which results are meant."""

import pytest

from backend.errors import BadRequest
from backend.protocol import batch_results, is_text_alone, parse_predict, saved_results
from tests.backend.conftest import payload

BOX = {"id": "r", "type": "videorectangle", "value": {}}
TEXT = {"id": "t", "type": "textarea", "value": {"text": ["go"]}}


def body(**changes):
    return {"tasks": [{"id": 1}], "label_config": "<View/>", "params": {"context": None}} | changes


def test_captured_calls_are_told_apart():
    call = parse_predict(payload("predict_interactive_videorectangle"))
    assert call.is_interactive
    assert [result["id"] for result in call.context_results] == ["_U9dpdxv-7"]
    ghost = parse_predict(payload("predict_interactive_ghost_after_submit_empty_context"))
    assert ghost.context_results == ()
    for name in ("predict_batch", "predict_on_task_open"):
        assert not parse_predict(payload(name)).is_interactive


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "the body [] must be a JSON object"),
        (None, "the body None"),
        (body(tasks=None), "tasks None must be a list"),
        (body(tasks=[1]), "tasks[0] 1 must be a JSON object"),
        (body(label_config=None), "label_config None must be"),
        (body(label_config=" "), "label_config ' ' must be"),
        (body(params=[]), "params [] must be"),
        (body(params={"context": []}), "params.context [] must be"),
        (body(params={"context": {"result": {}}}), "params.context.result {} must be"),
        (body(params={"context": {"result": ["a"]}}), "params.context.result[0] 'a'"),
        (body(tasks=[{}, {}], params={"context": {"result": []}}), "tasks has 2 entries"),
    ],
)
def test_a_bad_body_is_refused_by_field(bad, message):
    with pytest.raises(BadRequest) as caught:
        parse_predict(bad)
    assert message in caught.value.detail


def test_a_text_area_alone_is_told_from_one_of_a_region():
    assert is_text_alone([TEXT]) and is_text_alone([TEXT, {"type": "choices"}])
    assert not is_text_alone([BOX, TEXT]) and not is_text_alone([])


def test_the_boxes_saved_last_are_found():
    newer, older = BOX | {"id": "newer"}, BOX | {"id": "older"}
    task = {
        "drafts": [{"result": [newer, TEXT], "updated_at": "2026-11-22T12:42:43.1Z"}],
        "annotations": [{"result": [older], "updated_at": "2026-11-22T12:40:00.0Z"}],
    }
    assert saved_results(task) == (newer,)
    assert saved_results({}) == ()


def test_a_batch_call_asks_about_the_newest_annotation():
    def annotation(name, day, **more):
        return {"result": [BOX | {"id": name}, TEXT], "updated_at": f"2026-11-{day}"} | more

    task = {
        "annotations": [
            annotation("first", 20),
            annotation("second", 22),
            annotation("third", 21),
            annotation("skipped", 23, was_cancelled=True),
        ]
    }
    assert batch_results(task) == (BOX | {"id": "second"},)
    assert batch_results({"annotations": [{"result": [TEXT]}]}) == ()
    assert batch_results({"annotations": None}) == ()
