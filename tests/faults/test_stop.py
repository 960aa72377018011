"""SIGTERM and SIGKILL in the middle of work: who waits is answered, the rest goes on later."""

from concurrent.futures import ThreadPoolExecutor

from tests.backend.calls import call, saved, task
from tests.backend.conftest import FRAME_COUNT
from tests.backend.real_server import ask
from tests.faults.conftest import prompt


def frames_of(answer):
    (item,) = answer["results"]
    (region,) = item["result"]
    return [keyframe["frame"] for keyframe in region["value"]["sequence"]]


def stopped_while_a_person_waits(server, *, gate_opens):
    """(the person's answer, the process's status)."""
    server.set("gate")
    server.start()
    with ThreadPoolExecutor(2) as pool:
        person = pool.submit(ask, f"{server.url}/predict", call(task(1), prompt()))
        server.wait_at_the_gate()
        ending = pool.submit(server.terminate)
        server.wait_until(lambda: server.rows("SELECT state FROM jobs") == [("queued",)])
        if gate_opens:
            server.unset("gate")
        return person.result(), ending.result()


def check_that_it_goes_on(server, studio):
    assert server.rows("SELECT state, attempts FROM jobs") == [("queued", 0)]
    assert not studio.predictions
    server.unset("gate")
    server.start()
    server.wait_until_posted()
    (prediction,) = studio.predictions
    assert prediction["result"][0]["value"]["sequence"][-1]["frame"] == FRAME_COUNT


def test_a_stop_finishes_the_frame_and_answers_with_what_there_is(server, studio):
    answer, status = stopped_while_a_person_waits(server, gate_opens=True)
    assert status == 0 and frames_of(answer)[-1] < FRAME_COUNT
    check_that_it_goes_on(server, studio)


def test_a_frame_that_does_not_end_holds_up_neither_the_answer_nor_the_stop(make_server, studio):
    server = make_server(SAM2_STOP_SECONDS="4")
    answer, _ = stopped_while_a_person_waits(server, gate_opens=False)
    assert frames_of(answer)[-1] < FRAME_COUNT
    check_that_it_goes_on(server, studio)


def test_restarts_in_the_midst_of_a_job_are_no_reason_to_give_it_up(server, studio):
    server.set("gate")
    for number in range(4):
        server.start()
        if number == 0:
            ask(f"{server.url}/webhook", saved(prompt()))
        server.wait_at_the_gate()
        (server.faults / "reached").unlink()
        server.process.terminate()
        server.wait_until(lambda: server.rows("SELECT state FROM jobs") == [("queued",)])
        server.unset("gate")
        server.process.wait(240)
        server.set("gate")
    server.unset("gate")
    server.start()
    server.wait_until_posted()
    assert len(studio.predictions) == 1
