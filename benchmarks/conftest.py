"""Print the ratios that the benchmarks recorded beside their times."""


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    for bench in session.benchmarks if session else ():
        for name, value in bench.extra_info.items():
            terminalreporter.write_line(f"{bench.name}: {name}: {value}")
