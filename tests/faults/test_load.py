"""Many at once on the real model: nothing fails, nothing leaks, nobody is left out."""

from benchmarks.load import run_load


def test_many_clients_are_answered_or_told_to_come_back(tmp_path):
    measured = run_load(tmp_path, clients=40, seconds=45, SAM2_MAX_WAITING_REQUESTS="4")
    assert measured.errors == []
    assert measured.statuses["health", 200] and measured.statuses["webhook", 200]
    assert measured.statuses["interactive", 429]  # forty are more than four
    # Decoders and kept videos come and go; what grows with the requests would be far above.
    before, after = measured.samples[len(measured.samples) // 3], measured.samples[-1]
    assert after["files"] <= before["files"] + 40
    assert after["threads"] <= before["threads"] + 20
