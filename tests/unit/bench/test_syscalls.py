"""System calls that strace has counted."""

import pytest

from bench.measures.syscalls import total
from bench.void import VoidError

WITH_ERRORS = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.71    0.034712           9      3560           sendmsg
 38.29    0.021534          16      1296       112 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.056246          11      4856       112 total
"""
WITHOUT_ERRORS = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
100.00    0.000042          42         1           epoll_pwait
------ ----------- ----------- --------- --------- ----------------
100.00    0.000042          42         1           total
"""
WITHOUT_AVERAGE = """\
------ ----------- ----------- --------- --------- ----------------
100.00    0.056246                  4856       112 total
"""


@pytest.mark.parametrize(("summary", "count"), [(WITH_ERRORS, 4856), (WITHOUT_ERRORS, 1), (WITHOUT_AVERAGE, 4856)])
def test_the_number_of_calls_is_read_and_not_that_of_errors(summary: str, count: int) -> None:
    assert total(summary) == count


def test_a_summary_that_says_nothing_is_void() -> None:
    with pytest.raises(VoidError, match="strace has counted nothing"):
        total("strace: Process 7 attached\n")
