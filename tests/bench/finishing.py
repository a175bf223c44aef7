"""The end of a benchmark: results, report and plots."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.benchmark import RESULTS_FILE, Benchmark
from bench.results import Results


def finish(benchmark: Benchmark, *, prefix: Path | None) -> None:
    """Writes the results for the last time, the report and the plots, and tells where they are.

    Args:
        benchmark: that has run, to its end or not.
        prefix: what `python -m bench.prefix --out` has written, if it is to be in the report.
    """
    results = benchmark.save(lambda one: _with_prefix(one, prefix))
    files = [benchmark.folder / RESULTS_FILE, *_report(benchmark, results)]
    void = sum(bool(one.void) for one in results.samples)
    benchmark.watcher.says(f"{len(results.samples)} measurements, {void} of them void")
    for file in files:
        benchmark.watcher.says(str(file))


def _with_prefix(results: Results, file: Path | None) -> Results:
    return results if file is None else msgspec.structs.replace(results, prefix=json.loads(file.read_bytes()))


def _report(benchmark: Benchmark, results: Results) -> Sequence[Path]:
    try:
        from bench.report import write

        return write(results, benchmark.folder)
    except Exception as error:
        # The figures are safe, and a report can be written of them again.
        benchmark.watcher.says(f"no report: {type(error).__name__}: {error}")
        return ()
