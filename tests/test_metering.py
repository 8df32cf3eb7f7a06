import time

import numpy as np

from sirius_helpers.files.metering import EVERY, Meter


def test_a_peak_inside_the_work_is_seen_after_it_is_gone():
    with Meter() as meter:
        before = meter.peaks()["peak_memory"]
        block = np.ones(2**25)  # a quarter of a GiB
        time.sleep(4 * EVERY)
        del block
        time.sleep(4 * EVERY)
    assert 0.2 < meter.peaks()["peak_memory"] - before < 0.4


def test_a_meter_of_quiet_work_reads_the_process_alone():
    with Meter() as meter:
        pass
    assert 0.01 < meter.peaks()["peak_memory"] < 64
